"""The caller's own S(R), for models whose basis functions no program here knows: checked against everything that can be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from model.blocks.block_set import BlockSet, stack_blocks
from model.electronic.overlap import OVERLAP_THRESHOLD
from model.errors import StructureError
from model.integrals.source import orbital_labels
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import Structure
from service.crystals.study import smallest_eigenvalue
from service.errors import ServiceError
from service.schemas.requests import OwnOverlap

if TYPE_CHECKING:
    from model.checkpoint.card import Card

WITHOUT_OVERLAP: Final = ("given", "none")
"""Sources of integrals that have no overlap of their own."""

HERMITIAN: Final = 1e-6
"""Largest difference of S_ij(R) and the transpose of S_ji(-R), where both came."""


@dataclass(frozen=True, eq=False)
class OwnIntegrals:
    """Known matrices of a structure: the caller's overlap."""

    overlap: BlockSet
    labels: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def refuse_needless_overlap(card: Card) -> None:
    """Refuse an overlap for a model that knows its own: two of them could differ without a word.

    Raises:
        ServiceError: ``invalid_request``.
    """
    if card.integrals not in WITHOUT_OVERLAP:
        raise ServiceError(
            "invalid_request",
            "This model computes the overlap of its basis itself.",
            field="overlap",
            hint="Leave out overlap; outputs=overlap_blocks shows the model's.",
        )


def own_integrals(own: OwnOverlap, structure: Structure, space: OrbitalSpace) -> OwnIntegrals:
    """The caller's blocks as S(R), in the order of a space.

    Of a pair and its reverse one is enough; blocks that are missing are zero, but those of each atom with itself.

    Args:
        own: as sent.
        structure: the crystal that they are of.
        space: orbitals of the model.

    Raises:
        ServiceError: ``invalid_request``: pairs that the crystal does not have, or twice; blocks of another shape; entries
            that are not finite; a matrix that is not hermitian or not positive definite.
    """
    keys = [(block.i, block.j, *block.shift) for block in own.blocks]
    if any(shift and not pbc for key in keys for shift, pbc in zip(key[2:], structure.pbc, strict=True)):
        raise _wrong("A block has a shift along a direction that is not periodic.")
    try:
        pairs = PairList.of(structure, [key[0] for key in keys], [key[1] for key in keys], [key[2:] for key in keys])
    except StructureError as error:
        raise _wrong(error.detail) from error
    sent = {key: _matrix(block.matrix) for key, block in zip(keys, own.blocks, strict=True)}
    sizes = np.diff(space.atom_offsets(structure.numbers)).tolist()
    blocks = []
    for i, j, *shift in zip(pairs.first.tolist(), pairs.second.tolist(), *pairs.shift.T.tolist(), strict=True):
        there, back = sent.get((i, j, *shift)), sent.get((j, i, *(-x for x in shift)))
        for found, shape in ((there, (sizes[i], sizes[j])), (back, (sizes[j], sizes[i]))):
            if found is not None and found.shape != shape:
                raise _wrong(f"The block of the atoms {i} and {j} is not of {shape[0]} x {shape[1]} numbers.")
        if there is not None and back is not None and np.abs(there - back.T).max() > HERMITIAN:
            raise _wrong(f"The blocks of the atoms {i} and {j} and of {j} and {i} are not each other's transpose.")
        if there is None and back is None:
            raise _wrong(f"There is no block of atom {i} with itself (i = j, shift [0, 0, 0]).")
        blocks.append(there if there is not None else np.ascontiguousarray(back.T) if back is not None else np.empty(0))
    theirs = replace(space, order=own.ao_order)
    overlap = stack_blocks(theirs, structure.numbers, pairs, blocks).in_order(space.order)
    smallest = smallest_eigenvalue(overlap, structure.pbc)
    if smallest <= OVERLAP_THRESHOLD:
        raise _wrong(f"The overlap is not positive definite: its smallest eigenvalue is {smallest:.1e}.")
    return OwnIntegrals(overlap, orbital_labels(structure, space))


def _matrix(rows: list[list[float]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    try:
        matrix = np.array(rows, dtype=np.float64)
    except ValueError:
        matrix = np.empty(0)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise _wrong("A block is not a matrix of finite numbers.")
    return matrix


def _wrong(detail: str) -> ServiceError:
    return ServiceError(
        "invalid_request",
        detail,
        field="overlap",
        hint="Send the S(R) of this very structure, atoms in the same sequence, as outputs=overlap_blocks writes it: i and j "
        "from 0, shift the cell of atom j, orbitals in the order of ao_order.",
    )
