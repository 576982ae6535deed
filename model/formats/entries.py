"""Sparse entries (orbital, orbital, cell) <-> BlockSet: how ABACUS and SIESTA store matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import SPIN_PARTS, BlockSet, Spin, Values
from model.errors import DamagedFileError
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import Structure


@dataclass(frozen=True, eq=False)
class Entries:
    """Entries of a matrix, one spin part or all of them.

    Attributes:
        rows, columns: orbitals of the cell at home and of the other cell, (entry,).
        cell: which cell the column lies in, an index of ``cells``, (entry,).
        cells: lattice shifts, (cell, 3), none twice.
        values: (spin part, entry).
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    cell: NDArray[np.int64]
    cells: NDArray[np.int64]
    values: Values

    @property
    def occupied(self) -> NDArray[np.int64]:
        """Lattice shifts that have entries, (cell, 3)."""
        return np.asarray(self.cells[np.unique(self.cell)])


def blocks_of_entries(space: OrbitalSpace, structure: Structure, entries: Entries, spin: Spin, where: str) -> BlockSet:
    """A BlockSet on the pairs that have entries, closed under reversal; what is not stored is zero.

    Raises:
        DamagedFileError: an orbital that does not exist, or the same entry twice.
    """
    offsets = space.atom_offsets(structure.numbers)
    n_orbitals, n_atoms = int(offsets[-1]), len(structure)
    for side in (entries.rows, entries.columns):
        if len(side) and (side.min() < 0 or side.max() >= n_orbitals):
            raise DamagedFileError(f"{where}: an entry names an orbital beyond the {n_orbitals} of the structure.")
    if len(np.unique(entries.cells, axis=0)) != len(entries.cells):
        raise DamagedFileError(f"{where}: a lattice vector R stands there twice.")
    atom = np.repeat(np.arange(n_atoms), np.diff(offsets))
    first, second = atom[entries.rows], atom[entries.columns]
    code = (entries.cell * n_atoms + first) * n_atoms + second
    listed, pair_of_entry = np.unique(code, return_inverse=True)
    keys = np.column_stack(
        [listed // n_atoms % n_atoms, listed % n_atoms, entries.cells[listed // n_atoms**2].reshape(-1, 3)]
    )
    pairs = PairList.of(structure, keys[:, 0], keys[:, 1], keys[:, 2:])
    made = BlockSet.zeros(space, structure.numbers, pairs, spin)
    index = {tuple(key): pair for pair, key in enumerate(pairs.keys.tolist())}
    pair = np.array([index[tuple(key)] for key in keys.tolist()], dtype=np.int64)[pair_of_entry]
    place = made.starts[pair] + (entries.rows - offsets[first]) * np.diff(offsets)[second]
    place += entries.columns - offsets[second]
    if len(np.unique(place)) != len(place):
        raise DamagedFileError(f"{where}: the same entry stands there twice.")
    values = np.zeros((SPIN_PARTS[spin], made.values.shape[1]), dtype=made.values.dtype)
    values[:, place] = entries.values
    return made.with_values(values)


def entries_of_blocks(blocks: BlockSet) -> Entries:
    """All entries of a BlockSet, zeros too; cells sorted, entries by cell, row and column."""
    offsets, pairs = blocks.atom_offsets, blocks.pairs
    cells, cell_of_pair = np.unique(pairs.shift, axis=0, return_inverse=True)
    size = blocks.values.shape[1]
    rows, columns = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
    for group in blocks.groups:
        n_rows, n_columns = group.shape
        rows[group.entries] = offsets[pairs.first[group.pairs]][:, None, None] + np.arange(n_rows)[:, None]
        columns[group.entries] = offsets[pairs.second[group.pairs]][:, None, None] + np.arange(n_columns)
    cell = np.repeat(cell_of_pair.reshape(-1), np.diff(blocks.starts))
    order = np.lexsort((columns, rows, cell))
    return Entries(rows[order], columns[order], cell[order], cells, blocks.values[:, order])
