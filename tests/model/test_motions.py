"""How blocks turn: PySCF's matrices of moved molecules and cells (spin-orbit coupling included) as oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from pyscf import dft, gto, scf
from scipy.spatial.transform import Rotation

from model.blocks.block_set import BlockSet, stack_blocks
from model.blocks.matrices import cut_matrix, dense_matrix
from model.blocks.motions import (
    orbital_representation,
    permute,
    reverse_time,
    shift_atoms,
    spin_representation,
    time_reversal_error,
    turn,
    unfold,
)
from model.blocks.spaces import BlockSpace
from model.errors import StructureError
from model.orbitals.orders import ORDERS
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import Structure

ROUNDING = 1e-13
"""A few products of matrices, per unit of their largest entry."""
INTEGRAL_TOLERANCE = 1e-9
"""PySCF's integrals and lattice sums are cut at about 1e-10."""
GRID_TOLERANCE = 1e-4
"""PySCF's molecular integration grid does not turn with the molecule."""
STORED_TOLERANCE_EV = 1e-5
"""complex64 with entries up to 60 eV."""

SPACE = OrbitalSpace("def2-svp", {1: (0, 0, 1), 6: (0, 0, 0, 1, 1, 2), 8: (0, 0, 0, 1, 1, 2)})
ROTATION = Rotation.from_rotvec([0.4, -1.1, 2.0]).as_matrix()
MOTIONS = {
    "rotation": ROTATION,
    "half turn": np.diag([1.0, -1.0, -1.0]),
    "reflection": -ROTATION,
    "inversion": -np.eye(3),
}
motions = pytest.mark.parametrize("matrix", MOTIONS.values(), ids=MOTIONS.keys())


def mole(structure: Structure, **options: object) -> gto.Mole:
    atoms = list(zip(structure.symbols, structure.positions_angstrom.tolist(), strict=True))
    return gto.M(atom=atoms, unit="Angstrom", verbose=0, **{"basis": "def2-svp", **options})


def fock(structure: Structure, density: np.ndarray | None = None) -> np.ndarray:
    """Hartree-Fock's matrix of a density, of minao's if None."""
    mf = scf.RHF(mole(structure))
    return mf.get_fock(dm=mf.get_init_guess(key="minao") if density is None else density)


@motions
def test_overlap_and_fock_matrix_of_a_moved_molecule(matrix: np.ndarray, molecule: Callable[[str], Structure]) -> None:
    still = molecule("H2CO")
    moved = Structure(still.numbers, still.positions_angstrom @ matrix.T)
    pairs = PairList.complete(still)
    for of in (lambda s: mole(s).intor("int1e_ovlp"), fock):
        blocks = turn(cut_matrix(SPACE, still.numbers, pairs, of(still)), matrix)
        assert np.abs(dense_matrix(blocks) - of(moved)).max() < INTEGRAL_TOLERANCE
        assert np.abs(blocks.pairs.vectors_angstrom - PairList.complete(moved).vectors_angstrom).max() < ROUNDING
    transform = orbital_representation(SPACE, still.numbers, matrix)
    assert np.abs(transform @ fock(still) @ transform.T - fock(moved)).max() < INTEGRAL_TOLERANCE


def test_kohn_sham_matrix_of_a_rotated_triplet(molecule: Callable[[str], Structure]) -> None:
    """Both spin parts of an open shell, from PySCF's UKS."""
    still = replace(molecule("H2O"), multiplicity=3)
    moved = replace(still, positions_angstrom=still.positions_angstrom @ ROTATION.T)
    mf = dft.UKS(mole(still, spin=2), xc="pbe")
    transform = orbital_representation(SPACE, still.numbers, ROTATION)
    density = np.array([1.1, 0.9])[:, None, None] * mf.get_init_guess()
    turned = dft.UKS(mole(moved, spin=2), xc="pbe").get_fock(dm=transform @ density @ transform.T)
    blocks = turn(cut_matrix(SPACE, still.numbers, PairList.complete(still), mf.get_fock(dm=density)), ROTATION)
    assert np.abs(dense_matrix(blocks) - turned).max() < GRID_TOLERANCE


