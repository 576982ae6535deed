"""Every law refuses a subject that breaks it by far less than a wrong sign would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from model.blocks.block_set import BlockSet
from model.structure import Structure
from tests.laws.subjects import Case, Kind, Subject, subject
from tests.laws.suite import LAWS

FAULT = 1e-6
"""Relative error of the blocks that a law has to find; a step of continuity is longer, so a jump is a thousand times that."""

Fault = Callable[[Structure, int], float]


def orientation(structure: Structure, _batch: int) -> float:
    """Depends on how the structure lies in space, but on nothing else."""
    positions = structure.positions_angstrom - structure.positions_angstrom.mean(axis=0)
    return float((positions @ np.array([1.0, -0.6, 0.3]) * structure.numbers).sum())


def place(structure: Structure, _batch: int) -> float:
    return float(structure.positions_angstrom.sum())


def sequence(structure: Structure, _batch: int) -> float:
    return float(structure.positions_angstrom[0] @ structure.positions_angstrom[0])


def company(_structure: Structure, batch: int) -> float:
    return float(batch)


def size(structure: Structure, _batch: int) -> float:
    return float(len(structure))


def jump(structure: Structure, _batch: int) -> float:
    """Number of pairs within the messages' cutoff, as a network without an envelope would see it."""
    from model.pairs.pair_list import PairList
    from tests.laws.subjects import MESSAGES_ANGSTROM

    return 1000.0 * len(PairList.within(structure, MESSAGES_ANGSTROM))


FAULTS: dict[str, tuple[Fault, tuple[Kind, ...]]] = {
    "rotation": (orientation, ("molecule", "crystal")),
    "mirror and inversion": (orientation, ("molecule", "crystal")),
    "bond direction": (orientation, ("molecule", "crystal")),
    "translation": (place, ("molecule", "crystal")),
    "permutation": (sequence, ("molecule", "crystal")),
    "batch = single": (company, ("molecule", "crystal")),
    "supercell = cell": (size, ("crystal",)),
    "far fragment": (size, ("molecule", "crystal")),
    "continuity": (jump, ("molecule", "crystal")),
}


def broken(sound: Subject, fault: Fault) -> Subject:
    """The subject with blocks that are wrong by a factor of one plus the fault."""

    def predict(structures: Sequence[Structure]) -> list[BlockSet]:
        found = sound.predict(structures)
        return [
            blocks.with_values(blocks.values * (1.0 + FAULT * fault(structure, len(structures))))
            for structure, blocks in zip(structures, found, strict=True)
        ]

    return replace(sound, predict=predict)


@pytest.mark.parametrize(("law", "kind"), [(law, kind) for law, (_, kinds) in FAULTS.items() for kind in kinds])
def test_a_law_finds_what_breaks_it(law: str, kind: Kind) -> None:
    sound = subject(Case("qhnetv2", kind))
    LAWS[law](sound)
    with pytest.raises(AssertionError):
        LAWS[law](broken(sound, FAULTS[law][0]))


def test_the_other_laws_find_what_breaks_them() -> None:
    sound = subject(Case("qhnetv2", "crystal"))

    def one_sided(structures: Sequence[Structure]) -> list[BlockSet]:
        found = sound.predict(structures)
        return [
            blocks.with_values(blocks.values * (1.0 + FAULT * np.arange(blocks.values.shape[1]))) for blocks in found
        ]

    def scalars_only(structures: Sequence[Structure]) -> list[BlockSet]:
        found = sound.predict(structures)
        for blocks in found:
            for block in blocks:
                block[:, 3:, :] = block[:, :, 3:] = 0.0
        return found

    with pytest.raises(AssertionError):
        LAWS["time reversal"](replace(subject(Case("qhnetv2", "crystal", "spinor")), time_reversal=True))
    with pytest.raises(AssertionError):
        LAWS["hermiticity"](replace(sound, predict=one_sided))
    with pytest.raises(AssertionError):
        LAWS["expressiveness"](replace(sound, predict=scalars_only))


def test_every_law_is_tried() -> None:
    assert {*FAULTS, "hermiticity", "time reversal", "expressiveness"} == set(LAWS)
