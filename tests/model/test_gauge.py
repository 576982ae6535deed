"""The gauge of a crystal's Hamiltonian: what it must not depend on, and what it shifts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet, Spin
from model.blocks.gauge import gauge_shift, shifted
from model.blocks.matrices import dense_matrix
from model.blocks.motions import unfold
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import Structure

SPACE = OrbitalSpace("test", {5: (0, 1), 7: (0, 0, 1)}, order="openmx")


def crystal(spin: Spin) -> tuple[BlockSet, BlockSet]:
    """Random hermitian H(R), and an S(R) with fewer pairs that is near one."""
    rng = np.random.default_rng(0)
    cell = np.array([[2.5, 0.0, 0.0], [-1.25, 2.165, 0.0], [0.0, 0.0, 12.0]])
    positions = np.array([[0.0, 0.0, 6.0], [1.25, 0.72, 6.1]])
    structure = Structure(np.array([5, 7]), positions, cell_angstrom=cell, pbc=(True, True, False))
    far, near = (PairList.within(structure, cutoff) for cutoff in (3.0, 2.0))
    empty = BlockSet.zeros(SPACE, structure.numbers, far, spin)
    values = rng.normal(size=empty.values.shape)
    if spin == "spinor":
        values = values + 1j * rng.normal(size=empty.values.shape)
    s = BlockSet.zeros(SPACE, structure.numbers, near)
    overlap = s.with_values(0.03 * rng.normal(size=s.values.shape)).hermitised()
    for pair in np.flatnonzero(near.distances_angstrom == 0.0):
        overlap.block(int(pair))[0] += np.eye(overlap.block(int(pair)).shape[1])
    return empty.with_values(values).hermitised(), overlap


@pytest.mark.parametrize("spin", ["restricted", "unrestricted", "spinor"])
def test_a_shift_moves_every_eigenvalue_and_is_found_again(spin: Spin) -> None:
    hamiltonian, overlap = crystal(spin)
    start = gauge_shift(hamiltonian, overlap)
    moved = shifted(hamiltonian, overlap, 0.7)
    assert gauge_shift(moved, overlap) == pytest.approx(start + 0.7, abs=1e-12)
    assert gauge_shift(shifted(hamiltonian, overlap, -start), overlap) == pytest.approx(0.0, abs=1e-12)
    k = (0.2, 0.1, 0.0)
    s = dense_matrix(overlap, k)
    s = scipy.linalg.block_diag(s, s) if spin == "spinor" else s
    for before, after in zip(*(_matrices(dense_matrix(blocks, k)) for blocks in (hamiltonian, moved)), strict=True):
        energies = scipy.linalg.eigh(before, s, eigvals_only=True)
        np.testing.assert_allclose(scipy.linalg.eigh(after, s, eigvals_only=True), energies + 0.7, atol=1e-10)


def _matrices(matrix: NDArray[np.complex128]) -> Sequence[NDArray[np.complex128]]:
    """One for each spin that has its own."""
    return [matrix] if matrix.ndim == 2 else list(matrix)


def test_a_supercell_has_the_cells_gauge() -> None:
    hamiltonian, overlap = crystal("restricted")
    twice = [unfold(blocks, (2, 1, 1)) for blocks in (hamiltonian, overlap)]
    assert gauge_shift(*twice) == pytest.approx(gauge_shift(hamiltonian, overlap), abs=1e-12)
