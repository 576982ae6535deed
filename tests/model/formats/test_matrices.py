"""What all formats share: checks of Matrices, other sequences of atoms and shells, units, and the project's own HDF5 file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from model.blocks.block_set import BlockSet
from model.blocks.motions import permute, shift_atoms
from model.errors import DamagedFileError, MissingFileError, OrbitalsDoNotFitError
from model.formats.crystal_h5 import read_crystal_h5
from model.formats.matrices import Matrices
from model.formats.rearrange import ascending_shells, grouped_by_element, moved, with_shells, wrapped
from model.formats.registry import entries, identify
from model.formats.units import CODATA_EV, DEEPH_EV, HARTREE, RYDBERG
from model.orbitals.space import OrbitalSpace

from .conftest import made_up

Public = Callable[[str], Path]


def test_grouping_is_a_permutation() -> None:
    first = made_up()
    assert first.hamiltonian is not None
    grouped = grouped_by_element(first)
    expected = permute(first.hamiltonian, [0, 2, 1])
    found = grouped.require_hamiltonian()
    assert np.array_equal(found.pairs.keys, expected.pairs.keys)
    assert np.array_equal(found.values, expected.values)
    assert np.abs(found.pairs.vectors_angstrom - expected.pairs.vectors_angstrom).max() < 1e-12
    assert grouped_by_element(grouped) is grouped


def test_wrapping_moves_atoms_and_shifts_together() -> None:
    """The vectors between atoms stay; the oracle is the motion of a BlockSet."""
    first = made_up("spinor")
    assert first.hamiltonian is not None
    inside = wrapped(first)
    fractional = inside.structure.positions_angstrom @ np.linalg.inv(inside.structure.cell_angstrom)
    assert fractional.min() > -1e-9
    assert fractional.max() < 1
    cells = np.array([[0, 0, 0], [0, 0, 0], [0, -1, 0]])
    expected = shift_atoms(first.hamiltonian, -cells)
    found = inside.require_hamiltonian()
    assert np.array_equal(found.pairs.keys, expected.pairs.keys)
    assert np.array_equal(found.values, expected.values)
    assert np.abs(found.pairs.vectors_angstrom - expected.pairs.vectors_angstrom).max() < 1e-12
    back = moved(inside, -cells)
    assert np.array_equal(back.require_hamiltonian().values, first.hamiltonian.values)


def test_shells_in_another_sequence() -> None:
    first = made_up()
    other = {5: (2, 0, 1, 0), 7: (3, 1, 0, 1)}
    there = with_shells(first, other)
    assert there.space.shells == other
    block, moved_block = first.require_hamiltonian().block(1)[0], there.require_hamiltonian().block(1)[0]
    # boron: s s p d -> d s p s
    order = [5, 6, 7, 8, 9, 0, 2, 3, 4, 1]
    assert np.array_equal(moved_block, block[np.ix_(order, order)])
    assert np.array_equal(
        with_shells(there, first.space.shells).require_hamiltonian().values, first.stored["hamiltonian"].values
    )
    assert ascending_shells(there).space.shells == {5: (0, 0, 1, 2), 7: (0, 1, 1, 3)}
    with pytest.raises(OrbitalsDoNotFitError, match="other ones"):
        with_shells(first, {5: (0, 1), 7: (0, 1, 1, 3)})


def test_units() -> None:
    first = made_up()
    assert first.in_unit(HARTREE) is first
    rydberg = first.in_unit(RYDBERG)
    assert np.array_equal(rydberg.require_hamiltonian().values, 2 * first.require_hamiltonian().values)
    assert rydberg.fermi_energy_hartree == first.fermi_energy
    assert first.in_unit(DEEPH_EV).fermi_energy == pytest.approx(0.125 * 27.2113845, abs=1e-14)


def test_matrices_that_do_not_belong_together() -> None:
    good = made_up()
    other = replace(good.structure, numbers=np.array([5, 7, 7]))
    with pytest.raises(DamagedFileError, match="not those of the structure"):
        replace(good, structure=other)
    with pytest.raises(OrbitalsDoNotFitError, match="overlap"):
        replace(good, overlap=good.in_order("siesta").overlap)
    with pytest.raises(DamagedFileError, match="neither"):
        Matrices(good.structure, None, None)
    values = good.require_hamiltonian().values.copy()
    values[0, 5] = np.inf
    with pytest.raises(DamagedFileError, match="not finite"):
        replace(good, hamiltonian=good.require_hamiltonian().with_values(values))
    with pytest.raises(DamagedFileError, match="Fermi"):
        replace(good, fermi_energy=float("nan"))
    with pytest.raises(DamagedFileError, match="depends on spin"):
        replace(good, overlap=made_up("unrestricted").hamiltonian)


def test_formats_need_no_torch() -> None:
    code = "import sys, model.formats.registry; assert not {'torch', 'sisl'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[3])


@pytest.mark.parametrize("name", ["graphene_dzp.h5", "hbn_dzp.h5", "bismuthene_soc.h5", "cp2k_dzvp.h5"])
def test_own_crystals(name: str, crystals: Public) -> None:
    """One direction of each pair is stored; read, all are there, and float32 is all that is lost."""
    path = crystals(name)
    assert identify(path) == "crystal-h5"
    entry = entries(path)[-1]
    found = entry.read(CODATA_EV)
    assert entry.split in ("train", "val", "test")
    assert entry.outline().space.shells == found.space.shells
    hamiltonian = found.require_hamiltonian()
    assert hamiltonian.hermitian_error() < 1e-5
    assert found.overlap is not None
    assert found.overlap.hermitian_error() < 1e-6
    assert found.fermi_energy is not None
    assert found.structure.pbc == (True, True, False)
    assert found.spin == ("spinor" if name == "bismuthene_soc.h5" else "restricted")
    with h5py.File(path) as file:
        assert len(hamiltonian.pairs) == 2 * len(file[entry.group]["pairs"]) - len(found.structure)


def write_own(path: Path, blocks: BlockSet, positions: np.ndarray, cell: np.ndarray) -> None:
    """A file in the project's layout, both directions of all pairs."""
    pairs = blocks.pairs
    with h5py.File(path, "w") as file:
        group = file.create_group("0000")
        group["atomic_numbers"], group["positions"], group["cell"] = blocks.numbers, positions, cell
        group["pairs"] = np.column_stack([pairs.shift, pairs.first, pairs.second])
        group["shapes"] = np.array([block.shape[1:] for block in blocks])
        group["hamiltonian_eV"] = blocks.values[0]
        group.attrs["orbital_types"] = str([list(blocks.space.shells_of(z)) for z in blocks.numbers.tolist()])
        group.attrs["spinful"] = False


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    first = made_up(order="openmx")
    assert first.structure.cell_angstrom is not None
    write_own(
        tmp_path / "own.h5",
        first.require_hamiltonian(),
        first.structure.positions_angstrom,
        first.structure.cell_angstrom,
    )
    return tmp_path / "own.h5"


