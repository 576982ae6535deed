"""Charge and multiplicity: what a file states of a molecule reaches everything that counts electrons."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms
from pyscf import dft, gto

from model.structure import Structure
from training.data.sources import DatasetError, Frame, read_frames
from training.evaluate.scf import Baselines
from training.generate.plan import make_plan
from training.generate.run import Summary, generate, read_recipe

from .conftest import displaced, write_recipe
from .test_generate import LEVEL, files_of

CARBONATE = np.array([[0.0, 0.0, 0.0], [1.3, 0.0, 0.0], [-0.65, 1.126, 0.0], [-0.65, -1.126, 0.0]])
"""Å; CO3(2-), 32 electrons."""


def carbonate_file(folder: Path, *, file: dict[str, int], group: dict[str, int]) -> Path:
    """A data file with one geometry of CO3 that states charge and spin for the file, for the group, or nowhere."""
    path = folder / "focks.h5"
    n_ao = 4 * 14
    with h5py.File(path, "w") as data:
        data.attrs.update({"xc": "b3lyp", "basis": "def2-svp", "pyscf": "2.14.0", **file})
        molecule = data.create_group("m0")
        molecule.attrs.update({"smiles": "", "formula": "CO3", "split": "train", "pool": "", **group})
        molecule["atomic_numbers"] = np.array([6, 8, 8, 8], dtype=np.int16)
        molecule["positions"] = CARBONATE[None]
        molecule["fock_tril"] = np.ones((1, n_ao * (n_ao + 1) // 2), dtype=np.float32)
        molecule["energy"], molecule["cycles_minao"] = np.zeros(1), np.zeros(1, dtype=np.int64)
    return path


@pytest.mark.parametrize(
    ("file", "group"),
    [
        ({"charge": -2, "multiplicity": 1}, {}),
        ({}, {"charge": -2, "multiplicity": 1}),
        ({"charge": 0, "multiplicity": 1}, {"charge": -2}),
    ],
)
def test_a_doubly_charged_anion_has_its_electrons(file: dict[str, int], group: dict[str, int], tmp_path: Path) -> None:
    """6 + 3 * 8 protons and two more electrons."""
    (frame,) = read_frames(carbonate_file(tmp_path, file=file, group=group), ["train"])
    assert (frame.structure.charge, frame.structure.multiplicity) == (-2, 1)
    assert frame.structure.n_electrons == 32


def test_a_file_that_says_nothing_of_the_charge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="states no charge"):
        list(read_frames(carbonate_file(tmp_path, file={}, group={}), ["train"]))


def test_a_charge_that_does_not_fit_the_spin_names_the_molecule(tmp_path: Path) -> None:
    path = carbonate_file(tmp_path, file={"charge": -1, "multiplicity": 1}, group={})
    with pytest.raises(DatasetError, match="group m0, geometry 0: 31 electrons"):
        list(read_frames(path, ["train"]))


@pytest.fixture(scope="module")
def ions(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """Hydroxide, ammonium and water, from files that state their charge."""
    hydroxide = Atoms("OH", [[0.0, 0.0, 0.0], [0.1, 0.2, 0.95]])
    hydroxide.info["charge"] = -1
    ammonium = Atoms("NH4", [[0, 0, 0], [0.6, 0.6, 0.6], [-0.6, -0.6, 0.6], [0.6, -0.6, -0.6], [-0.6, 0.6, -0.6]])
    ammonium.info |= {"charge": 1, "spin": 0}
    folder = tmp_path_factory.mktemp("ions")
    table = files_of(folder, a=hydroxide, b=ammonium, c=displaced("H2O", 1))
    return generate(read_recipe(write_recipe(folder, table + LEVEL)))


def test_ions_are_labelled_with_their_charge(ions: Summary) -> None:
    """Oracle: PySCF's own run of the ion; the neutral radicals would not even be closed shells."""
    assert not ions.failures
    frames = {len(frame.structure): frame for frame in read_frames(ions.file, ["train"])}
    assert {size: frame.structure.charge for size, frame in frames.items()} == {2: -1, 3: 0, 5: 1}
    for frame in frames.values():
        atoms = list(zip(frame.structure.symbols, frame.structure.positions_angstrom.tolist(), strict=True))
        mole = gto.M(atom=atoms, unit="Angstrom", basis="def2-svp", charge=frame.structure.charge, verbose=0)
        mf = dft.RKS(mole, xc="b3lyp")
        mf.grids.level = 0
        mf.conv_tol, mf.conv_tol_grad = 1e-11, 1e-8
        mf.kernel()
        assert mole.nelectron == frame.structure.n_electrons == 10
        assert np.abs(mf.get_fock() - frame.fock).max() < 2e-6


