"""Orbitals and densities: known rotations have known figures; minao's density is PySCF's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from pyscf import dft

from model.electronic import comparison as measure
from model.integrals.pyscf_molecule import build_mole, integrals
from training.data.sources import Frame
from training.evaluate.orbitals import minao_density

AMMONIA = 6
"""Index of NH3's first frame in the tiny training set."""

Case = tuple[np.ndarray, np.ndarray, np.ndarray, int]


@pytest.fixture
def case(tiny_frames: list[Frame]) -> Case:
    """Overlap, energies, orbitals and number of occupied orbitals of ammonia."""
    frame = tiny_frames[AMMONIA]
    overlap = integrals(frame.structure, "def2-svp").overlap
    energies, orbitals = scipy.linalg.eigh(frame.fock, overlap)
    return overlap, energies, orbitals, frame.structure.n_electrons // 2


def rotated(orbitals: np.ndarray, i: int, j: int, angle: float) -> np.ndarray:
    """Orbitals i and j mixed by an angle."""
    mixed = orbitals.copy()
    mixed[:, i] = np.cos(angle) * orbitals[:, i] + np.sin(angle) * orbitals[:, j]
    mixed[:, j] = np.cos(angle) * orbitals[:, j] - np.sin(angle) * orbitals[:, i]
    return mixed


@pytest.mark.parametrize("angle", [0.05, 0.6, 1.2])
def test_one_orbital_rotated_out_of_the_occupied_space(case: Case, angle: float) -> None:
    """HOMO into LUMO + 3: psi loses (1 - cos) / n, the space sin, the density sin cos."""
    overlap, energies, orbitals, n = case
    mixed = rotated(orbitals, n - 1, n + 3, angle)
    kept = 100.0 * (n - 1 + np.cos(angle)) / n
    assert measure.orbital_overlap(orbitals, mixed, overlap, n) == pytest.approx(kept, rel=1e-9)
    assert measure.occupied_distance(orbitals, mixed, overlap, n) == pytest.approx(np.sin(angle), rel=1e-6)
    density = 2.0 * mixed[:, :n] @ mixed[:, :n].T
    assert measure.density_mixing(density, overlap, orbitals, n) == pytest.approx(np.sin(angle) * np.cos(angle))
    homo, lumo = measure.frontier_windows(energies, n)
    assert lumo is not None
    width = homo.stop - homo.start
    distance = measure.window_distance(orbitals, mixed, overlap, homo)
    assert distance == pytest.approx(np.sin(angle) / np.sqrt(width), rel=1e-6)
    assert measure.window_distance(orbitals, mixed, overlap, lumo) < 1e-6


def test_a_wholly_wrong_orbital_shows_in_the_space_alone(case: Case) -> None:
    """HOMO and LUMO exchanged: nothing mixes, so D_ia is zero, and yet a wrong orbital is filled."""
    overlap, _, orbitals, n = case
    mixed = rotated(orbitals, n - 1, n, np.pi / 2)
    assert measure.density_mixing(2.0 * mixed[:, :n] @ mixed[:, :n].T, overlap, orbitals, n) < 1e-9
    assert measure.occupied_distance(orbitals, mixed, overlap, n) == pytest.approx(1.0)


def test_psi_takes_bare_coefficients(case: Case) -> None:
    """QH9's psi is the cosine of coefficient vectors, whatever their lengths and signs, and knows no overlap."""
    overlap, _, orbitals, n = case
    scaled = orbitals * np.where(np.arange(len(orbitals)) % 2, -3.0, 2.0)
    assert measure.orbital_cosine(orbitals, scaled, n) == pytest.approx(100.0)
    mixed = rotated(orbitals, n - 1, n, 0.4)
    expected = []
    for i in range(n):
        a, b = orbitals[:, i], mixed[:, i]
        expected.append(abs(a @ b) / np.sqrt((a @ a) * (b @ b)))
    found = measure.orbital_cosine(orbitals, mixed, n)
    assert found == pytest.approx(100.0 * np.mean(expected))
    assert abs(found - measure.orbital_overlap(orbitals, mixed, overlap, n)) > 0.1, "the two metrics differ"


def test_mixing_among_the_occupied_changes_psi_alone(case: Case) -> None:
    overlap, _, orbitals, n = case
    mixed = rotated(orbitals, n - 1, n - 2, 0.7)
    assert measure.orbital_overlap(orbitals, mixed, overlap, n) < 95.0
    assert measure.occupied_distance(orbitals, mixed, overlap, n) < 1e-6
    assert measure.density_mixing(2.0 * mixed[:, :n] @ mixed[:, :n].T, overlap, orbitals, n) < 1e-9


def test_degenerate_levels_are_one_window() -> None:
    close, far = 0.5 * measure.DEGENERATE_HARTREE, 10.0 * measure.DEGENERATE_HARTREE
    energies = np.cumsum([0.0, far, close, far, close, close, far])
    homo, lumo = measure.frontier_windows(energies, 3)
    assert (homo, lumo) == (slice(1, 3), slice(3, 6))
    assert measure.frontier_windows(energies, 7) == (slice(6, 7), None), "nothing is empty"
    assert measure.frontier_windows(energies[:3], 1) == (slice(0, 1), slice(1, 3))


def test_an_intruder_is_far_and_a_mixed_degenerate_pair_is_not(case: Case) -> None:
    overlap, _, orbitals, n = case
    pair = slice(n - 2, n)
    assert measure.window_distance(orbitals, rotated(orbitals, n - 1, n - 2, 0.8), overlap, pair) < 1e-6
    swapped = orbitals.copy()
    swapped[:, [n, n + 5]] = swapped[:, [n + 5, n]]
    distance = measure.window_distance(orbitals, swapped, overlap, slice(n, n + 1))
    assert distance == pytest.approx(1.0)
    assert distance > measure.INTRUDER_DISTANCE


def test_first_order_and_exact_mixing_agree_for_small_errors(case: Case, tiny_frames: list[Frame]) -> None:
    """Oracle: the generalised eigenproblem of F + x dF; what is left is second order in x."""
    overlap, energies, orbitals, n = case
    fock = tiny_frames[AMMONIA].fock
    noise = np.random.default_rng(1).normal(size=fock.shape)
    noise = (noise + noise.T) * 1e-3
    for size in (1e-2, 1e-3):
        first = measure.first_order_density(size * noise, energies, orbitals, n)
        _, wrong = scipy.linalg.eigh(fock + size * noise, overlap)
        exact = measure.density_mixing(2.0 * wrong[:, :n] @ wrong[:, :n].T, overlap, orbitals, n)
        assert exact == pytest.approx(first, rel=20.0 * size)


def test_minao_is_pyscfs_and_its_mixing_is_the_projection(case: Case, tiny_frames: list[Frame]) -> None:
    """Oracle: the density that an RKS object of PySCF starts from, and the sum over orbital pairs written out."""
    overlap, _, orbitals, n = case
    mole = build_mole(tiny_frames[AMMONIA].structure, "def2-svp")
    density = dft.RKS(mole).get_init_guess(key="minao")
    ours = minao_density(mole)
    assert np.abs(ours - density).max() < 1e-12
    total = 0.0
    for i in range(n):
        for a in range(n, len(overlap)):
            total += (orbitals[:, i] @ overlap @ density @ overlap @ orbitals[:, a] / 2.0) ** 2
    found = measure.density_mixing(ours, overlap, orbitals, n)
    assert found == pytest.approx(np.sqrt(total))
    assert 0.05 < found < 1.0, "minao is neither converged nor nonsense"
