"""MD17 files: ORCA's order in, PySCF's order out, and a file that does not agree with PySCF's overlap is refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from model.integrals.pyscf_molecule import integrals
from training.data import splits
from training.data.sources import DatasetError, open_source, read_frames, read_level

from .layouts import Label, label, write_md17, write_stable

FLOAT32_TOLERANCE_HARTREE = 2e-6
"""Half a unit in the last place of 20 hartree in float32."""


@pytest.fixture(scope="module")
def water() -> list[Label]:
    """PBE water, displaced."""
    return [label("H2O", "pbe", seed) for seed in range(4)]


@pytest.fixture(scope="module")
def path(water: list[Label], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("md17") / "schnorb_hamiltonian_water.db"
    write_md17(path, water)
    return path


def assert_same(path: Path, water: list[Label]) -> None:
    with open_source(path, "md17") as source:
        for index, item in enumerate(water):
            frame = source.frame(index, "train")
            assert np.array_equal(frame.structure.numbers, item.numbers)
            assert np.abs(frame.structure.positions_angstrom - item.angstrom).max() < 1e-9
            assert np.abs(frame.fock - item.fock).max() < FLOAT32_TOLERANCE_HARTREE
            energies = scipy.linalg.eigh(frame.fock, integrals(frame.structure, "def2-svp").overlap, eigvals_only=True)
            assert np.abs(energies - item.orbital_energies).max() < 10 * FLOAT32_TOLERANCE_HARTREE
            assert (frame.molecule, frame.index, frame.energy, frame.cycles_minao) == ("water", index, None, None)


def test_frames_are_pyscfs_matrices(path: Path, water: list[Label]) -> None:
    assert_same(path, water)


def test_arrays_as_base64_text_are_read_too(water: list[Label], tmp_path: Path) -> None:
    write_md17(tmp_path / "old.db", water, base64=True)
    assert_same(tmp_path / "old.db", water)


def test_reading_does_not_write(path: Path, tmp_path: Path) -> None:
    """Opening a foreign sqlite file must not make tables in it, as ASE's own reader would."""
    before = path.read_bytes()
    assert read_level(path) == read_level(path, "md17")
    assert (read_level(path).xc, read_level(path).program) == ("pbe", "ORCA")
    assert path.read_bytes() == before
    write_stable(tmp_path / "other.db", [])
    other = (tmp_path / "other.db").read_bytes()
    with pytest.raises(DatasetError, match="not an ASE database"):
        open_source(tmp_path / "other.db", "md17")
    assert (tmp_path / "other.db").read_bytes() == other


def test_a_file_in_another_order_is_refused(water: list[Label], tmp_path: Path) -> None:
    write_md17(tmp_path / "pyscf.db", water, order=range(24))
    with (
        pytest.raises(DatasetError, match=r"overlap differs from PySCF's by .*AO\s+order"),
        open_source(tmp_path / "pyscf.db", "md17") as source,
    ):
        source.frame(0, "train")


def test_the_published_split_needs_the_whole_file(
    path: Path, water: list[Label], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DatasetError, match="takes 500 for training and 500"):
        list(read_frames(path, ["train"]))
    monkeypatch.setitem(splits.MD17_SIZES, "water", (2, 1))
    order = np.random.RandomState(42).permutation(4)
    found = {name: [frame.index for frame in read_frames(path, [name])] for name in splits.NAMES}
    assert found == {"train": order[:2].tolist(), "val": [order[2]], "test": [order[3]]}
    assert [frame.index for frame in read_frames(path, ["train"], frames_per_molecule=1)] == order[:1].tolist()


def test_other_molecules_and_damaged_rows_are_named(path: Path, tmp_path: Path) -> None:
    for column, value, words in [
        ("numbers", np.array([8, 1, 9], dtype=np.int32).tobytes(), "none of water"),
        ("positions", b"\0" * 16, "damaged"),
        ("data", "{", "damaged"),
        ("data", b"\1" * 20, "damaged"),
        ("data", "{}", "hamiltonian"),
        ("data", '{"hamiltonian": [[1, 2], [3, 4]]}', "24 x 24"),
    ]:
        copy = tmp_path / "copy.db"
        copy.write_bytes(path.read_bytes())
        with sqlite3.connect(copy) as connection:
            connection.execute(f"UPDATE systems SET {column} = ? WHERE id = 1", (value,))
        connection.close()
        with pytest.raises(DatasetError, match=words), open_source(copy, "md17") as source:
            source.frame(0, "train")