def test_a_file_of_several_charges_states_them_by_molecule(ions: Summary, tiny: Summary) -> None:
    with h5py.File(ions.file) as file:
        assert "charge" not in file.attrs
        assert file.attrs["multiplicity"] == 1
        assert sorted(int(group.attrs["charge"]) for group in file.values()) == [-1, 0, 1]
    with h5py.File(tiny.file) as file:
        assert (file.attrs["charge"], file.attrs["multiplicity"]) == (0, 1)


def test_an_open_shell_is_left_out_with_its_reason(tmp_path: Path) -> None:
    oxygen = Atoms("O2", [[0.0, 0.0, 0.0], [0.0, 0.0, 1.21]])
    oxygen.info["multiplicity"] = 3
    made = generate(read_recipe(write_recipe(tmp_path, files_of(tmp_path, o=oxygen, h=displaced("H2", 1)) + LEVEL)))
    assert [failure.reason[:14] for failure in made.failures] == ["multiplicity 3"]
    assert made.molecules == 1


@pytest.mark.parametrize(
    ("info", "expected"),
    [({}, (0, 1)), ({"charge": -1}, (-1, 2)), ({"spin": 1, "charge": 1}, (1, 2)), ({"multiplicity": "3"}, (0, 3))],
)
def test_what_a_comment_line_states(info: dict[str, object], expected: tuple[int, int], tmp_path: Path) -> None:
    hydrogen = displaced("H2", 1)
    hydrogen.info = info
    (molecule,), _ = make_plan(read_recipe(write_recipe(tmp_path, files_of(tmp_path, h=hydrogen))))
    assert (molecule.charge, molecule.multiplicity) == expected


def test_a_charge_that_is_no_number_costs_its_frame(tmp_path: Path) -> None:
    hydrogen = displaced("H2", 1)
    hydrogen.info["charge"] = "minus two"
    _, failures = make_plan(read_recipe(write_recipe(tmp_path, files_of(tmp_path, h=hydrogen, o=displaced("H2O", 1)))))
    assert [(failure.source, failure.frame) for failure in failures] == [("h.xyz", 0)]
    assert "charge is no number" in failures[0].reason


def test_runs_of_an_ion_are_not_taken_for_those_of_the_neutral_molecule(tiny_frames: list[Frame]) -> None:
    frame = tiny_frames[0]
    structure = frame.structure
    ion = Structure(structure.numbers, structure.positions_angstrom, charge=2)
    known = Baselines(None, "b3lyp def2-svp")
    assert known.key(frame) != known.key(replace(frame, structure=ion))


def test_blocks_of_other_atoms_are_refused(tiny_frames: list[Frame]) -> None:
    first, last = tiny_frames[0], tiny_frames[-1]
    with pytest.raises(DatasetError, match="other atoms"):
        replace(first, structure=last.structure)


def test_a_data_file_of_old_groups_is_read_as_before(tiny: Summary, tmp_path: Path) -> None:
    """Groups of older files have no charge of their own."""
    path = tmp_path / "old.h5"
    shutil.copy(tiny.file, path)
    with h5py.File(path, "a") as file:
        for group in file.values():
            del group.attrs["charge"], group.attrs["multiplicity"]
    for old, new in zip(read_frames(path, ["train"]), read_frames(tiny.file, ["train"]), strict=True):
        assert np.array_equal(old.fock, new.fock)
        assert old.structure.n_electrons == new.structure.n_electrons
