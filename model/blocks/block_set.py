"""BlockSet: the product of the model, of labels and of files: the blocks H(R) of a matrix between the orbitals of two atoms.

    H_ij(R) = <orbitals of atom i at home | H | orbitals of atom j in cell R>,    H_ji(-R) = H_ij(R)^dagger

A molecule is R = 0. Matrices at Gamma or at k are derived from it (``model.blocks.matrices``). Blocks have the true number of
rows and columns of their two atoms and lie one after the other in one flat array, row by row.

Spin: ``restricted`` has one part, ``unrestricted`` two (alpha, beta), ``spinor`` four (uu, ud, du, dd; complex), the first
letter the spin of the row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from model.errors import StructureError
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList

Spin = Literal["restricted", "unrestricted", "spinor"]
SPIN_PARTS: Final[dict[str, int]] = {"restricted": 1, "unrestricted": 2, "spinor": 4}
SHARED_PARTS: Final[dict[str, tuple[int, ...]]] = {"restricted": (0,), "unrestricted": (0, 1), "spinor": (0, 3)}
"""Spin parts in which a matrix that does not touch spin, such as the overlap, is not zero: of spinors uu and dd."""
MOST_STACKED: Final = 1024
"""Blocks handled together: what is done to them stays in the processor's cache, and indices never take as much memory as a
large molecule's matrix."""
Values = NDArray[Any]
"""float64, or complex128 for spinors."""


@dataclass(frozen=True, eq=False)
class BlockGroup:
    """Pairs whose two atoms are of the same elements, so that their blocks stack.

    Attributes:
        rows, columns: atomic number of the first and of the second atom.
        pairs: indices of the pairs, (item,).
        starts: first entry of each block, (item,).
        shape: orbitals of i and of j.
    """

    rows: int
    columns: int
    pairs: NDArray[np.int64]
    starts: NDArray[np.int64]
    shape: tuple[int, int]

    @property
    def entries(self) -> NDArray[np.int64]:
        """Flat position of each entry, (item, orbital of i, orbital of j)."""
        return block_entries(self.starts, self.shape)


@dataclass(frozen=True, eq=False)
class BlockSet:
    """Blocks of one structure.

    Attributes:
        space: the orbitals; ``space.order`` is their order and signs.
        numbers: atomic numbers, (atom,).
        pairs: which blocks there are, closed under reversal.
        values: (spin part, entry), hartree for a Hamiltonian; complex for spinors.
        spin: spin treatment.

    Raises:
        StructureError: numbers, pairs and values that do not fit each other.
    """

    space: OrbitalSpace
    numbers: NDArray[np.int64]
    pairs: PairList
    values: Values
    spin: Spin = "restricted"

    def __post_init__(self) -> None:
        expected = (SPIN_PARTS[self.spin], int(self.starts[-1]))
        if len(self.numbers) != self.pairs.n_atoms or self.values.shape != expected:
            raise StructureError(
                f"Blocks of {self.pairs.n_atoms} atoms need values of shape {expected}, not {self.values.shape}."
            )

    @classmethod
    def zeros(
        cls, space: OrbitalSpace, numbers: NDArray[np.int64], pairs: PairList, spin: Spin = "restricted"
    ) -> BlockSet:
        """All entries zero."""
        size = int(block_starts(space, numbers, pairs)[-1])
        dtype = np.complex128 if spin == "spinor" else np.float64
        return cls(space, numbers, pairs, np.zeros((SPIN_PARTS[spin], size), dtype=dtype), spin)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """First entry of each block and, last, the number of entries, (pair + 1,)."""
        return block_starts(self.space, self.numbers, self.pairs)

    @cached_property
    def atom_offsets(self) -> NDArray[np.int64]:
        """First orbital of each atom and, last, the number of orbitals of a cell, (atom + 1,)."""
        return self.space.atom_offsets(self.numbers)

    @property
    def n_orbitals(self) -> int:
        """Orbitals of a cell, without spin."""
        return int(self.atom_offsets[-1])

    def block(self, pair: int) -> Values:
        """One block, (spin part, orbital of i, orbital of j); a view."""
        sizes = self.space.orbitals_of_element
        rows, columns = (sizes[int(self.numbers[atom[pair]])] for atom in (self.pairs.first, self.pairs.second))
        return self.values[:, self.starts[pair] : self.starts[pair + 1]].reshape(-1, rows, columns)

    def __iter__(self) -> Iterator[Values]:
        return (self.block(pair) for pair in range(len(self.pairs)))

    @cached_property
    def groups(self) -> tuple[BlockGroup, ...]:
        """The blocks, stacked by the elements of their two atoms, at most ``MOST_STACKED`` together."""
        sizes = self.space.orbitals_of_element
        rows, columns = self.numbers[self.pairs.first], self.numbers[self.pairs.second]
        found = []
        for members in stacks(rows * 1000 + columns):
            row, column = int(rows[members[0]]), int(columns[members[0]])
            found.append(BlockGroup(row, column, members, self.starts[members], (sizes[row], sizes[column])))
        return tuple(found)

    def with_values(self, values: Values) -> BlockSet:
        """The same blocks with other entries, (spin part, entry)."""
        return replace(self, values=values)

    def adjoint_entries(self) -> NDArray[np.int64]:
        """Flat position of the entry (b, a) of the reverse block for each entry (a, b), (entry,)."""
        place = np.empty(self.values.shape[1], dtype=np.int64)
        for group in self.groups:
            reverse = self.starts[self.pairs.reverse[group.pairs]]
            place[group.entries] = block_entries(reverse, group.shape[::-1]).swapaxes(1, 2)
        return place

    def adjoint(self) -> BlockSet:
        """The hermitian conjugate: block (i, j, R) is that of (j, i, -R), conjugated and transposed, spin included."""
        values = self.values[:, self.adjoint_entries()].conj()
        if self.spin == "spinor":
            values = values[[0, 2, 1, 3]]
        return self.with_values(values)

    def hermitian_error(self) -> float:
        """Largest |H - H^dagger|."""
        return float(np.abs(self.values - self.adjoint().values).max(initial=0.0))

    def hermitised(self) -> BlockSet:
        """Half of the sum with the adjoint."""
        return self.with_values(0.5 * (self.values + self.adjoint().values))

    def in_order(self, order: str) -> BlockSet:
        """The same matrix in another program's orbital order and signs.

        Raises:
            UnsupportedBasisError: an order that no table knows.
        """
        if order == self.space.order:
            return self
        space = replace(self.space, order=order)
        values = np.empty_like(self.values)
        for group in self.groups:
            row, row_sign = _between(self.space, space, group.rows)
            column, column_sign = _between(self.space, space, group.columns)
            source = group.entries[:, row[:, None], column[None, :]]
            values[:, group.entries] = self.values[:, source] * (row_sign[:, None] * column_sign[None, :])
        return BlockSet(space, self.numbers, self.pairs, values, self.spin)

    def without_spin(self) -> BlockSet:
        """The part that is the same for both spins, restricted: the mean of the two spins' blocks, real."""
        shared = self.values[list(SHARED_PARTS[self.spin])].mean(axis=0).real
        return BlockSet(self.space, self.numbers, self.pairs, np.ascontiguousarray(shared[None]))

    def plus_shared(self, other: BlockSet, factor: float = 1.0) -> BlockSet:
        """Self + factor times a matrix that does not touch spin.

        Args:
            other: restricted, of the same orbitals and order; on other pairs its blocks are zero, or left out.
            factor: of it.
        """
        values = self.values.copy()
        values[list(SHARED_PARTS[self.spin])] += factor * other.on_pairs(self.pairs).values[0]
        return self.with_values(values)

    def on_pairs(self, pairs: PairList) -> BlockSet:
        """The same matrix on other pairs of the same atoms: blocks that are missing are zero, others are left out."""
        other = BlockSet.zeros(self.space, self.numbers, pairs, self.spin)
        place = self.pairs.find(pairs)
        values = other.values.astype(self.values.dtype)
        for group in other.groups:
            there = place[group.pairs] >= 0
            source = block_entries(self.starts[place[group.pairs[there]]], group.shape)
            values[:, group.entries[there]] = self.values[:, source]
        return other.with_values(values)