@motions
def test_spin_orbit_coupling_of_a_moved_molecule(matrix: np.ndarray) -> None:
    """PySCF's generalised core Hamiltonian with the spin-orbit part of an effective core potential, shells s to d."""
    still = Structure.from_symbols(["I", "H", "H"], [[0.0, 0.1, 0.0], [1.5, 0.4, 0.2], [-0.3, 1.2, 1.1]], charge=1)
    shells = {1: (0, 0, 1), 53: (0, 0, 0, 1, 1, 1, 2, 2, 2, 2)}
    basis = {"H": "def2-svp", "I": "crenbl"}
    pairs = PairList.complete(still)

    def core(structure: Structure) -> BlockSet:
        molecule = mole(structure, charge=1, basis=basis, ecp={"I": "crenbl"})
        mf = scf.GHF(molecule)
        mf.with_soc = True
        shells[53] = tuple(
            int(molecule.bas_angular(b))
            for b in range(molecule.nbas)
            if molecule.bas_atom(b) == 0
            for _ in range(molecule.bas_nctr(b))
        )
        space = OrbitalSpace("crenbl", shells)
        n = molecule.nao
        spin_parts = mf.get_hcore().reshape(2, n, 2, n).transpose(0, 2, 1, 3).reshape(4, n, n)
        edges = space.atom_offsets(structure.numbers)
        blocks = [
            spin_parts[:, edges[i] : edges[i + 1], edges[j] : edges[j + 1]]
            for i, j in zip(pairs.first, pairs.second, strict=True)
        ]
        return stack_blocks(space, structure.numbers, pairs, blocks, "spinor")

    before = core(still)
    assert np.abs(before.values[1]).max() > 1e-3, "there is a coupling to speak of"
    moved = Structure(still.numbers, still.positions_angstrom @ matrix.T, charge=1)
    assert np.abs(turn(before, matrix).values - core(moved).values).max() < INTEGRAL_TOLERANCE
    assert before.hermitian_error() < INTEGRAL_TOLERANCE
    assert time_reversal_error(before) < ROUNDING


@pytest.mark.parametrize("order", ORDERS)
def test_rotation_commutes_with_any_program_s_order(order: str, rng: np.random.Generator) -> None:
    structure = Structure.from_symbols(["O", "H"], [[0.0, 0.0, 0.0], [0.0, 0.3, 0.9]], charge=-1)
    size = SPACE.count_orbitals(structure.numbers)
    blocks = cut_matrix(SPACE, structure.numbers, PairList.complete(structure), rng.normal(size=(size, size)))
    there = turn(blocks.in_order(order), -ROTATION)
    assert there.space.order == order
    assert np.abs(there.in_order("pyscf").values - turn(blocks, -ROTATION).values).max() < ROUNDING


@pytest.fixture(scope="module")
def crystal() -> tuple[Structure, BlockSet]:
    """Shaken diamond and its overlap, in gth-szv."""
    atoms = bulk("C", "diamond", 3.57)
    atoms.rattle(0.05, seed=2)
    structure = structure_of(atoms)
    return structure, overlap_of(structure)


def structure_of(atoms: Atoms) -> Structure:
    return Structure(
        atoms.numbers, atoms.positions, cell_angstrom=np.asarray(atoms.cell), pbc=tuple(atoms.pbc.tolist())
    )


def overlap_of(structure: Structure) -> BlockSet:
    """S(R) within 8 Å from PySCF's integrals between a home cell and its images, s and p functions."""
    pairs = PairList.within(structure, 8.0)
    home = mole(structure, basis="gth-szv", pseudo="gth-pade", spin=None)
    blocks = []
    images: dict[tuple[int, ...], np.ndarray] = {}
    for i, j, shift in zip(pairs.first, pairs.second, pairs.shift, strict=True):
        key = tuple(shift.tolist())
        if key not in images:
            moved = home.copy()
            moved.set_geom_(structure.positions_angstrom + shift @ structure.cell_angstrom, unit="Angstrom")
            images[key] = gto.intor_cross("int1e_ovlp", home, moved)
        blocks.append(images[key][4 * i : 4 * i + 4, 4 * j : 4 * j + 4])
    return stack_blocks(OrbitalSpace("gth-szv", {6: (0, 1)}, valence={6: 4}), structure.numbers, pairs, blocks)


@motions
def test_overlap_of_a_turned_crystal(matrix: np.ndarray, crystal: tuple[Structure, BlockSet]) -> None:
    """k in units of the reciprocal lattice vectors, which turn as well, so S(k) is that of the turned cell at the same k."""
    structure, overlap = crystal
    turned = replace(
        structure,
        positions_angstrom=structure.positions_angstrom @ matrix.T,
        cell_angstrom=structure.cell_angstrom @ matrix.T,
    )
    expected = overlap_of(turned)
    found = turn(overlap, matrix)
    assert np.array_equal(found.pairs.keys, expected.pairs.keys)
    assert np.abs(found.values - expected.values).max() < INTEGRAL_TOLERANCE
    k = (0.25, 0.5, -0.125)
    assert np.abs(dense_matrix(found, k) - dense_matrix(expected, k)).max() < INTEGRAL_TOLERANCE


