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

from model.blocks.block_set import MOST_STACKED, BlockSet, block_entries, block_starts, stacks
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

    @property
    def shape(self) -> tuple[int, int]:
        """Orbitals of the two atoms."""
        return len(self.rows), len(self.columns)


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
        """The items, stacked by elements, at most ``block_set.MOST_STACKED`` together."""
        return tuple(self._groups())

    def _groups(self) -> Iterator[TemplateGroup]:
        pairs = np.concatenate([np.arange(self.pairs.n_atoms), self.listed])
        first, second = self.numbers[self.pairs.first[pairs]], self.numbers[self.pairs.second[pairs]]
        codes = (first * 1000 + second) * 2
        codes[: self.pairs.n_atoms] += 1  # on-site blocks are a group of their own
        for items in stacks(codes):
            row_element, column_element = divmod(int(codes[items[0]]) // 2, 1000)
            rows, row_signs = self.space.template_places[row_element]
            columns, column_signs = self.space.template_places[column_element]
            signs = np.outer(row_signs, column_signs)
            averaged = row_element == column_element
            yield TemplateGroup(items, pairs[items], rows, columns, signs if (signs < 0).any() else None, averaged)

    def cut(self, matrices: NDArray[np.float64]) -> NDArray[np.float64]:
        """Template blocks of some matrices of a molecule, absent shells zero.

        A row of atoms at a time is spread out so that every atom has the template's rows and columns; then blocks are slices.

        Args:
            matrices: (matrix, ao, ao).

        Returns:
            (item, matrix, template row, template column).
        """
        size, n_atoms, offsets = self.space.template_size, len(self.numbers), self.space.atom_offsets(self.numbers)
        places = [self.space.template_places[number] for number in self.numbers.tolist()]
        slot = np.concatenate([atom * size + rows for atom, (rows, _) in enumerate(places)])
        sign = np.concatenate([signs for _, signs in places])
        pairs = np.concatenate([np.arange(n_atoms), self.listed])
        first, second = self.pairs.first[pairs], self.pairs.second[pairs]
        blocks = np.empty((self.n_items, len(matrices), size, size))
        step = max(1, MOST_STACKED // n_atoms)
        for start in range(0, n_atoms, step):
            end = min(start + step, n_atoms)
            orbitals = slice(offsets[start], offsets[end])
            spread = np.zeros((len(matrices), (end - start) * size, n_atoms * size))
            entries = matrices[:, orbitals]
            if (sign < 0).any():
                entries = entries * sign[orbitals, None] * sign
            spread[:, slot[orbitals, None] - start * size, slot] = entries
            items = np.flatnonzero((first >= start) & (first < end))
            by_atoms = spread.reshape(len(matrices), end - start, size, n_atoms, size)
            blocks[items] = by_atoms[:, first[items] - start, :, second[items]]
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
            self._put(result, group, entries[:, block_entries(self.starts[group.pairs], group.shape)])
        return result

    def to_blocks(self, blocks: NDArray[np.float64], block_space: BlockSpace) -> BlockSet:
        """The hermitian BlockSet of a network's template blocks.

        Args:
            blocks: (item, component, template row, template column).
            block_space: gives the components their meaning.
        """
        starts, reverse = self.starts, self.pairs.reverse
        entries = np.empty((blocks.shape[1], int(starts[-1])))
        adjoint = block_space.adjoint_sign[:, None, None]
        item_of_pair = np.full(len(self.pairs), -1)
        for group in self.groups:
            item_of_pair[group.pairs] = group.items
        for group in self.groups:
            direct = blocks[group.items]
            if group.averaged:
                partner = blocks[item_of_pair[reverse[group.pairs]]]
                direct = 0.5 * (direct + adjoint * partner.swapaxes(2, 3))
            direct = direct[:, :, group.rows[:, None], group.columns]
            if group.signs is not None:
                direct = direct * group.signs
            direct = direct.swapaxes(0, 1)
            entries[:, block_entries(starts[group.pairs], group.shape)] = direct
            if not group.averaged:
                place = block_entries(starts[reverse[group.pairs]], group.shape[::-1])
                entries[:, place] = adjoint[:, None] * direct.swapaxes(2, 3)
        return BlockSet(self.space, self.numbers, self.pairs, block_space.to_values(entries), block_space.spin)

    @staticmethod
    def _put(blocks: NDArray[np.float64], group: TemplateGroup, entries: NDArray[np.float64]) -> None:
        """Write entries (part, item, orbital, orbital) into template blocks."""
        signed = entries if group.signs is None else entries * group.signs
        place = group.items[:, None, None], slice(None), group.rows[:, None], group.columns
        blocks[place] = signed.transpose(1, 2, 3, 0)
