"""A checkpoint of crystals knows which surroundings it was trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.checkpoint.support import Support
from model.pairs.pair_list import PairList
from model.structure import Structure

CUTOFF_ANGSTROM = 4.0


def graphene(scale: float = 1.0, symbols: tuple[int, int] = (6, 6)) -> Structure:
    cell = scale * np.array([[2.46, 0.0, 0.0], [-1.23, 2.1304, 0.0], [0.0, 0.0, 12.0]])
    positions = scale * np.array([[0.0, 0.0, 6.0], [0.0, 1.42, 6.0]])
    return Structure(np.array(symbols), positions, cell_angstrom=cell, pbc=(True, True, False))


def pairs_of(structure: Structure) -> PairList:
    return PairList.within(structure, CUTOFF_ANGSTROM)


@pytest.fixture
def support() -> Support:
    trained = [graphene(scale) for scale in (0.99, 1.0, 1.01)]
    return Support.of((structure, pairs_of(structure)) for structure in trained)


def test_what_was_trained_on_is_inside(support: Support) -> None:
    assert support.outside(graphene(0.995), pairs_of(graphene(0.995))) == ()
    assert support.shortest_angstrom["C-C"] == pytest.approx(0.99 * 1.42, abs=1e-3)
    assert Support.model_validate_json(support.model_dump_json()) == support


def test_a_larger_cell_of_the_same_crystal_is_inside(support: Support) -> None:
    one = graphene()
    assert one.cell_angstrom is not None
    cell = one.cell_angstrom * np.array([[3.0], [1.0], [1.0]])
    moved = np.concatenate([one.positions_angstrom + n * one.cell_angstrom[0] for n in range(3)])
    large = replace(one, numbers=np.tile(one.numbers, 3), positions_angstrom=moved, cell_angstrom=cell)
    assert support.outside(large, pairs_of(large)) == ()


@pytest.mark.parametrize(
    ("structure", "said"),
    [
        (graphene(0.8), "A C-C distance is 1.14"),
        (graphene(1.6), "neighbours within the cutoffs"),
        (graphene(symbols=(6, 7)), "C-N neighbours do not occur"),
    ],
    ids=["pressed", "pulled apart", "another element"],
)
def test_what_was_not_is_said(support: Support, structure: Structure, said: str) -> None:
    assert any(said in reason for reason in support.outside(structure, pairs_of(structure)))
