"""Density matrices from H and S: PySCF's of molecules, the number of electrons on a mesh, spinors as two equal spins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase.build import graphene
from pyscf import gto, scf

from model.blocks.block_set import BlockSet
from model.blocks.matrices import cut_matrix, dense_matrix
from model.electronic.density import density_matrix
from model.electronic.fermi import k_mesh
from model.errors import ElectronCountError, NumericalError
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import Structure

COLD_HARTREE = 1e-5
SAME_AS_PYSCF = 1e-7
"""Its SCF has converged to 1e-10 in the energy."""
GAMMA = k_mesh((1, 1, 1))


def of_molecule(symbols: list[str], positions: Any, multiplicity: int) -> tuple[BlockSet, BlockSet, Any]:
    """H and S of a converged SCF, and its density matrix."""
    mole = gto.M(
        atom=list(zip(symbols, positions, strict=True)),
        basis="sto-3g",
        spin=multiplicity - 1,
        unit="Angstrom",
        verbose=0,
    )
    mf = (scf.RHF if multiplicity == 1 else scf.UHF)(mole).run(conv_tol=1e-10)
    structure = Structure.from_symbols(symbols, positions, multiplicity=multiplicity)
    space = OrbitalSpace("sto-3g", {1: (0,), 8: (0, 0, 1)})
    pairs = PairList.complete(structure)
    fock, overlap = (cut_matrix(space, structure.numbers, pairs, m) for m in (mf.get_fock(), mf.get_ovlp()))
    return fock, overlap, mf.make_rdm1()


def test_water_is_pyscf_s() -> None:
    fock, overlap, expected = of_molecule(["O", "H", "H"], [[0, 0, 0], [0.76, 0, 0.59], [-0.76, 0, 0.59]], 1)
    made = density_matrix(fock, overlap, *GAMMA, n_electrons=10, smearing_hartree=COLD_HARTREE)
    assert np.abs(dense_matrix(made.blocks) - expected).max() < SAME_AS_PYSCF
    assert made.n_electrons == pytest.approx(10, abs=1e-10)


def test_triplet_oxygen_is_pyscf_s() -> None:
    fock, overlap, expected = of_molecule(["O", "O"], [[0, 0, 0], [0, 0, 1.21]], 3)
    made = density_matrix(fock, overlap, *GAMMA, n_electrons=16, smearing_hartree=COLD_HARTREE)
    assert np.abs(dense_matrix(made.blocks) - expected).max() < SAME_AS_PYSCF


@pytest.fixture(scope="module")
def crystal() -> tuple[BlockSet, BlockSet]:
    """H and S of a graphene-like lattice with one s and one p shell, random but hermitian."""
    atoms = graphene(vacuum=6.0)
    structure = Structure(atoms.numbers, atoms.positions, cell_angstrom=np.asarray(atoms.cell), pbc=(True, True, False))
    space = OrbitalSpace("sp", {6: (0, 1)}, order="e3nn")
    pairs = PairList.within(structure, 4.0)
    rng = np.random.default_rng(1)
    empty = BlockSet.zeros(space, structure.numbers, pairs)
    hamiltonian = empty.with_values(rng.normal(size=empty.values.shape) * 0.1).hermitised()
    overlap = empty.with_values(rng.normal(size=empty.values.shape) * 0.01).hermitised()
    for atom in range(2):
        overlap.values[0, overlap.starts[atom] : overlap.starts[atom + 1]] = np.eye(4).ravel()
    return hamiltonian, overlap


def trace(density: BlockSet, other: BlockSet) -> float:
    return float((density.values * other.values.conj()).sum().real)


def test_electrons_and_band_energy_of_a_crystal(crystal: tuple[BlockSet, BlockSet]) -> None:
    hamiltonian, overlap = crystal
    mesh = k_mesh((6, 6, 1))
    made = density_matrix(hamiltonian, overlap, *mesh, n_electrons=8)
    assert trace(made.blocks, overlap) == pytest.approx(8, abs=1e-9)
    assert made.blocks.hermitian_error() < 1e-12
    again = density_matrix(hamiltonian, overlap, *mesh, fermi_energy_hartree=made.fermi_energy_hartree)
    assert again.n_electrons == pytest.approx(8, abs=1e-9)


def test_half_a_mesh_is_enough_without_spin(crystal: tuple[BlockSet, BlockSet]) -> None:
    whole, half = (
        density_matrix(*crystal, *k_mesh((4, 4, 1), halved=halved), n_electrons=8) for halved in (False, True)
    )
    assert np.abs(whole.blocks.values - half.blocks.values).max() < 1e-12


def test_spinors_without_coupling_are_two_equal_spins(crystal: tuple[BlockSet, BlockSet]) -> None:
    hamiltonian, overlap = crystal
    values = hamiltonian.values[0].astype(complex)
    zero = np.zeros_like(values)
    spinor = BlockSet(
        hamiltonian.space, hamiltonian.numbers, hamiltonian.pairs, np.stack([values, zero, zero, values]), "spinor"
    )
    mesh = k_mesh((3, 3, 1))
    plain = density_matrix(hamiltonian, overlap, *mesh, n_electrons=8).blocks.values[0]
    parts = density_matrix(spinor, overlap, *mesh, n_electrons=8).blocks.values
    assert np.abs(parts[[0, 3]] - 0.5 * plain).max() < 1e-10
    assert np.abs(parts[[1, 2]]).max() < 1e-10


def test_what_cannot_be_filled(crystal: tuple[BlockSet, BlockSet]) -> None:
    hamiltonian, overlap = crystal
    with pytest.raises(ElectronCountError, match="do not fit"):
        density_matrix(hamiltonian, overlap, *GAMMA, n_electrons=16)
    with pytest.raises(NumericalError, match="not positive definite"):
        density_matrix(hamiltonian, overlap.with_values(-overlap.values), *GAMMA, n_electrons=8)
    with pytest.raises(ValueError, match="number of electrons or"):
        density_matrix(hamiltonian, overlap, *GAMMA)
