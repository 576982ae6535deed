"""PySCF's KRKS started from H(R) and S(R): with the exact ones it has nothing left to do but to find that out."""

from __future__ import annotations

import numpy as np
import pytest
from pyscf.pbc import dft, gto

from model.blocks.block_set import BlockSet, stack_blocks
from model.electronic.density import density_at_k
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import Structure

SPACE = OrbitalSpace("gth-dzvp", {1: (0, 0, 1)}, order="pyscf")
ENERGY_TOLERANCE_HARTREE = 1e-7
SMEARING_HARTREE = 1e-3


@pytest.fixture(scope="module")
def krks() -> dft.krks.KRKS:
    """A chain of hydrogen molecules, off the axis, with p functions; 3 k-points."""
    cell = gto.M(
        a=np.diag([2.4, 4.0, 4.0]),
        atom=[("H", (0.0, 0.1, 0.0)), ("H", (0.8, 0.3, 0.2))],
        basis="gth-dzvp",
        pseudo="gth-lda",
        unit="Angstrom",
        ke_cutoff=30,
        verbose=0,
    )
    mf = dft.KRKS(cell, cell.make_kpts([3, 1, 1]), xc="lda,vwn")
    mf.conv_tol = 1e-9
    mf.kernel()
    assert mf.converged
    return mf


def from_mesh(mf: dft.krks.KRKS, matrices: np.ndarray) -> BlockSet:
    """H(R) = 1/N sum over k of exp(-2 pi i k.R) H(k), in the order of PySCF."""
    cell = mf.cell
    structure = Structure(
        np.array([1, 1]),
        cell.atom_coords(unit="Angstrom"),
        cell_angstrom=cell.lattice_vectors() * cell.atom_coords(unit="Angstrom")[1, 0] / cell.atom_coords()[1, 0],
        pbc=(True, True, True),
    )
    k = cell.get_scaled_kpts(mf.kpts)[:, 0]
    i, j, c = (x.ravel() for x in np.meshgrid([0, 1], [0, 1], [-1, 0, 1], indexing="ij"))
    pairs = PairList.of(structure, i, j, np.stack([c, 0 * c, 0 * c], axis=1))
    blocks = []
    for a, b, x, *_ in pairs.keys.tolist():
        mean = np.tensordot(np.exp(-2j * np.pi * k * x), matrices, axes=1) / len(k)
        blocks.append(mean.real[5 * a : 5 * a + 5, 5 * b : 5 * b + 5])
    return stack_blocks(SPACE, structure.numbers, pairs, blocks)


def test_the_exact_hamiltonian_is_a_start_of_few_cycles(krks: dft.krks.KRKS) -> None:
    scaled = krks.cell.get_scaled_kpts(krks.kpts)
    # through the standard order and back, as a model's answer goes
    hamiltonian, overlap = (
        from_mesh(krks, matrices).in_order("e3nn").in_order("pyscf") for matrices in (krks.get_fock(), krks.get_ovlp())
    )
    weights = np.full(3, 1 / 3)
    made = density_at_k(hamiltonian, overlap, scaled, weights, 2.0, smearing_hartree=SMEARING_HARTREE)
    start = made.matrices[0]
    assert np.abs(start - krks.make_rdm1()).max() < 1e-5  # the SCF's own convergence
    metric = krks.get_ovlp()
    assert np.abs(start - start.conj().swapaxes(1, 2)).max() < 1e-12
    assert np.abs(start @ metric @ start - 2 * start).max() < 1e-10  # an insulator's levels are full or empty
    assert np.einsum("k,kij,kji->", weights, start, metric).real == pytest.approx(2.0, abs=1e-10)
    again = dft.KRKS(krks.cell, krks.kpts, xc=krks.xc)
    again.conv_tol = krks.conv_tol
    assert again.kernel(dm0=start) == pytest.approx(krks.e_tot, abs=ENERGY_TOLERANCE_HARTREE)
    assert again.converged
    assert again.cycles <= 3 < krks.cycles
