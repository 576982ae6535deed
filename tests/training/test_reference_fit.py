"""The fitted reference: far closer to the converged matrix than the core Hamiltonian, and a minimum of what it minimises."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.linalg

from model.integrals.pyscf_molecule import integrals
from model.orbitals.space import OrbitalSpace
from model.reference.fitted import FittedReference, Surroundings
from training.data.sources import Frame
from training.fit.reference import fit_reference

WEIGHT = 0.03


@dataclasses.dataclass(frozen=True)
class Case:
    """A frame with everything the objective needs, from PySCF and scipy."""

    fock: np.ndarray
    around: Surroundings
    energies: np.ndarray
    orbitals: np.ndarray


@pytest.fixture(scope="module")
def cases(tiny_frames: list[Frame], basis: OrbitalSpace, tiny_reference: FittedReference) -> list[Case]:
    found = []
    for frame in tiny_frames:
        data = integrals(frame.structure, basis.name)
        around = data
        found.append(Case(frame.fock, around, *scipy.linalg.eigh(frame.fock, data.overlap)))
    return found


def objective(reference: FittedReference, cases: list[Case]) -> float:
    """As the module states it: mean square of F - H0 plus the weighted first-order density error."""
    total = 0.0
    for case in cases:
        error = case.fock - reference.evaluate(case.around).hamiltonian
        n = case.around.n_occupied
        rotated = case.orbitals[:, :n].T @ error @ case.orbitals[:, n:]
        gaps = case.energies[None, n:] - case.energies[:n, None]
        total += (error**2).mean() + WEIGHT * ((rotated / gaps) ** 2).sum() / n
    return float(total)


def test_blocks_are_ten_times_closer_than_the_core_hamiltonian(
    cases: list[Case], tiny_reference: FittedReference
) -> None:
    for case in cases:
        fitted = np.sqrt(np.mean((case.fock - tiny_reference.evaluate(case.around).hamiltonian) ** 2))
        core = np.sqrt(np.mean((case.fock - case.around.core) ** 2))
        assert fitted < core / 10


def test_no_nearby_coefficients_are_better(
    cases: list[Case], tiny_reference: FittedReference, rng: np.random.Generator
) -> None:
    """Oracle: the objective itself, evaluated by the model's own road rather than by the normal equations."""
    best = objective(tiny_reference, cases)
    for _ in range(8):
        factors = 1.0 + 0.02 * rng.normal(size=tiny_reference.step2.shape)
        nearby = dataclasses.replace(tiny_reference, step2=tiny_reference.step2 * factors)
        assert objective(nearby, cases) > best


def test_the_second_step_improves_on_the_first(cases: list[Case], tiny_reference: FittedReference) -> None:
    layout_names = len(tiny_reference.step1)
    only_first = np.zeros_like(tiny_reference.step2)
    only_first[:layout_names] = tiny_reference.step1
    step1 = dataclasses.replace(tiny_reference, step2=only_first)
    assert objective(tiny_reference, cases) < objective(step1, cases)


def test_a_larger_density_weight_trades_blocks_for_density(
    tiny_frames: list[Frame], basis: OrbitalSpace, tiny_reference: FittedReference, cases: list[Case]
) -> None:
    heavy = fit_reference(
        tiny_frames, basis, exponents=tiny_reference.exponents, density_weight=100 * WEIGHT, processes=0
    )

    def density(reference: FittedReference) -> float:
        return objective(reference, cases) - blocks(reference)

    def blocks(reference: FittedReference) -> float:
        return float(sum(((c.fock - reference.evaluate(c.around).hamiltonian) ** 2).mean() for c in cases))

    assert density(heavy) < density(tiny_reference)
    assert blocks(heavy) > blocks(tiny_reference)


def test_nothing_to_fit_is_said(basis: OrbitalSpace) -> None:
    with pytest.raises(ValueError, match="no frames"):
        fit_reference([], basis, exponents=np.array([1.0]), density_weight=WEIGHT, processes=0)
