"""Source ``two_centre``: S(R) from tables that the checkpoint brings along, so that no program of its basis is needed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from model.blocks.block_set import BlockSet
from model.errors import CheckpointError
from model.integrals.source import Integrals, orbital_labels
from model.integrals.two_centre_tables import TwoCentreTables
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import SYMBOLS, Structure


class TwoCentre:
    """The source.

    Args:
        space: orbitals, in the order that matrices shall have.
        tables: of its basis.

    Raises:
        CheckpointError: tables of other shells than the space's.
    """

    name = "two_centre"

    def __init__(self, space: OrbitalSpace, tables: TwoCentreTables) -> None:
        self.space, self.tables = space, tables
        self.verify(space)

    def integrals(self, structure: Structure, pairs: PairList, given: Mapping[str, BlockSet]) -> Integrals:
        return TwoCentreIntegrals(structure, pairs, self.space, self.tables)

    def verify(self, space: OrbitalSpace) -> None:
        for number in space.elements:
            own = self.tables.shells.get(number)
            if own is None:
                raise CheckpointError(
                    f"The two-centre tables were fitted to structures without {SYMBOLS[number]}, which the basis lists.",
                    hint="Fit the tables to overlaps of all elements, or leave the element out of the basis.",
                )
            if own != tuple(space.shells_of(number)):
                raise CheckpointError(
                    f"The two-centre tables have the shells {own} for {SYMBOLS[number]}; the basis has "
                    f"{space.shells_of(number)}.",
                    hint="Fit the tables to overlaps of this basis.",
                )


class TwoCentreIntegrals:
    """S(R) on the wanted pairs, interpolated."""

    def __init__(self, structure: Structure, pairs: PairList, space: OrbitalSpace, tables: TwoCentreTables) -> None:
        self.structure, self.pairs, self._space, self._tables = structure, pairs, space, tables

    @property
    def labels(self) -> tuple[str, ...]:
        return orbital_labels(self.structure, self._space)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Distances that the tables were not fitted to."""
        return self._tables.uncovered(self.structure.numbers, self.pairs)

    @cached_property
    def overlap(self) -> BlockSet:
        """See ``TwoCentreTables.blocks``."""
        return self._tables.blocks(self._space, self.structure.numbers, self.pairs)