def test_own_file_read_back(own_file: Path) -> None:
    found = read_crystal_h5(own_file, unit=CODATA_EV)
    expected = made_up(order="openmx").require_hamiltonian()
    assert np.array_equal(found.require_hamiltonian().values, expected.values)
    assert found.overlap is None
    assert found.fermi_energy is None


def test_a_bad_own_file_is_refused_by_name(own_file: Path) -> None:
    with pytest.raises(MissingFileError, match="9999"):
        read_crystal_h5(own_file, "9999")
    with h5py.File(own_file, "r+") as file:
        values = file["0000/hamiltonian_eV"][()]
        del file["0000/hamiltonian_eV"]
        file["0000/hamiltonian_eV"] = values[:-1]
    with pytest.raises(DamagedFileError, match="entries came for blocks"):
        read_crystal_h5(own_file)
    with h5py.File(own_file, "r+") as file:
        file["0000"].attrs["orbital_types"] = "__import__('os')"
    with pytest.raises(DamagedFileError, match="orbital_types"):
        read_crystal_h5(own_file)


def test_an_order_of_a_space_is_not_guessed() -> None:
    """Two spaces with the same shells and other orders do not pass for each other."""
    first = made_up()
    space = OrbitalSpace("other", first.space.shells, order="openmx")
    overlap = first.overlap
    assert overlap is not None
    with pytest.raises(OrbitalsDoNotFitError):
        replace(first, overlap=BlockSet(space, overlap.numbers, overlap.pairs, overlap.values))
