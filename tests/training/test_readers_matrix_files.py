"""Data sets of H(R): folders of folders and one file of many, as the same frames as the molecular readers give."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.blocks.block_set import BlockSet
from model.formats.deeph import write_deeph
from model.formats.deeph_legacy import write_deeph_legacy
from model.formats.matrices import Matrices
from model.formats.rearrange import structure_of
from model.formats.registry import write
from model.level import UNKNOWN, Level
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from training.data.sources import DatasetError, open_source, read_frames

ROOT = Path(__file__).resolve().parents[2]
CRYSTALS = Path(os.environ.get("TRACEGRAD_CRYSTALS", ROOT.parent / "shared" / "data" / "crystals"))
SHELLS = {5: (0, 1), 7: (0, 0, 1)}


def chain(seed: int, numbers: tuple[int, ...] = (5, 7), shells: dict[int, tuple[int, ...]] | None = None) -> Matrices:
    """A chain along x with random matrices in the standard order."""
    rng = np.random.default_rng(seed)
    positions = np.array([[1.4 * k, 0.0, 0.0] for k in range(len(numbers))]) + rng.normal(size=(len(numbers), 3)) * 0.05
    cell = np.diag([1.4 * len(numbers), 12.0, 12.0])
    structure = replace(structure_of(numbers, positions, cell), pbc=(True, False, False))
    pairs = PairList.within(structure, 3.5)
    space = OrbitalSpace("test", shells or SHELLS, order="e3nn")
    empty = BlockSet.zeros(space, structure.numbers, pairs)
    made = empty.with_values(rng.normal(size=empty.values.shape)).hermitised()
    return Matrices(structure, made, made.with_values(0.01 * made.values), fermi_energy=0.1 if seed % 2 else None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(10):
        write_deeph(chain(seed, (5, 7) if seed % 3 else (7,)), tmp_path / "set" / f"{seed:02d}")
    return tmp_path / "set"


@pytest.mark.parametrize("format", ["deeph", "deeph-legacy", "abacus", "siesta"])
def test_every_format_gives_the_same_frame(format: str, tmp_path: Path) -> None:
    if format == "siesta":
        pytest.importorskip("sisl")
    expected = chain(1)
    write(expected, tmp_path / "set" / "one", format)
    for path in (tmp_path / "set", tmp_path / "set" / "one"):
        with open_source(path) as source:
            assert len(source) == 1
            frame = source.frame(0, "train")
    found = frame.hamiltonian.in_order("e3nn")
    assert found.space.shells == SHELLS
    assert np.array_equal(frame.structure.numbers, expected.structure.numbers)
    assert frame.structure.pbc == (True, False, False)
    if format != "siesta":  # sisl's .HSX is relative to the Fermi level
        assert (
            np.abs(
                found.on_pairs(expected.require_hamiltonian().pairs).values - expected.stored["hamiltonian"].values
            ).max()
            < 1e-13
        )
    assert frame.overlap is not None
    assert not frame.is_molecular
    assert (frame.structure.charge, frame.structure.multiplicity) == (0, 1)


def test_one_space_for_all_frames(folder: Path) -> None:
    """Frames that lack an element have the orbitals of the whole set."""
    with open_source(folder) as source:
        spaces = [source.frame(index, "train").hamiltonian.space for index in range(len(source))]
        assert all(space.shells == SHELLS for space in spaces)
        assert source.atom_counts().tolist() == [1, 2, 2] * 3 + [1]
        assert source.frame(0, "").fermi_energy_hartree is None
        assert source.frame(1, "").fermi_energy_hartree == pytest.approx(0.1, abs=1e-12)
        assert source.charge_states() == {(0, 1), (0, 2)}


def test_splits(folder: Path) -> None:
    with open_source(folder) as source:
        assert source.schemes == ("random",)
        splits = source.splits("random")
        assert {name: len(indices) for name, indices in splits.items()} == {"train": 6, "val": 2, "test": 2}
        assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(10))
        with pytest.raises(DatasetError, match="allowed are random"):
            source.splits("file")
        again = pickle.loads(pickle.dumps(source))
        assert np.array_equal(again.splits("random")["test"], splits["test"])
    frames = list(read_frames(folder, ["val"]))
    assert [frame.split for frame in frames] == ["val", "val"]


def test_level_is_stated_beside_the_data(folder: Path) -> None:
    with open_source(folder) as source:
        assert source.level == Level(UNKNOWN, UNKNOWN, program="deeph")
    stated = {"xc": "pbe", "basis": "dzp", "potentials": "gth-pbe", "program": "CP2K"}
    (folder / "level.json").write_text(json.dumps(stated))
    with open_source(folder) as source:
        assert source.level == Level("pbe", "dzp", "restricted", "gth-pbe", "CP2K")
    (folder / "level.json").write_text(json.dumps({"xc": "pbe", "functional": "pbe"}))
    with open_source(folder) as source, pytest.raises(DatasetError, match="functional"):
        _ = source.level


def test_sets_that_do_not_fit_together(folder: Path, tmp_path: Path) -> None:
    write_deeph(chain(0, shells={5: (0, 1), 7: (0, 1)}), folder / "other_basis")
    with pytest.raises(DatasetError, match=r"element 7 the shells \(0, 1\)"):
        open_source(folder)
    (folder / "other_basis").rename(tmp_path / "moved")
    write_deeph_legacy(chain(0), folder / "legacy")
    with pytest.raises(DatasetError, match="is of the format 'deeph-legacy', not the format 'deeph'"):
        open_source(folder)
    (folder / "legacy").rename(tmp_path / "legacy")
    for path in (folder / "03").glob("hamiltonian.h5"):
        path.unlink()
    with pytest.raises(DatasetError, match="03 has overlaps only"):
        open_source(folder)


def test_another_format_than_said(folder: Path) -> None:
    with pytest.raises(DatasetError, match="not the format 'abacus'"):
        open_source(folder, "abacus")
    with pytest.raises(DatasetError, match="is not there"):
        open_source(folder / "absent", "deeph")


@pytest.mark.parametrize(
    ("name", "n_frames", "spin"), [("graphene_dzp.h5", 60, "restricted"), ("bismuthene_soc.h5", 30, "spinor")]
)
def test_own_crystals(name: str, n_frames: int, spin: str) -> None:
    if not (CRYSTALS / name).is_file():
        pytest.skip(f"{name} is not there (set TRACEGRAD_CRYSTALS; docs/datasets.md)")
    with open_source(CRYSTALS / name) as source:
        assert len(source) == n_frames
        assert source.schemes == ("file", "random")
        splits = source.splits("file")
        assert set(splits) == {"train", "val", "test"}
        frame = source.frame(int(splits["test"][0]), "test")
        assert source.level.spin == spin
    assert frame.hamiltonian.spin == spin
    assert frame.hamiltonian.hermitian_error() < 1e-6
    assert frame.fermi_energy_hartree is not None


def test_overlaps_alone_are_not_taken_for_labels() -> None:
    path = CRYSTALS / "public" / "deeph_dock" / "Bi2Se3_SOC_overlap_and_bands_only"
    if not path.is_dir():
        pytest.skip(f"{path.name} is not there (set TRACEGRAD_CRYSTALS; docs/datasets.md)")
    with pytest.raises(DatasetError, match="Bi2Se3_SOC_overlap_and_bands_only has overlaps only, no Hamiltonian"):
        open_source(path)


def test_public_molecules_with_null_fermi_levels() -> None:
    path = CRYSTALS / "public" / "deeph_dock" / "molecules_mixed_elements"
    if not path.is_dir():
        pytest.skip("molecules_mixed_elements is not there (set TRACEGRAD_CRYSTALS; docs/datasets.md)")
    with open_source(path) as source:
        frames = [source.frame(index, "") for index in range(len(source))]
    assert len(frames) == 13
    assert all(frame.is_molecular for frame in frames)
    assert {frame.fermi_energy_hartree is None for frame in frames} == {True, False}
    assert frames[0].fock.shape == (frames[0].hamiltonian.n_orbitals,) * 2
