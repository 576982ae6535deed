"""Template blocks <-> matrices and BlockSets of one structure.

A network computes blocks of one shape: template rows by template columns in the standard order, absent shells without
meaning, of all atoms (on-site), then of the listed pairs (``PairList.once``). Each has one or more real components
(``model.blocks.spaces``; one for restricted matrices). A ``TemplateMap`` knows where the real entries are. What the network
does not compute follows from hermiticity; where it computes both a block and its reverse, the two are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet, block_starts
from model.blocks.spaces import BlockSpace
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList


@dataclass(frozen=True, eq=False)
class TemplateGroup:
    """Items (on-site blocks and listed pairs) whose atoms are of the same elements.

    Attributes:
        items: index of each among the network's blocks, (item,).
        pairs: index of each in the pair list, (item,).
        rows, columns: template row and column of each orbital, (orbital,).
        signs: of the entries against the standard order, (orbital, orbital); None if all are plus.
        averaged: whether the reverse of each is computed too.
    """

    items: NDArray[np.int64]
    pairs: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    signs: NDArray[np.float64] | None
    averaged: bool


@dataclass(frozen=True, eq=False)
class TemplateMap:
    """Where the entries of one structure's matrix are among its template blocks.

    Attributes:
        space: the orbitals; matrices have its order.
        numbers: atomic numbers, (atom,).
        pairs: all pairs with blocks.
    """

    space: OrbitalSpace
    numbers: NDArray[np.int64]
    pairs: PairList

    @cached_property
    def listed(self) -> NDArray[np.int64]:
        """Pairs whose off-site blocks are computed, (listed,)."""
        return self.pairs.once(self.numbers)

    @property
    def n_items(self) -> int:
        """Blocks that a network computes."""
        return self.pairs.n_atoms + len(self.listed)

    @cached_property
    def groups(self) -> tuple[TemplateGroup, ...]:
        """The items, stacked by elements."""
        return tuple(self._groups())

    def _groups(self) -> Iterator[TemplateGroup]:
        pairs = np.concatenate([np.arange(self.pairs.n_atoms), self.listed])
        first, second = self.numbers[self.pairs.first[pairs]], self.numbers[self.pairs.second[pairs]]
        codes = (first * 1000 + second) * 2
        codes[: self.pairs.n_atoms] += 1  # on-site blocks are a group of their own
        for code in np.unique(codes).tolist():
            items = np.flatnonzero(codes == code)
            row_element, column_element = divmod(code // 2, 1000)
            rows, row_signs = self.space.template_places[row_element]
            columns, column_signs = self.space.template_places[column_element]
            signs = np.outer(row_signs, column_signs)
            averaged = row_element == column_element
            yield TemplateGroup(items, pairs[items], rows, columns, signs if (signs < 0).any() else None, averaged)

    def cut(self, matrices: NDArray[np.float64]) -> NDArray[np.float64]:
        """Template blocks of some matrices of a molecule, absent shells zero.

        Args:
            matrices: (matrix, ao, ao).

        Returns:
            (item, matrix, template row, template column).
        """
        size = self.space.template_size
        offsets = self.space.atom_offsets(self.numbers)
        blocks = np.zeros((self.n_items, len(matrices), size, size))
        for group in self.groups:
            rows = offsets[self.pairs.first[group.pairs]][:, None, None] + np.arange(len(group.rows))[:, None]
            columns = offsets[self.pairs.second[group.pairs]][:, None, None] + np.arange(len(group.columns))
            entries = matrices[:, rows, columns]
            self._put(blocks, group, entries)
        return blocks

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """First entry of each block of a BlockSet with these pairs, (pair + 1,)."""
        return block_starts(self.space, self.numbers, self.pairs)

    def of_entries(self, entries: NDArray[np.float64]) -> NDArray[np.float64]:
        """Template blocks of real entries that lie as a BlockSet's do.

        Args:
            entries: (component, entry).

        Returns:
            (item, component, template row, template column), absent shells zero.
        """
        size = self.space.template_size
        result = np.zeros((self.n_items, len(entries), size, size))
        for group in self.groups:
            shape = len(group.rows), len(group.columns)
            inside = np.arange(shape[0] * shape[1]).reshape(shape)
            self._put(result, group, entries[:, self.starts[group.pairs][:, None, None] + inside])
        return result

    def to_blocks(self, blocks: NDArray[np.float64], block_space: BlockSpace) -> BlockSet:
        """The hermitian BlockSet of a network's template blocks.

        Args:
            blocks: (item, component, template row, template column).
            block_space: gives the components their meaning.
        """
        starts, reverse = self.starts, self.pairs.reverse
        entries = np.zeros((blocks.shape[1], int(starts[-1])))
        adjoint = block_space.adjoint_sign[:, None, None, None]
        item_of_pair = np.full(len(self.pairs), -1)
        for group in self.groups:
            item_of_pair[group.pairs] = group.items
        for group in self.groups:
            direct = self._take(blocks, group, group.items)
            if group.averaged:
                partner = self._take(blocks, group, item_of_pair[reverse[group.pairs]])
                direct = 0.5 * (direct + adjoint * partner.swapaxes(2, 3))
            shape = len(group.rows), len(group.columns)
            inside = np.arange(shape[0] * shape[1])
            entries[:, starts[group.pairs][:, None, None] + inside.reshape(shape)] = direct
            if not group.averaged:
                place = starts[reverse[group.pairs]][:, None, None] + inside.reshape(shape[::-1])
                entries[:, place] = adjoint * direct.swapaxes(2, 3)
        return BlockSet(self.space, self.numbers, self.pairs, block_space.to_values(entries), block_space.spin)

    @staticmethod
    def _put(blocks: NDArray[np.float64], group: TemplateGroup, entries: NDArray[np.float64]) -> None:
        """Write entries (part, item, orbital, orbital) into template blocks."""
        signed = entries if group.signs is None else entries * group.signs
        place = group.items[:, None, None], slice(None), group.rows[:, None], group.columns
        blocks[place] = signed.transpose(1, 2, 3, 0)

    @staticmethod
    def _take(blocks: NDArray[np.float64], group: TemplateGroup, items: NDArray[np.int64]) -> NDArray[np.float64]:
        """Entries of template blocks, (part, item, orbital, orbital)."""
        entries = blocks[items[:, None, None], :, group.rows[:, None], group.columns].transpose(3, 0, 1, 2)
        return entries if group.signs is None else entries * group.signs