def stack_blocks(
    space: OrbitalSpace,
    numbers: NDArray[np.int64],
    pairs: PairList,
    blocks: Sequence[Values],
    spin: Spin = "restricted",
) -> BlockSet:
    """A BlockSet from one array per pair, (spin part, row, column) or, for one spin part, (row, column).

    Raises:
        StructureError: a block that does not have its atoms' numbers of orbitals.
    """
    sizes = np.diff(space.atom_offsets(numbers))
    parts = SPIN_PARTS[spin]
    flat = []
    for pair, block in enumerate(blocks):
        i, j = int(pairs.first[pair]), int(pairs.second[pair])
        expected = (parts, int(sizes[i]), int(sizes[j]))
        shaped = block[None] if block.ndim == 2 else block
        if shaped.shape != expected:
            raise StructureError(
                f"The block of atoms {i} and {j} has the shape {shaped.shape}; its orbitals need {expected}."
            )
        flat.append(shaped.reshape(parts, -1))
    dtype = np.complex128 if spin == "spinor" else np.float64
    return BlockSet(space, numbers, pairs, np.concatenate(flat, axis=1).astype(dtype, copy=False), spin)


def block_starts(space: OrbitalSpace, numbers: NDArray[np.int64], pairs: PairList) -> NDArray[np.int64]:
    """First entry of each block in the flat array and, last, the number of entries, (pair + 1,)."""
    sizes = np.diff(space.atom_offsets(numbers))
    counts = sizes[pairs.first] * sizes[pairs.second]
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def block_entries(starts: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
    """Flat position of each entry of blocks of one shape, (block, row, column)."""
    return starts[:, None, None] + np.arange(shape[0] * shape[1]).reshape(shape)


def stacks(kinds: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Indices of the items of each kind, kinds and items ascending, at most ``MOST_STACKED`` together.

    Args:
        kinds: (item,).
    """
    order = np.argsort(kinds, kind="stable")
    bounds = [0, *(np.flatnonzero(np.diff(kinds[order])) + 1).tolist(), len(order)]
    return [
        order[start : min(start + MOST_STACKED, end)]
        for first, end in pairwise(bounds)
        for start in range(first, end, MOST_STACKED)
    ]


def _between(source: OrbitalSpace, target: OrbitalSpace, number: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Position and sign in the source's order of each orbital of an element in the target's order."""
    forward, back = source.to_standard(number), target.to_standard(number).inverse()
    return forward.index[back.index], forward.sign[back.index] * back.sign
