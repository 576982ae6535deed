"""Blocks <-> matrix: where each entry of a molecule's matrix lives among the template blocks.

A batch's blocks are one array, diagonal blocks of all atoms first, then pair blocks in the order of
``AtomGraph.pair_index``, each (template row, template column) in e3nn order. A ``BlockMap`` holds, for one molecule,
the flat position of every matrix entry; gathering with it turns blocks into the symmetric matrix in PySCF order, and
scattering turns a matrix into blocks (absent shells are zero). This is the only assembler of the project: training,
evaluation and service use it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.orbitals.space import OrbitalSpace
from model.pairs.graph import pair_list


@dataclass(frozen=True)
class BlockMap:
    """Positions of one molecule's matrix entries in its own blocks.

    Attributes:
        n_atoms: number of diagonal blocks.
        pairs: row and column atom of each pair block, shape (2, pair).
        block: index of the block that holds each entry, shape (ao, ao); pair blocks are counted from ``n_atoms``.
        entry: position inside that block, row * template + column, shape (ao, ao).
        slot: atom * template + template row of each AO, in PySCF order, shape (ao,).
        template: rows of a template block.
    """

    n_atoms: int
    pairs: NDArray[np.int64]
    block: NDArray[np.int64]
    entry: NDArray[np.int64]
    slot: NDArray[np.int64]
    template: int

    @property
    def n_pairs(self) -> int:
        """Number of pair blocks."""
        return self.pairs.shape[1]

    @classmethod
    def of(cls, numbers: NDArray[np.int64], basis: OrbitalSpace) -> BlockMap:
        """Build for a molecule with these atomic numbers.

        Raises:
            UnsupportedElementError: an element that the basis does not list.
        """
        size = basis.template_size
        rows = [basis.template_rows(z) for z in numbers]
        slot = np.concatenate([atom * size + r for atom, r in enumerate(rows)])
        atom, row = np.divmod(slot, size)
        n_atoms = len(numbers)
        pairs = pair_list(numbers)
        listed = np.full((n_atoms, n_atoms), -1, dtype=np.int64)
        listed[np.arange(n_atoms), np.arange(n_atoms)] = np.arange(n_atoms)
        listed[pairs[0], pairs[1]] = n_atoms + np.arange(pairs.shape[1])
        direct = listed[atom[:, None], atom[None, :]]
        is_listed = direct >= 0
        block = np.where(is_listed, direct, listed.T[atom[:, None], atom[None, :]])
        entry = np.where(is_listed, row[:, None] * size + row[None, :], row[None, :] * size + row[:, None])
        return cls(n_atoms, pairs, block, entry, slot, size)

    def flat_index(self, atom_offset: int, pair_offset: int, total_atoms: int) -> NDArray[np.int64]:
        """Flat position of every entry in the blocks of a whole batch.

        Args:
            atom_offset, pair_offset: atoms and pairs of the molecules before this one.
            total_atoms: atoms of the batch: its pair blocks start there.

        Returns:
            shape (ao, ao), index into ``blocks.reshape(-1)``.
        """
        shift = np.where(self.block < self.n_atoms, atom_offset, total_atoms + pair_offset - self.n_atoms)
        return np.asarray((self.block + shift) * self.template**2 + self.entry)

    def split(self, matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Cut a matrix in PySCF order into template blocks.

        Args:
            matrix: shape (ao, ao).

        Returns:
            diagonal blocks (atom, row, column) and pair blocks (pair, row, column), e3nn order, absent shells zero.
        """
        size = self.template
        full = np.zeros((self.n_atoms * size, self.n_atoms * size))
        full[np.ix_(self.slot, self.slot)] = matrix
        blocks = full.reshape(self.n_atoms, size, self.n_atoms, size).transpose(0, 2, 1, 3)
        return blocks[np.arange(self.n_atoms), np.arange(self.n_atoms)], blocks[self.pairs[0], self.pairs[1]]


def gather(blocks: Tensor, index: Tensor) -> Tensor:
    """Matrix entries from blocks, made symmetric: shape of ``index``.

    Args:
        blocks: (block, row, column), all diagonal blocks of the batch, then all pair blocks.
        index: from :meth:`BlockMap.flat_index`, shape (..., ao, ao).
    """
    matrix = blocks.reshape(-1)[index]
    return 0.5 * (matrix + matrix.transpose(-1, -2))
