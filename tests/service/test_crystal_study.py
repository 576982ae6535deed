"""What is solved of a crystal where its overlap is sick: warned of, projected out, or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.electronic.density import UNMOVED, density_at_k, density_distance, density_start
from model.electronic.kinetic_damping import KineticDamping
from model.integrals.pyscf_crystal import CrystalIntegrals
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.predictor import CrystalPrediction
from model.structure import Structure
from service.crystals.paths import KPath
from service.crystals.plan import Plan
from service.crystals.study import Study, make_study, smallest_eigenvalue
from service.errors import ServiceError

SPACE = OrbitalSpace("s", {1: (0,)})
CELL = Structure(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 0.8]]), cell_angstrom=4.0 * np.eye(3), pbc=(True,) * 3)
PAIRS = PairList.of(CELL, [0], [1], [[0, 0, 0]])
MESH = Plan(("fermi_energy",), (1, 1, 1), density=False, defaults=())


@dataclass
class Known:
    overlap: BlockSet
    labels: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def dimers(overlap: float) -> CrystalPrediction:
    """Two s orbitals of this overlap in a cell, blind to other cells: S has the eigenvalues 1 - overlap and 1 + overlap."""
    blocks = BlockSet(SPACE, CELL.numbers, PAIRS, np.array([[1.0, 1.0, overlap, overlap]]))
    hamiltonian = blocks.with_values(np.array([[-0.5, -0.4, -0.3, -0.3]]))
    return CrystalPrediction(CELL, hamiltonian, Known(blocks), True, (), {})


def test_a_sound_overlap_is_reported_without_a_word():
    study = make_study(dimers(0.4), MESH, 2)
    assert study.smallest_overlap == pytest.approx(0.6)
    assert study.warnings == ()
    assert study.level is not None
    assert smallest_eigenvalue(dimers(0.4).integrals.overlap, (True,) * 3) == pytest.approx(0.6)  # type: ignore[arg-type]


def test_a_nearly_singular_overlap_is_warned_of_and_what_depends_is_counted():
    study = make_study(dimers(1 - 1e-5), MESH, 2)
    assert study.smallest_overlap == pytest.approx(1e-5)
    near, projected = study.warnings
    assert "nearly singular" in near
    assert "1.0e-05" in near
    assert "Up to 1 combinations" in projected
    merely_small = make_study(dimers(1 - 3e-4), MESH, 2).warnings
    assert [("projected" in text, "nearly" in text) for text in merely_small] == [(True, False)]


def test_an_overlap_that_is_not_positive_is_refused_for_levels_and_not_for_blocks():
    with pytest.raises(ServiceError) as refused:
        make_study(dimers(1.01), MESH, 2)
    assert (refused.value.code, refused.value.field) == ("numerical_failure", "structure")
    assert "-1.0e-02" in refused.value.detail
    blocks = make_study(dimers(1.01), Plan(("blocks",), None, density=False, defaults=()), 2)
    assert blocks.smallest_overlap == pytest.approx(-0.01)
    assert "not positive definite" in blocks.warnings[0]


@pytest.fixture(scope="module")
def with_a_ghost() -> tuple[CrystalPrediction, CrystalPrediction]:
    """Boron nitride in MOLOPT functions: an exact H, and one with errors of some meV that make a ghost band of it."""
    structure = Structure(
        np.array([5, 7]),
        np.array([[0.0, 0.0, 5.0], [1.25, 0.7217, 5.0]]),
        cell_angstrom=np.array([[2.5, 0.0, 0.0], [-1.25, 2.165, 0.0], [0.0, 0.0, 10.0]]),
        pbc=(True, True, False),
    )
    space = OrbitalSpace("gth-dzvp-molopt-sr", {5: (0, 0, 1, 1, 2), 7: (0, 0, 1, 1, 2)}, valence={5: 3, 7: 5})
    known = CrystalIntegrals(structure, PairList.within(structure, lambda a, b: 12.0), space)
    exact = known.kinetic.with_values(known.kinetic.values - 0.4 * known.overlap.values)
    sizes = 2e-3 * np.repeat(np.exp(-exact.pairs.distances_angstrom / 2), np.diff(exact.starts))
    wrong = exact.with_values(exact.values + sizes * np.random.default_rng(0).normal(size=exact.values.shape))
    made = [CrystalPrediction(structure, h, known, True, (), {}) for h in (exact, wrong.hermitised())]
    return made[0], made[1]


PATH = KPath(np.array([[0.0, 0.0, 0.0], [0.21, -0.34, 0.0]]), np.array([0.0, 1.0]), ((0, "G"), (1, "A")), None)
BANDS = Plan((), (4, 4, 1), density=True, defaults=(), path=PATH)
START = Plan((), None, density=False, defaults=(), guess=np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0]]), order="e3nn")


def bands_of(study: Study) -> NDArray[np.float64]:
    assert study.bands is not None
    return study.bands.energies[..., :4]


def density_of(study: Study) -> NDArray[np.float64]:
    assert study.density is not None
    return study.density.values


def start_of(study: Study) -> NDArray[np.float64]:
    assert study.start is not None
    return study.start.energies[..., :4]


def test_a_start_is_damped_where_that_moves_electrons_and_not_elsewhere(
    with_a_ghost: tuple[CrystalPrediction, CrystalPrediction],
) -> None:
    points, weights = START.guess, np.array([0.5, 0.5])
    assert points is not None
    for prediction, delta, is_damped in zip(with_a_ghost, (1e-4, 0.02), (False, True), strict=True):
        known = prediction.integrals
        assert isinstance(known, CrystalIntegrals)
        damping = KineticDamping(known.kinetic, delta)
        given = (prediction.hamiltonian, known.overlap, points, weights, 8.0)
        plain, damped = density_at_k(*given), density_at_k(*given, damping=damping)
        moved = density_distance(plain, damped, known.overlap, points, weights, 8.0)
        assert moved > 0.0
        assert (moved >= UNMOVED) == is_damped
        start = density_start(*given, damping)
        assert np.array_equal(start.matrices, (damped if is_damped else plain).matrices)


@pytest.mark.parametrize(("plan", "read"), [(BANDS, bands_of), (BANDS, density_of), (START, start_of)])
def test_what_is_solved_for_is_damped_as_the_card_says(
    with_a_ghost: tuple[CrystalPrediction, CrystalPrediction],
    plan: Plan,
    read: Callable[[Study], NDArray[np.float64]],
) -> None:
    exact, wrong = with_a_ghost
    right = read(make_study(exact, plan, 8))
    raw, damped = (read(make_study(replace(wrong, kinetic_damping=delta), plan, 8)) for delta in (0.0, 0.02))
    assert np.abs(damped - right).max() < 0.1 * np.abs(raw - right).max()
