"""The data format: what is written is read back, and what is missing is named."""

from __future__ import annotations

import csv
import importlib.metadata
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from model.integrals.pyscf_molecule import integrals
from training.data.sources import DatasetError, Frame, read_frames, read_level
from training.generate.run import Summary


def test_frames_come_in_name_order_with_symmetric_focks(tiny_frames: list[Frame]) -> None:
    assert [(frame.smiles, frame.index) for frame in tiny_frames] == [
        (name, index) for name in ("CH4", "H2", "H2O", "NH3") for index in (0, 1)
    ]
    for frame in tiny_frames:
        assert np.array_equal(frame.fock, frame.fock.T)
        assert frame.fock.shape == integrals(frame.structure, "def2-svp").core.shape
        assert frame.heavy_atoms == sum(z > 1 for z in frame.structure.numbers.tolist())


def test_limits_take_the_first_geometries_and_spread_over_molecules(tiny: Summary) -> None:
    assert [frame.index for frame in read_frames(tiny.file, ["train"], frames_per_molecule=1)] == [0] * 4
    few = list(read_frames(tiny.file, ["train"], max_molecules=2))
    assert list(dict.fromkeys(frame.smiles for frame in few)) == ["CH4", "NH3"], "first and last name"
    assert len(list(read_frames(tiny.file, ["train", "val"]))) == 10


def test_level_is_in_the_file(tiny: Summary) -> None:
    level = read_level(tiny.file)
    assert (level.xc, level.basis, level.spin) == ("b3lyp", "def2-svp", "restricted")
    assert level.program_version == importlib.metadata.version("pyscf")


def test_the_table_says_what_the_file_holds(tiny: Summary) -> None:
    with (tiny.file.parent / "molecules.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    with h5py.File(tiny.file) as file:
        assert [row["id"] for row in rows] == sorted(file)
        for row in rows:
            group = file[row["id"]]
            assert [row[name] for name in ("smiles", "formula", "split", "pool")] == [
                group.attrs[name] for name in ("smiles", "formula", "split", "pool")
            ]
            assert group["positions"].shape == (int(row["frames"]), int(row["atoms"]), 3)
            n_ao = int(row["ao"])
            assert group["fock_tril"].shape == (int(row["frames"]), n_ao * (n_ao + 1) // 2)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"focks\.h5 is not there.*generate"):
        list(read_frames(tmp_path / "focks.h5", ["train"]))


def test_a_file_that_is_not_hdf5_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "focks.h5"
    path.write_bytes(b"not a data file" * 100)
    with pytest.raises(DatasetError, match="not an HDF5 file"):
        read_level(path)


def test_an_unknown_split_names_the_known_ones(tiny: Summary) -> None:
    with pytest.raises(DatasetError, match="no split 'ood'; it has train, val"):
        list(read_frames(tiny.file, ["ood"]))


def test_a_missing_attribute_is_named(tiny: Summary, tmp_path: Path) -> None:
    path = tmp_path / "copy.h5"
    shutil.copy(tiny.file, path)
    with h5py.File(path, "a") as file:
        del file.attrs["basis"]
    with pytest.raises(DatasetError, match="basis"):
        read_level(path)
