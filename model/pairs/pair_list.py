"""PairList: the ordered pairs of atoms (i, j, R) whose blocks a Hamiltonian has; atom i at home, atom j in cell R.

A molecule has R = 0 only. The list is closed under reversal, (i, j, R) <-> (j, i, -R), because H is hermitian; it starts with
the on-site pairs (i, i, 0) of all atoms in order, and goes on with all others sorted by (i, j, R). Self-images (i, i, R != 0)
are pairs like any other. Vectors point from i to j, in Å.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.errors import StructureError
from model.structure import Structure

DENSE_SEARCH_ATOMS: Final = 128
"""Molecules up to this size are searched by all distances: ten times faster than cell lists at 9 atoms, equal at some 200."""

MAXIMUM_SHIFT: Final = 512
"""Cells that a pair may span along one lattice vector; with it pairs of 90,000 atoms still have 64-bit codes."""


@dataclass(frozen=True, eq=False)
class PairList:
    """Pairs of one structure.

    Attributes:
        n_atoms: number of atoms; the first so many pairs are on-site.
        first, second: atoms i and j, (pair,).
        shift: R in lattice vectors, (pair, 3).
        vectors_angstrom: r_j + R cell - r_i, (pair, 3).

    Raises:
        StructureError: a pair that stands there twice, or without its reverse, or an atom without its on-site pair.
    """

    n_atoms: int
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    shift: NDArray[np.int64]
    vectors_angstrom: NDArray[np.float64]

    @classmethod
    def of(cls, structure: Structure, first: ArrayLike, second: ArrayLike, shift: ArrayLike) -> PairList:
        """A list from any set of pairs of a structure: sorted, made complete under reversal, with all on-site pairs.

        Args:
            structure: gives positions and cell.
            first, second: atoms, (pair,).
            shift: lattice vectors, (pair, 3).

        Raises:
            StructureError: an atom that does not exist, a shift along a direction without a lattice vector, or the same
                pair twice.
        """
        n_atoms = len(structure)
        i, j = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
        r = np.asarray(shift, dtype=np.int64).reshape(-1, 3)
        if len(i) and (min(i.min(), j.min()) < 0 or max(i.max(), j.max()) >= n_atoms):
            raise StructureError(f"A pair names an atom beyond the {n_atoms} atoms of the structure.")
        if structure.cell_angstrom is None and r.any():
            raise StructureError("A pair has a lattice shift, but the structure has no cell.")
        codes = _codes(n_atoms, i, j, r)
        if len(np.unique(codes)) != len(codes):
            raise StructureError("The same pair of atoms stands there twice.")
        off_site = (i != j) | r.any(axis=1)
        i, j, r = i[off_site], j[off_site], r[off_site]
        i, j, r = np.concatenate([i, j]), np.concatenate([j, i]), np.concatenate([r, -r])
        _, chosen = np.unique(_codes(n_atoms, i, j, r), return_index=True)
        return cls._sorted(structure, i[chosen], j[chosen], r[chosen])

    @classmethod
    def complete(cls, structure: Structure) -> PairList:
        """Every pair of a molecule's atoms, however far apart."""
        n_atoms = len(structure)
        i, j = np.nonzero(~np.eye(n_atoms, dtype=bool))
        first, second = np.concatenate([np.arange(n_atoms), i]), np.concatenate([np.arange(n_atoms), j])
        positions = structure.positions_angstrom
        shift = np.zeros((len(first), 3), dtype=np.int64)
        return cls(n_atoms, first, second, shift, positions[second] - positions[first])

    @classmethod
    def within(cls, structure: Structure, cutoff_angstrom: float | Callable[[int, int], float]) -> PairList:
        """Pairs within a cutoff, images included; time and memory grow linearly with the atoms.

        Args:
            structure: molecule or crystal.
            cutoff_angstrom: one for all pairs, or a symmetric function of the two atomic numbers.
        """
        if not callable(cutoff_angstrom) and not structure.is_periodic and len(structure) <= DENSE_SEARCH_ATOMS:
            pairs = cls.complete(structure)
            near = pairs.distances_angstrom < cutoff_angstrom
            return pairs.take(np.flatnonzero(near))
        from model.pairs.neighbours import neighbours

        if callable(cutoff_angstrom):
            elements = np.unique(structure.numbers)
            table = np.zeros((elements.max() + 1,) * 2)
            for a in elements:
                for b in elements:
                    table[a, b] = cutoff_angstrom(int(a), int(b))
            longest = float(table.max())
        else:
            table, longest = None, cutoff_angstrom
        first, second, shift, distance = neighbours(structure, longest)
        if table is not None:
            near = distance < table[structure.numbers[first], structure.numbers[second]]
            first, second, shift = first[near], second[near], shift[near]
        order = np.argsort(_codes(len(structure), first, second, shift))
        return cls._sorted(structure, first[order], second[order], shift[order])

    @classmethod
    def _sorted(
        cls, structure: Structure, first: NDArray[np.int64], second: NDArray[np.int64], shift: NDArray[np.int64]
    ) -> PairList:
        """From off-site pairs that are closed under reversal and sorted."""
        atoms = np.arange(len(structure))
        first, second = np.concatenate([atoms, first]), np.concatenate([atoms, second])
        shift = np.concatenate([np.zeros((len(atoms), 3), dtype=np.int64), shift])
        positions = structure.positions_angstrom
        vectors = positions[second] - positions[first]
        if structure.cell_angstrom is not None:
            vectors = vectors + shift @ structure.cell_angstrom
        return cls(len(atoms), first, second, shift, vectors)

    def __len__(self) -> int:
        return len(self.first)

    @property
    def keys(self) -> NDArray[np.int64]:
        """(i, j, R1, R2, R3) of each pair, (pair, 5)."""
        return np.column_stack([self.first, self.second, self.shift])

    @property
    def is_molecular(self) -> bool:
        """Whether all pairs lie in the cell at home."""
        return not self.shift.any()

    @cached_property
    def distances_angstrom(self) -> NDArray[np.float64]:
        """Length of each pair, (pair,); 0 on-site."""
        return np.asarray(np.linalg.norm(self.vectors_angstrom, axis=1))

    @cached_property
    def reverse(self) -> NDArray[np.int64]:
        """Index of the pair (j, i, -R) of each pair, (pair,); an on-site pair is its own."""
        n_atoms = self.n_atoms
        i, j, r = self.first[n_atoms:], self.second[n_atoms:], self.shift[n_atoms:]
        forward, backward = _codes(n_atoms, i, j, r), _codes(n_atoms, j, i, -r)
        place = np.searchsorted(forward, backward).clip(max=max(0, len(forward) - 1))
        if len(forward) and not np.array_equal(forward[place], backward):
            raise StructureError("A pair of atoms stands there without its reverse, or the pairs are not sorted.")
        return np.concatenate([np.arange(n_atoms), n_atoms + place])

    def find(self, others: PairList) -> NDArray[np.int64]:
        """Index in this list of each pair of another list of the same atoms, -1 where it is not here, (pair of others,)."""
        own = _codes(self.n_atoms, self.first, self.second, self.shift)
        wanted = _codes(self.n_atoms, others.first, others.second, others.shift)
        order = np.argsort(own)
        place = order[np.searchsorted(own, wanted, sorter=order).clip(max=len(own) - 1)]
        return np.where(own[place] == wanted, place, -1)

    def once(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices of the off-site pairs that a network computes when it makes use of hermiticity, in order, (listed,).

        Of two unlike atoms the pair whose first atom has the larger atomic number, of two like atoms both directions (their
        blocks are averaged with each other's adjoint). The choice depends on elements only, so the order of atoms never
        changes the answer.

        Args:
            numbers: atomic numbers, (atom,).
        """
        first, second = self.first[self.n_atoms :], self.second[self.n_atoms :]
        return self.n_atoms + np.flatnonzero(numbers[first] >= numbers[second])

    def take(self, indices: NDArray[np.int64]) -> PairList:
        """Some of the pairs, in the given order; need not be closed under reversal any more.

        For batches of a network's own pairs; ``reverse`` and ``once`` are for whole lists.
        """
        return PairList(
            self.n_atoms, self.first[indices], self.second[indices], self.shift[indices], self.vectors_angstrom[indices]
        )


def _codes(
    n_atoms: int, first: NDArray[np.int64], second: NDArray[np.int64], shift: NDArray[np.int64]
) -> NDArray[np.int64]:
    """One number for each pair that sorts as (i, j, R) does, (pair,)."""
    if len(shift) and np.abs(shift).max() > MAXIMUM_SHIFT:
        raise StructureError(f"A pair spans more than {MAXIMUM_SHIFT} cells; the cell is far too small for the cutoff.")
    width = 2 * MAXIMUM_SHIFT + 1
    code = first * n_atoms + second
    for axis in range(3):
        code = code * width + (shift[:, axis] + MAXIMUM_SHIFT)
    return np.asarray(code)
