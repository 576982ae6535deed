"""H0 of a crystal from two-centre tables: every block as the function of the distance that fits the labels best.

    H0_ij(R) = D_i^T diag(h_|m|(|v|)) D_j,    H0_ii = the mean of the labels' on-site scalars

with v the bond and D as in ``integrals.bond_channels`` (Slater and Koster, Phys. Rev. 94, 1498 (1954)). What a label has
beyond it is what surroundings do to a bond, an order smaller than the label, and is left to the network. H0 knows no spin: it
is the same for both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import numpy as np

from model.blocks.block_set import BlockSet
from model.errors import CheckpointError
from model.integrals.two_centre_fit import nearest_two_centre
from model.integrals.two_centre_tables import TwoCentreTables
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.reference.interface import ReferenceResult, Tensors
from model.structure import Structure


class HasPairs(Protocol):
    """Integrals of a crystal, of which only the pairs are needed."""

    @property
    def structure(self) -> Structure:
        """The crystal."""
        ...

    @property
    def pairs(self) -> PairList:
        """Which blocks are wanted."""
        ...


@dataclass(frozen=True, eq=False)
class TwoCentreReference:
    """The reference.

    Attributes:
        space: orbitals, in the order of the blocks.
        tables: of H, hartree.

    Raises:
        CheckpointError: tables of other elements or shells than the space's.
    """

    kind: ClassVar[str] = "two_centre"
    note: ClassVar[str] = (
        "each block the function of its bond's length that fits the labels best (model/reference/two_centre.py)"
    )
    sources: ClassVar[tuple[str, ...]] = ("pyscf_crystal", "two_centre", "given", "none")
    has_density: ClassVar[bool] = False

    space: OrbitalSpace
    tables: TwoCentreTables

    def __post_init__(self) -> None:
        missing = set(self.space.elements) - set(self.tables.shells)
        if missing or any(self.tables.shells[z] != tuple(self.space.shells_of(z)) for z in self.space.elements):
            raise CheckpointError(
                "The two-centre tables of the reference are of other elements or shells than the basis has.",
                hint="Fit the reference to labels of this basis that have all its elements.",
            )

    @classmethod
    def fitted(cls, space: OrbitalSpace, labels: Iterable[BlockSet]) -> Self:
        """Fit the tables.

        Args:
            space: orbitals; elements that no label has are left out of it.
            labels: H(R), hartree, of one gauge, any spin treatment.

        Raises:
            IntegralError: no labels, or different shells of one element.
            CheckpointError: labels that lack an element of the space.
        """
        return cls(space, nearest_two_centre(label.without_spin() for label in labels))

    def evaluate(self, crystal: HasPairs) -> ReferenceResult[BlockSet]:
        """H0(R), restricted, hartree. Closer than the labels' nearest atoms, blocks are those at that distance, in the frame
        of the bond; elements that were never neighbours have none."""
        blocks = self.tables.blocks(self.space, crystal.structure.numbers, crystal.pairs, refuse=False)
        return ReferenceResult(blocks, None)

    def tensors(self) -> dict[str, np.ndarray]:
        """The tables, by the names that ``TwoCentreTables.to_arrays`` gives."""
        return self.tables.to_arrays()

    @classmethod
    def shapes(cls, space: OrbitalSpace, stored: Tensors) -> dict[str, tuple[int, ...]]:
        """Those of sound tables; how many splines there are only the tensors themselves know."""
        tables = TwoCentreTables.from_arrays(space.shells, stored)
        return {name: values.shape for name, values in tables.to_arrays().items()}

    @classmethod
    def from_tensors(cls, space: OrbitalSpace, stored: Tensors) -> Self:
        """From what :meth:`tensors` gave."""
        return cls(space, TwoCentreTables.from_arrays(space.shells, stored))
