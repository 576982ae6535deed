"""Kinetic damping: T(R) is PySCF's, and what an error does along nearly dependent functions is taken back."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.blocks.matrices import BlochSum
from model.electronic.bands import band_energies
from model.electronic.kinetic_damping import KineticDamping, left_out_shares
from model.electronic.overlap import Matrix, OverlapFactor
from model.integrals.pyscf_crystal import CrystalIntegrals
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList

from .test_crystals import sheet, structure_of

DOUBLE_ZETA = OrbitalSpace("gth-dzvp-molopt-sr", {5: (0, 0, 1, 1, 2), 7: (0, 0, 1, 1, 2)}, valence={5: 3, 7: 5})
K = (0.21, -0.34, 0.0)


@pytest.fixture(scope="module")
def known() -> CrystalIntegrals:
    """Of a shaken sheet of boron nitride."""
    structure = structure_of(sheet(1))
    return CrystalIntegrals(structure, PairList.within(structure, lambda a, b: 16.0), DOUBLE_ZETA)


def test_kinetic_energies_are_those_of_pyscf(known: CrystalIntegrals) -> None:
    """Oracle: the lattice sum of pyscf.pbc."""
    from pyscf.pbc import gto

    structure = known.kinetic
    atoms = known.structure
    cell = gto.Cell()
    cell.atom = list(zip(atoms.numbers.tolist(), atoms.positions_angstrom.tolist(), strict=True))
    cell.a, cell.basis, cell.pseudo, cell.dimension, cell.verbose = (
        atoms.cell_angstrom,
        DOUBLE_ZETA.name,
        "gth-pbe",
        2,
        0,
    )
    cell.precision = 1e-10
    cell.build()
    expected = cell.pbc_intor("int1e_kin", kpts=cell.make_kpts([1, 1, 1]) + cell.get_abs_kpts(np.array([K])))[0]
    found = BlochSum(structure)(K)
    assert np.abs(found - expected).max() < 1e-5, "PySCF's own sum ends by its precision"


def test_without_delta_nothing_changes(known: CrystalIntegrals) -> None:
    h = known.kinetic.with_values(known.kinetic.values - 0.5 * known.overlap.values)
    plain, damped = (
        band_energies(h, known.overlap, [K], damping=own) for own in (None, KineticDamping(known.kinetic, 0.0))
    )
    np.testing.assert_allclose(damped.energies, plain.energies, atol=1e-9)


def test_an_error_along_dependent_functions_is_taken_back(known: CrystalIntegrals) -> None:
    """H = T - a smooth well; an error along the most dependent combination, small beside H, makes a deep ghost of it."""
    s = BlochSum(known.overlap)(K)
    factor = OverlapFactor.of(s)
    assert factor.smallest < 5e-3
    kinetic = BlochSum(known.kinetic)(K)
    exact = kinetic - 0.4 * s
    error = -6.0 * factor.smallest * np.outer(factor.vectors[:, 0], factor.vectors[:, 0].conj())
    damping = KineticDamping(known.kinetic, 0.02)

    def levels(matrix: Matrix) -> NDArray[np.float64]:
        return np.asarray(scipy.linalg.eigvalsh(matrix, s)[:4])

    right = levels(exact)
    assert np.abs(levels(exact + error) - right).max() > 1.0, "a ghost"
    damped = levels(damping(exact + error, factor, K))
    assert np.abs(damped - right).max() < 0.02
    assert np.abs(damped - right).max() > np.abs(levels(damping(exact, factor, K)) - right).max() / 2


def test_both_spins_of_a_spinor_are_damped_alike(known: CrystalIntegrals) -> None:
    s, t = BlochSum(known.overlap)(K), BlochSum(known.kinetic)(K)
    factor, damping = OverlapFactor.of(s), KineticDamping(known.kinetic, 0.02)
    one = damping(t - 0.4 * s, factor, K)
    both = damping(np.kron(np.eye(2), t - 0.4 * s), factor, K)
    np.testing.assert_allclose(both, np.kron(np.eye(2), one), atol=1e-12)
    g = left_out_shares(factor, 0.02)
    np.testing.assert_allclose(g, g.conj().T, atol=1e-12)
    assert 0 < np.linalg.eigvalsh(g).min() < np.linalg.eigvalsh(g).max() < 1


def test_blocks_of_both_operators_are_hermitian(known: CrystalIntegrals) -> None:
    for blocks in (known.overlap, known.kinetic):
        assert isinstance(blocks, BlockSet)
        assert blocks.hermitian_error() < 1e-12
