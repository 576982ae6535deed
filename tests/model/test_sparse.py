"""States of large cells from sparse matrices: LAPACK's eigenvalues, counts by inertia."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from ase.build import graphene
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.blocks.matrices import dense_matrix
from model.blocks.motions import unfold
from model.electronic import sparse
from model.electronic.bands import band_energies
from model.electronic.fermi import fermi_level, k_mesh
from model.electronic.kinetic_damping import KineticDamping
from model.electronic.sparse import SparseLevels, separator_size
from model.electronic.sparse_fermi import near_bands, sparse_fermi_level
from model.errors import ElectronCountError, NumericalError, StructureError
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import Structure

ROUNDING = 1e-10
K_POINTS = [(0.0, 0.0, 0.0), (0.21, 0.13, 0.0)]
N_NEAR = 14


@pytest.fixture(scope="module")
def cell() -> tuple[BlockSet, BlockSet]:
    """A 4 x 4 cell of a graphene-like lattice, s and p, with random hermitian H and S: 128 orbitals."""
    atoms = graphene(vacuum=6.0)
    structure = Structure(atoms.numbers, atoms.positions, cell_angstrom=np.asarray(atoms.cell), pbc=(True, True, False))
    empty = BlockSet.zeros(
        OrbitalSpace("sp", {6: (0, 1)}, order="e3nn"), structure.numbers, PairList.within(structure, 4.0)
    )
    rng = np.random.default_rng(1)
    hamiltonian = empty.with_values(rng.normal(size=empty.values.shape) * 0.1).hermitised()
    overlap = empty.with_values(rng.normal(size=empty.values.shape) * 0.01).hermitised()
    onsite = np.flatnonzero((overlap.pairs.first == overlap.pairs.second) & ~overlap.pairs.shift.any(axis=1))
    for pair in onsite.tolist():
        overlap.values[0, overlap.starts[pair] : overlap.starts[pair + 1]] = np.eye(4).ravel()
    return unfold(hamiltonian, (4, 4, 1)), unfold(overlap, (4, 4, 1))


def dense(cell: tuple[BlockSet, BlockSet], k: tuple[float, float, float]) -> NDArray[np.float64]:
    return band_energies(*cell, [k]).energies[0, 0]


@pytest.mark.parametrize("k", K_POINTS)
def test_nearly_all_states_of_a_small_cell(cell: tuple[BlockSet, BlockSet], k: tuple[float, float, float]) -> None:
    """ARPACK finds all but one of a real matrix, all but two of a complex one."""
    expected = dense(cell, k)
    with pytest.raises(StructureError, match="are found"):
        SparseLevels(*cell, k).around(0.0, len(expected) - (1 if any(k) else 0))
    for n_states in (len(expected) - 3, len(expected) - 2, len(expected) - 1):
        for n_filled in (1, 64, 127):
            found = SparseLevels(*cell, k).around_filling(n_filled, n_states)
            assert len(found.energies) >= n_states - 2
            mine = expected[found.first : found.first + len(found.energies)]
            assert np.abs(found.energies - mine).max() < ROUNDING


def test_a_k_point_leaves_no_matrix_and_no_factorisation_to_the_collector(
    cell: tuple[BlockSet, BlockSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Factorisation:
        def __init__(self, solver: Any) -> None:
            self.shape, self.solve = solver.shape, solver.solve

    left: list[weakref.ref[Any]] = []
    inertia = sparse._inertia

    def watched(matrix: Any, energy: float) -> tuple[int, Any]:
        below, solver = inertia(matrix, energy)
        watched_solver = Factorisation(solver)
        left.append(weakref.ref(watched_solver))
        return below, watched_solver

    monkeypatch.setattr(sparse, "_inertia", watched)
    gc.disable()
    try:
        levels = SparseLevels(*cell, (0.21, 0.13, 0.0))
        left += [weakref.ref(levels._h), weakref.ref(levels._s)]
        levels.smallest_overlap()
        levels.around_filling(64, N_NEAR)
        del levels
        assert len(left) > 3
        assert not any(thing() is not None for thing in left)
    finally:
        gc.enable()


@pytest.mark.parametrize("k", K_POINTS)
@pytest.mark.parametrize("guess", [0.0, 5.0, -7.0])
def test_states_around_a_filling_are_lapack_s(
    cell: tuple[BlockSet, BlockSet], k: tuple[float, float, float], guess: float
) -> None:
    expected = dense(cell, k)
    for n_filled in (3, 10, 64, 120, 126):
        found = SparseLevels(*cell, k).around_filling(n_filled, N_NEAR, guess)
        assert (found.first, len(found.energies)) == (
            min(max(n_filled - N_NEAR // 2, 0), len(expected) - N_NEAR),
            N_NEAR,
        )
        mine = expected[found.first : found.first + len(found.energies)]
        assert np.abs(found.energies - mine).max() < ROUNDING


@pytest.mark.parametrize("k", K_POINTS)
def test_counts_are_lapack_s(cell: tuple[BlockSet, BlockSet], k: tuple[float, float, float]) -> None:
    expected, levels = dense(cell, k), SparseLevels(*cell, k)
    for energy in np.linspace(expected[0] - 0.1, expected[-1] + 0.1, 9):
        assert levels.count_below(float(energy)) == np.count_nonzero(expected < energy)


def test_an_energy_that_is_an_eigenvalue(cell: tuple[BlockSet, BlockSet]) -> None:
    expected, levels = dense(cell, K_POINTS[0]), SparseLevels(*cell)
    below, through = (np.count_nonzero(expected < expected[50] + sign * ROUNDING) for sign in (-1, 1))
    assert below <= levels.count_below(float(expected[50])) <= through
    assert np.abs(levels.around(float(expected[50]), 3).energies - expected[50]).min() < ROUNDING


def test_spinors_without_coupling_are_every_state_twice(cell: tuple[BlockSet, BlockSet]) -> None:
    hamiltonian, overlap = cell
    own = hamiltonian.values[0].astype(np.complex128)
    zero = np.zeros_like(own)
    spinors = BlockSet(
        hamiltonian.space, hamiltonian.numbers, hamiltonian.pairs, np.stack([own, zero, zero, own]), "spinor"
    )
    found = SparseLevels(spinors, overlap, K_POINTS[1]).around_filling(100, N_NEAR)
    twice = np.repeat(dense(cell, K_POINTS[1]), 2)
    assert np.abs(found.energies - twice[found.first : found.first + len(found.energies)]).max() < ROUNDING


@pytest.mark.parametrize("copies", [1, 2])
def test_damped_states_are_lapack_s(cell: tuple[BlockSet, BlockSet], copies: int) -> None:
    """Counts below energies, and states at a filling, of what the dense form diagonalises; spinors have each twice."""
    hamiltonian, overlap = cell
    rng = np.random.default_rng(3)
    kinetic = overlap.with_values(rng.normal(size=overlap.values.shape) * 0.1).hermitised()
    damping = KineticDamping(kinetic, 0.5)
    k = K_POINTS[1]
    expected = band_energies(hamiltonian, overlap, [k], damping=damping).energies[0, 0]
    assert np.abs(expected - dense(cell, k)).max() > 0.05, "the damping does something"
    expected = np.repeat(expected, copies)
    if copies == 2:
        zero = np.zeros_like(hamiltonian.values[0])
        parts = np.stack([hamiltonian.values[0], zero, zero, hamiltonian.values[0]])
        hamiltonian = BlockSet(hamiltonian.space, hamiltonian.numbers, hamiltonian.pairs, parts, "spinor")
    levels = SparseLevels(hamiltonian, overlap, k, damping)
    for energy in (-0.31, 0.02, 0.4):
        assert levels.count_below(energy) == np.count_nonzero(expected < energy)
    found = levels.around_filling(64 * copies, N_NEAR)
    assert np.abs(found.energies - expected[found.first : found.first + len(found.energies)]).max() < ROUNDING


def test_near_dependence_is_counted(cell: tuple[BlockSet, BlockSet]) -> None:
    levels, values = SparseLevels(*cell), np.linalg.eigvalsh(dense_matrix(cell[1]))
    for threshold in (5e-4, 0.8, 0.95):
        assert levels.count_dependent(threshold) == np.count_nonzero(values < threshold)


def test_what_cannot_be_asked_for(cell: tuple[BlockSet, BlockSet]) -> None:
    hamiltonian, overlap = cell
    levels = SparseLevels(*cell)
    for n_filled in (0, 128, 500):
        with pytest.raises(ElectronCountError):
            levels.around_filling(n_filled, N_NEAR)
    for n_states in (0, 128):
        with pytest.raises(StructureError, match="states were asked for"):
            levels.around(0.0, n_states)
    both = BlockSet(
        hamiltonian.space, hamiltonian.numbers, hamiltonian.pairs, np.repeat(hamiltonian.values, 2, 0), "unrestricted"
    )
    with pytest.raises(StructureError, match="collinear"):
        SparseLevels(both, overlap)
    lopsided = hamiltonian.with_values(
        hamiltonian.values + np.random.default_rng(0).normal(size=hamiltonian.values.shape)
    )
    with pytest.raises(NumericalError, match="not hermitian"):
        SparseLevels(lopsided, overlap)


@pytest.mark.parametrize(("n_electrons", "gap"), [(127, 0.0), (101, 0.0), (128, 3.0)])
def test_the_fermi_level_is_that_of_all_bands(cell: tuple[BlockSet, BlockSet], n_electrons: int, gap: float) -> None:
    """Metals, and an insulator: the upper half of the functions of each atom is lifted by the gap."""
    hamiltonian, overlap = cell
    lift = BlockSet.zeros(hamiltonian.space, hamiltonian.numbers, hamiltonian.pairs)
    onsite = np.flatnonzero((lift.pairs.first == lift.pairs.second) & ~lift.pairs.shift.any(axis=1))
    for pair in onsite.tolist():
        lift.values[0, lift.starts[pair] : lift.starts[pair + 1]] = np.diag([0.0, 0.0, gap, gap]).ravel()
    lifted = hamiltonian.with_values(hamiltonian.values + lift.values)
    points, weights = k_mesh((3, 2, 1), halved=True)
    expected = fermi_level(band_energies(lifted, overlap, points), weights, n_electrons)
    found = sparse_fermi_level(lifted, overlap, points, weights, n_electrons, n_states=60)
    assert expected.is_metal == found.is_metal == (gap == 0.0)
    assert found.energy == pytest.approx(expected.energy, abs=1e-8)
    assert found.gap == pytest.approx(expected.gap, abs=1e-8)


def test_a_level_that_the_states_do_not_enclose(cell: tuple[BlockSet, BlockSet]) -> None:
    points, weights = k_mesh((2, 1, 1))
    with pytest.raises(NumericalError, match="do not reach"):
        sparse_fermi_level(*cell, points, weights, 127, n_states=6, smearing_hartree=0.05)
    with pytest.raises(ElectronCountError):
        sparse_fermi_level(*cell, points, weights, 256)


def test_bands_near_a_filling_are_those_of_all_bands(cell: tuple[BlockSet, BlockSet]) -> None:
    points = np.array([[0.0, 0.0, 0.0], [0.21, 0.13, 0.0], [0.5, 0.0, 0.0]])
    done: list[int] = []
    near = near_bands(*cell, points, 128, n_states=N_NEAR, n_checked=2, on_point=done.append)
    expected = band_energies(*cell, points)
    assert (near.first, near.bands.energies.shape[-1]) == (64 - N_NEAR // 2, N_NEAR)
    assert np.abs(near.bands.energies - expected.energies[:, :, near.first : near.first + N_NEAR]).max() < ROUNDING
    assert np.abs(near.bands.smallest_overlap[:2] - expected.smallest_overlap[:2]).max() < ROUNDING
    assert np.isnan(near.bands.smallest_overlap[2])
    assert done == [1, 2, 3]


def test_the_smallest_eigenvalue_of_an_overlap_that_is_not_positive(cell: tuple[BlockSet, BlockSet]) -> None:
    hamiltonian, overlap = cell
    spoilt = overlap.with_values(overlap.values * 8.0)
    lowest = np.linalg.eigvalsh(dense_matrix(spoilt))[0]
    onsite = np.flatnonzero((spoilt.pairs.first == spoilt.pairs.second) & ~spoilt.pairs.shift.any(axis=1))
    for pair in onsite.tolist():
        spoilt.values[0, spoilt.starts[pair] : spoilt.starts[pair + 1]] -= (lowest + 0.5) * np.eye(4).ravel()
    assert SparseLevels(hamiltonian, spoilt).smallest_overlap() == pytest.approx(-0.5, abs=1e-8)


def test_the_dense_part_of_a_factorisation_grows_with_the_cut_and_not_with_the_cell() -> None:
    layer, wire = (separator_size(4 * 900, 90.0, n) / separator_size(900, 90.0, n) for n in (2, 1))
    assert (layer, wire) == (pytest.approx(2.0), pytest.approx(1.0))
    assert separator_size(50, 50.0, 3) <= 50