def test_permuted_shifted_and_repeated_crystals(crystal: tuple[Structure, BlockSet]) -> None:
    """The overlap that PySCF computes of the moved crystal, with the pairs that the neighbour search finds there."""
    structure, overlap = crystal
    cell, positions = structure.cell_angstrom, structure.positions_angstrom
    shifts = np.array([[1, 0, -2], [0, 3, 0]])
    atoms = Atoms(structure.numbers, positions, cell=cell, pbc=True)
    cases = {
        "permutation": (replace(structure, positions_angstrom=positions[::-1]), permute(overlap, [1, 0])),
        "shift": (replace(structure, positions_angstrom=positions + shifts @ cell), shift_atoms(overlap, shifts)),
        "supercell": (structure_of(atoms.repeat((2, 1, 3))), unfold(overlap, (2, 1, 3))),
    }
    for name, (moved, found) in cases.items():
        expected = overlap_of(moved)
        assert np.array_equal(found.pairs.keys, expected.pairs.keys), name
        assert np.abs(found.pairs.vectors_angstrom - expected.pairs.vectors_angstrom).max() < ROUNDING, name
        assert np.abs(found.values - expected.values).max() < INTEGRAL_TOLERANCE, name
        assert found.hermitian_error() < INTEGRAL_TOLERANCE, name
    assert np.array_equal(unfold(overlap, (1, 1, 1)).values, overlap.values)


def test_permutation_of_unlike_atoms(molecule: Callable[[str], Structure]) -> None:
    still = molecule("CH3OH")
    order = [3, 0, 5, 1, 4, 2]
    moved = Structure(still.numbers[order], still.positions_angstrom[order])
    found = permute(cut_matrix(SPACE, still.numbers, PairList.complete(still), fock(still)), order)
    expected = fock(moved)
    assert np.abs(dense_matrix(found) - expected).max() < INTEGRAL_TOLERANCE
    assert np.array_equal(found.numbers, moved.numbers)


def test_spin_representation_turns_the_pauli_matrices() -> None:
    """U (n . sigma) U^dagger = (R n) . sigma, and an inversion does nothing."""
    pauli = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
    for matrix in (ROTATION, -ROTATION):
        spin = spin_representation(matrix)
        turned = spin @ pauli @ spin.conj().T
        assert np.abs(turned - np.tensordot(ROTATION.T, pauli, axes=1)).max() < ROUNDING
    assert np.abs(np.abs(spin_representation(-np.eye(3))) - np.eye(2)).max() < ROUNDING


def test_time_reversal(rng: np.random.Generator) -> None:
    """Twice is nothing; it commutes with rotations; a magnetic field along z is all odd."""
    structure = Structure.from_symbols(["O", "H"], [[0.0, 0.0, 0.0], [0.0, 0.3, 0.9]], charge=-1)
    pairs = PairList.complete(structure)
    empty = BlockSet.zeros(SPACE, structure.numbers, pairs, "spinor")
    blocks = empty.with_values(rng.normal(size=empty.values.shape) + 1j * rng.normal(size=empty.values.shape))
    assert np.array_equal(reverse_time(reverse_time(blocks)).values, blocks.values)
    assert (
        np.abs(turn(reverse_time(blocks), ROTATION).values - reverse_time(turn(blocks, ROTATION)).values).max()
        < ROUNDING
    )
    even = blocks.with_values(0.5 * (blocks.values + reverse_time(blocks).values))
    assert time_reversal_error(even) == 0.0
    field = even.values + np.array([0.25, 0.0, 0.0, -0.25])[:, None]
    assert time_reversal_error(even.with_values(field)) == pytest.approx(0.25, abs=ROUNDING)
    spins = BlockSet.zeros(SPACE, structure.numbers, pairs, "unrestricted")
    spins = spins.with_values(spins.values + np.array([[0.5], [-0.5]]))
    assert time_reversal_error(spins) == 0.5


def test_refuses(crystal: tuple[Structure, BlockSet]) -> None:
    _, overlap = crystal
    with pytest.raises(StructureError, match="orthogonal"):
        turn(overlap, np.diag([1.0, 1.0, 1.1]))
    with pytest.raises(StructureError, match="names each"):
        permute(overlap, [0, 0])
    with pytest.raises(StructureError, match="shape"):
        shift_atoms(overlap, np.zeros((1, 3), dtype=np.int64))
    with pytest.raises(StructureError, match="repeats"):
        unfold(overlap, (1, 0, 1))


def test_stored_spin_orbit_coupling_obeys_time_reversal(bismuthene: list[tuple[BlockSet, BlockSet]]) -> None:
    for blocks, _ in bismuthene:
        coupling = max(np.abs(blocks.values[1]).max(), np.abs(blocks.values[0] - blocks.values[3]).max())
        assert coupling > 0.5, "eV; bismuth's coupling is large"
        assert blocks.hermitian_error() < STORED_TOLERANCE_EV
        assert time_reversal_error(blocks) < STORED_TOLERANCE_EV
        space = BlockSpace.of(blocks.space.template, "spinor", time_reversal=True)
        back = space.to_values(space.to_components(blocks.values))
        assert np.abs(back - blocks.values).max() < STORED_TOLERANCE_EV, "Im h0 and Re h are zero"
