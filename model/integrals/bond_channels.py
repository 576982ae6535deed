"""Two-centre blocks in the frame of the bond: which entries there are, and the way there and back.

With the bond on the z axis the overlap of two shells is diagonal in m and the same for m and -m (Slater and Koster, Phys.
Rev. 94, 1498 (1954)):

    S_ij(v) = D_i^T diag(s_|m|(|v|)) D_j,    D = Wigner matrices of a rotation that turns v onto z

so a pair of shells (l1, l2) has min(l1, l2) + 1 numbers, its channels. Of two like atoms the channels of (b, a) are those of
(a, b) times (-1)^(l1 + l2), because turning the bond round transposes the block. Blocks here are in the standard order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from model.blocks.block_set import BlockGroup
from model.nn.frames import bond_rotations, wigner_matrices
from model.orbitals.space import OrbitalSpace

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BondChannels:
    """Entries of a block that may differ from zero in the bond frame.

    Attributes:
        shape: orbitals of the first and of the second atom.
        row, column: place in the block, (entry,).
        channel: number that stands there, (entry,).
        sign: with which sign, (entry,).
    """

    shape: tuple[int, int]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    channel: NDArray[np.int64]
    sign: Array

    @classmethod
    def of_pair(cls, first: Sequence[int], second: Sequence[int], *, like: bool) -> BondChannels:
        """Off-site.

        Args:
            first, second: angular momenta of the shells of the two atoms.
            like: whether both are of one element.
        """
        found: list[tuple[int, int, int, int]] = []
        start = 0
        of_pair: dict[tuple[int, int], int] = {}
        for a, row, row_ang in _shells(first):
            for b, column, column_ang in _shells(second):
                smaller = min(row_ang, column_ang)
                sign = 1
                if like and a > b:
                    own, sign = of_pair[b, a], (-1) ** (row_ang + column_ang)
                else:
                    own, start = start, start + smaller + 1
                    of_pair[a, b] = own
                found += [
                    (row + row_ang + m, column + column_ang + m, own + abs(m), sign)
                    for m in range(-smaller, smaller + 1)
                ]
        return cls._of(first, second, found)

    @classmethod
    def on_site(cls, shells: Sequence[int]) -> BondChannels:
        """Two shells of one atom: one number for every two shells of the same l."""
        found: list[tuple[int, int, int, int]] = []
        of_pair: dict[tuple[int, int], int] = {}
        for a, row, row_ang in _shells(shells):
            for b, column, column_ang in _shells(shells):
                if row_ang == column_ang:
                    own = of_pair.setdefault((min(a, b), max(a, b)), len(of_pair))
                    found += [(row + m, column + m, own, 1) for m in range(2 * row_ang + 1)]
        return cls._of(shells, shells, found)

    @classmethod
    def _of(cls, first: Sequence[int], second: Sequence[int], entries: list[tuple[int, int, int, int]]) -> BondChannels:
        row, column, channel, sign = np.array(entries, dtype=np.int64).T
        return cls((_size(first), _size(second)), row, column, channel, sign.astype(np.float64))

    @property
    def n_channels(self) -> int:
        """Numbers a block has."""
        return int(self.channel.max()) + 1

    def read(self, blocks: Array) -> Array:
        """Each channel's mean over the entries that should be equal: blocks (item, row, column) -> (item, channel)."""
        average = np.zeros((len(self.channel), self.n_channels))
        average[np.arange(len(self.channel)), self.channel] = self.sign
        average /= np.bincount(self.channel)
        return np.asarray(blocks[:, self.row, self.column] @ average)

    def fill(self, values: Array) -> Array:
        """Blocks with these numbers and zeros elsewhere: (item, channel) -> (item, row, column)."""
        blocks = np.zeros((len(values), *self.shape))
        blocks[:, self.row, self.column] = values[:, self.channel] * self.sign
        return blocks


@dataclass(frozen=True, eq=False)
class BondFrames:
    """Rotations of some bonds onto the z axis.

    Attributes:
        matrices: Wigner matrices of each l, (bond, 2l + 1, 2l + 1).
    """

    matrices: tuple[Array, ...]

    @classmethod
    def of(cls, vectors: Array, lmax: int) -> BondFrames:
        """For bond vectors of any length but zero, (bond, 3), Cartesian (x, y, z)."""
        rotations = bond_rotations(torch.from_numpy(np.ascontiguousarray(vectors)))
        return cls(tuple(matrix.numpy() for matrix in wigner_matrices(rotations, lmax)))

    def enter(self, blocks: Array, first: Sequence[int], second: Sequence[int]) -> Array:
        """D_i S D_j^T: blocks (bond, row, column) seen in the frames of their bonds."""
        turned = _times(self.matrices, first, blocks)
        return _times(self.matrices, second, turned.swapaxes(1, 2)).swapaxes(1, 2)

    def leave(self, blocks: Array, first: Sequence[int], second: Sequence[int]) -> Array:
        """D_i^T S D_j: the way back."""
        back = BondFrames(tuple(matrix.swapaxes(1, 2) for matrix in self.matrices))
        return back.enter(blocks, first, second)


def standard_entries(
    space: OrbitalSpace, group: BlockGroup, items: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Array]:
    """Where blocks of a BlockSet have their entries when they are read in the standard order.

    Args:
        space: its order is the BlockSet's.
        group: pairs of two elements.
        items: which of the group's pairs, (item,).

    Returns:
        flat positions, (item, row, column), and the sign of each, (row, column).
    """
    row, column = space.to_standard(group.rows), space.to_standard(group.columns)
    entries = group.entries[items[:, None, None], row.index[:, None], column.index]
    return entries, row.sign[:, None] * column.sign


def _size(shells: Sequence[int]) -> int:
    return sum(2 * ang + 1 for ang in shells)


def _shells(shells: Sequence[int]) -> list[tuple[int, int, int]]:
    """Number, first orbital and l of each shell."""
    starts = np.concatenate([[0], np.cumsum([2 * ang + 1 for ang in shells])]).tolist()
    return [(number, starts[number], ang) for number, ang in enumerate(shells)]


def _times(matrices: Sequence[Array], shells: Sequence[int], blocks: Array) -> Array:
    """Wigner matrices times the rows of the blocks, (bond, row, column)."""
    result = np.empty_like(blocks)
    for _, start, ang in _shells(shells):
        rows = slice(start, start + 2 * ang + 1)
        result[:, rows] = matrices[ang] @ blocks[:, rows]
    return result
