"""Support: which crystals a checkpoint was trained on, so that it can say when it is asked about others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from model.checkpoint.limits import Count, Cutoff, Symbol, SymbolPair
from model.pairs.pair_list import PairList
from model.structure import SYMBOLS, Structure, element_pair

SLACK_ANGSTROM = 0.02
"""Two sets of shaken crystals differ by so much in their shortest distances."""
SLACK_NEIGHBOURS = 0.02
"""And by this share in the number of neighbours within a cutoff."""


class Support(BaseModel):
    """Distances and surroundings that occur in the training set.

    Attributes:
        shortest_angstrom: shortest distance by "A-B" of element symbols; a pair that is missing never met.
        neighbours: fewest and most pairs of an atom, by element symbol; within the checkpoint's cutoffs, images counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    shortest_angstrom: dict[SymbolPair, Cutoff]
    neighbours: dict[Symbol, Annotated[list[Count], Field(min_length=2, max_length=2)]]

    @classmethod
    def of(cls, crystals: Iterable[tuple[Structure, PairList]]) -> Support:
        """Of training structures with the pairs that the checkpoint's cutoffs make of them."""
        shortest: dict[str, float] = {}
        counts: dict[str, list[int]] = {}
        for structure, pairs in crystals:
            for name, distance in _shortest(structure, pairs).items():
                shortest[name] = min(distance, shortest.get(name, np.inf))
            for symbol, found in _neighbours(structure, pairs).items():
                least, most = counts.get(symbol, [int(found.min()), int(found.max())])
                counts[symbol] = [min(least, int(found.min())), max(most, int(found.max()))]
        return cls(shortest_angstrom=shortest, neighbours=counts)

    def outside(self, structure: Structure, pairs: PairList) -> tuple[str, ...]:
        """What of a structure the training set has not seen, a sentence each; empty if nothing."""
        reasons = []
        for name, distance in sorted(_shortest(structure, pairs).items()):
            known = self.shortest_angstrom.get(name)
            if known is None:
                reasons.append(f"{name} neighbours do not occur in the training set.")
            elif distance < known - SLACK_ANGSTROM:
                reasons.append(
                    f"A {name} distance is {distance:.2f} Å; the shortest in the training set is {known:.2f} Å."
                )
        for symbol, found in sorted(_neighbours(structure, pairs).items()):
            least, most = self.neighbours.get(symbol, [0, 0])
            if found.min() < least * (1 - SLACK_NEIGHBOURS) or found.max() > most * (1 + SLACK_NEIGHBOURS):
                reasons.append(
                    f"Atoms of {symbol} have {found.min()} to {found.max()} neighbours within the cutoffs; in the training "
                    f"set they have {least} to {most}."
                )
        return tuple(reasons)


def _shortest(structure: Structure, pairs: PairList) -> dict[str, float]:
    """Shortest distance of each two elements, Å; on-site pairs do not count."""
    apart = pairs.distances_angstrom > 0.0
    first, second = (structure.numbers[atoms[apart]] for atoms in (pairs.first, pairs.second))
    distances = pairs.distances_angstrom[apart]
    found: dict[str, float] = {}
    for kind in np.unique(first * 1000 + second).tolist():
        name = element_pair(kind // 1000, kind % 1000)
        shortest = float(distances[first * 1000 + second == kind].min())
        found[name] = min(shortest, found.get(name, np.inf))
    return found


def _neighbours(structure: Structure, pairs: PairList) -> dict[str, NDArray[np.int64]]:
    """Pairs of each atom, by element symbol."""
    counts = np.bincount(pairs.first, minlength=len(structure)).astype(np.int64) - 1
    return {SYMBOLS[z]: counts[structure.numbers == z] for z in np.unique(structure.numbers).tolist()}
