"""Where known matrices come from: the protocol of integral sources, and the two that need no program.

A checkpoint's card declares which matrices its network reads (``inputs``) and which source computes them. Sources are lazy:
what nobody asks for is not computed. Matrices are dense (ao, ao) for molecules and a ``BlockSet`` for crystals, in hartree
and in the space's own order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.errors import IntegralError
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import Structure

Matrix = NDArray[np.float64]
KnownMatrix = Matrix | BlockSet
"""Dense for a molecule, blocks for a crystal."""


class Integrals(Protocol):
    """Known matrices of one structure."""

    @property
    def overlap(self) -> KnownMatrix:
        """S.

        Raises:
            IntegralError: the source has none.
        """
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """ "0 O 1s" and so on for each orbital of the structure or cell, (ao,)."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What people should know of these matrices, a sentence each; empty if all is well."""
        ...


class IntegralSource(Protocol):
    """Computes the integrals of structures."""

    name: str

    def integrals(self, structure: Structure, pairs: PairList, given: Mapping[str, BlockSet]) -> Integrals:
        """What is known of a structure.

        Args:
            structure: of the checkpoint's domain.
            pairs: blocks that are wanted.
            given: matrices that the caller brought, by name.
        """
        ...

    def verify(self, space: OrbitalSpace) -> None:
        """Refuse a space whose basis functions are not the source's.

        Raises:
            CheckpointError: the installed program has other basis functions than the checkpoint was made with.
        """
        ...


class GivenIntegrals:
    """Source ``given``: matrices come with the request; and source ``none``, which knows nothing."""

    def __init__(self, space: OrbitalSpace, name: str = "given") -> None:
        self.space = space
        self.name = name

    def integrals(self, structure: Structure, pairs: PairList, given: Mapping[str, BlockSet]) -> Integrals:
        return _Given(self.space, structure, pairs, given)

    def verify(self, space: OrbitalSpace) -> None:
        """Nothing can differ."""


class _Given:
    warnings = ()

    def __init__(
        self, space: OrbitalSpace, structure: Structure, pairs: PairList, given: Mapping[str, BlockSet]
    ) -> None:
        self._space, self.structure, self.pairs, self._given = space, structure, pairs, given

    @property
    def overlap(self) -> BlockSet:
        found = self._given.get("overlap")
        if found is None:
            raise IntegralError(
                "This checkpoint's basis is known to no program here, so there is no overlap.",
                hint="Send the overlap blocks S(R) of this structure with the request.",
                field="overlap",
            )
        if not np.array_equal(found.numbers, self.structure.numbers) or any(
            tuple(found.space.shells_of(z)) != tuple(self._space.shells_of(z)) for z in set(found.numbers.tolist())
        ):
            raise IntegralError(
                "The overlap that came is of other atoms or other shells than the structure has in this checkpoint's basis.",
                hint="Send the overlap of this very structure, atoms in the same sequence.",
                field="overlap",
            )
        return found.in_order(self._space.order).on_pairs(self.pairs)

    @property
    def labels(self) -> tuple[str, ...]:
        return orbital_labels(self.structure, self._space)


def orbital_labels(structure: Structure, space: OrbitalSpace) -> tuple[str, ...]:
    """Labels such as "0 C s1", "0 C p1 m=-1": atom, symbol, shell with its number, m in the space's order, (ao,)."""
    from model.orbitals.orders import m_of_position

    letters = "spdfgh"
    labels = []
    for atom, (number, symbol) in enumerate(zip(structure.numbers, structure.symbols, strict=True)):
        seen: dict[int, int] = {}
        for ang in space.shells_of(int(number)):
            seen[ang] = seen.get(ang, 0) + 1
            name = f"{atom} {symbol} {letters[ang]}{seen[ang]}"
            labels += [name] if ang == 0 else [f"{name} m={m:+d}" for m in m_of_position(space.order, ang)]
    return tuple(labels)
