"""PairList: the ordered pairs of atoms (i, j, R) whose blocks a Hamiltonian has; atom i at home, atom j in cell R.

A molecule has R = 0 only. The list is closed under reversal, (i, j, R) <-> (j, i, -R), because H is hermitian; it starts with
the on-site pairs (i, i, 0) of all atoms in order, and goes on with all others sorted by (i, j, R). Self-images (i, i, R != 0)
are pairs like any other. Vectors point from i to j, in Å.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model.errors import StructureError
from model.structure import Structure


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
    def of(
        cls, structure: Structure, first: NDArray[np.int64], second: NDArray[np.int64], shift: NDArray[np.int64]
    ) -> PairList:
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
        first, second = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
        shift = np.asarray(shift, dtype=np.int64).reshape(-1, 3)
        if len(first) and (min(first.min(), second.min()) < 0 or max(first.max(), second.max()) >= n_atoms):
            raise StructureError(f"A pair names an atom beyond the {n_atoms} atoms of the structure.")
        if structure.cell_angstrom is None and shift.any():
            raise StructureError("A pair has a lattice shift, but the structure has no cell.")
        keys = np.column_stack([first, second, shift])
        if len(np.unique(keys, axis=0)) != len(keys):
            raise StructureError("The same pair of atoms stands there twice.")
        off_site = keys[(first != second) | shift.any(axis=1)]
        reverse = np.column_stack([off_site[:, 1], off_site[:, 0], -off_site[:, 2:]])
        off_site = np.unique(np.concatenate([off_site, reverse]), axis=0)
        atoms = np.arange(n_atoms)
        on_site = np.column_stack([atoms, atoms, np.zeros((n_atoms, 3), dtype=np.int64)])
        return cls._of_keys(structure, np.concatenate([on_site, off_site]))

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
        return cls.of(structure, first, second, shift)

    @classmethod
    def _of_keys(cls, structure: Structure, keys: NDArray[np.int64]) -> PairList:
        first, second, shift = keys[:, 0], keys[:, 1], keys[:, 2:]
        positions = structure.positions_angstrom
        vectors = positions[second] - positions[first]
        if structure.cell_angstrom is not None:
            vectors = vectors + shift @ structure.cell_angstrom
        return cls(len(structure), first, second, shift, vectors)

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
        keys, n_atoms = self.keys, self.n_atoms
        backward = np.column_stack([keys[:, 1], keys[:, 0], -keys[:, 2:]])
        # off-site pairs are sorted by (i, j, R), so the k-th smallest backward key belongs to the k-th pair
        order = np.lexsort(backward[n_atoms:].T[::-1])
        if not np.array_equal(backward[n_atoms:][order], keys[n_atoms:]):
            raise StructureError("A pair of atoms stands there without its reverse, or the pairs are not sorted.")
        found = np.arange(len(keys))
        found[n_atoms:] = n_atoms + np.argsort(order)
        return found

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
