"""The laws' own yardstick: how blocks turn, held against PySCF's orbitals, integrals and converged Fock matrices."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pyscf import dft, scf
from scipy.linalg import expm

from model.blocks.motions import orbital_representation, spin_representation
from model.integrals.pyscf_molecule import build_mole
from tests.laws.oracle import pyscf_transform
from tests.laws.subjects import SPACE
from tests.laws.systems import MOTIONS, moved, shaken
from tests.tolerances import INTEGRALS, SAME_FLOAT64, SCF_FOCK

motions = pytest.mark.parametrize("matrix", MOTIONS.values(), ids=MOTIONS.keys())
PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])


@motions
def test_orbitals_turn_as_those_of_pyscf(matrix: NDArray[np.float64]) -> None:
    structure = shaken("CH3CH2OH")
    ours = orbital_representation(SPACE, structure.numbers, matrix)
    assert np.abs(ours - pyscf_transform(structure, matrix)).max() < INTEGRALS


@motions
def test_integrals_turn_with_it(matrix: NDArray[np.float64]) -> None:
    structure = shaken("CH3CH2OH")
    transform = pyscf_transform(structure, matrix)
    old, new = (build_mole(one, "def2-svp") for one in (structure, moved(structure, matrix)))
    assert np.abs(transform @ old.intor("int1e_ovlp") @ transform.T - new.intor("int1e_ovlp")).max() < INTEGRALS
    core_old, core_new = scf.hf.get_hcore(old), scf.hf.get_hcore(new)
    assert np.abs(transform @ core_old @ transform.T - core_new).max() < 100 * INTEGRALS, "entries up to 60 hartree"


def test_converged_fock_matrix_turns_with_it() -> None:
    structure, matrix = shaken("H2O"), MOTIONS["rotoreflection"]
    transform = pyscf_transform(structure, matrix)
    focks = []
    for one in (structure, moved(structure, matrix)):
        mf = dft.RKS(build_mole(one, "def2-svp"), xc="hf")
        mf.conv_tol = 1e-13
        mf.kernel()
        focks.append(mf.get_fock())
    assert np.abs(transform @ focks[0] @ transform.T - focks[1]).max() < SCF_FOCK


def test_spin_turns_as_a_spinor() -> None:
    """exp(-i theta n.sigma / 2) about each axis, up to the sign that nothing depends on; an inversion leaves spin alone."""
    for axis in np.eye(3):
        generator = np.cross(np.eye(3), axis)  # so that expm(-angle * generator) @ v turns v about the axis
        for angle in (0.3, 1.9, -2.8):
            matrix = expm(-angle * generator.T)
            assert np.allclose(matrix @ axis, axis)
            expected = expm(-0.5j * angle * np.einsum("k,kab->ab", axis, PAULI))
            for sign in (1.0, -1.0):
                found = spin_representation(sign * matrix)
                assert min(np.abs(found - expected).max(), np.abs(found + expected).max()) < SAME_FLOAT64
                turned = np.einsum("ab,kbc,dc->kad", found, PAULI, found.conj())
                assert np.abs(turned - np.einsum("jk,jab->kab", matrix, PAULI)).max() < SAME_FLOAT64, (
                    "sigma is a vector"
                )
