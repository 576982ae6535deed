"""BlockSet -> matrix at Gamma or at k, dense or sparse, and a molecule's matrix -> BlockSet.

    H(k) = sum over R of exp(+2 pi i k.R) H(R),    k in units of the reciprocal lattice vectors

A spinor's matrix is (2 ao, 2 ao), spin outermost: [[uu, ud], [du, dd]].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from model.blocks.block_set import BlockGroup, BlockSet, Values
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList


def dense_matrix(blocks: BlockSet, k: Sequence[float] = (0.0, 0.0, 0.0)) -> Values:
    """Matrix at a k-point.

    Args:
        blocks: n orbitals a cell.
        k: fractional coordinates.

    Returns:
        (n, n) if restricted, (2, n, n) if unrestricted, (2n, 2n) for spinors; real at Gamma unless the blocks are complex.
    """
    if not blocks.pairs.is_molecular:
        return BlochSum(blocks)(k)
    n = blocks.n_orbitals
    matrix = np.zeros((len(blocks.values), n, n), dtype=blocks.values.dtype)
    for group in blocks.groups:
        rows, columns = rows_and_columns(blocks, group)
        matrix[:, rows, columns] = blocks.values[:, group.entries]
    return _joined(blocks, list(matrix), np.block)


class BlochSum:
    """Matrices of a crystal at many k-points: where each entry goes is worked out once.

    Args:
        blocks: n orbitals a cell.
    """

    def __init__(self, blocks: BlockSet) -> None:
        self.blocks = blocks
        n = blocks.n_orbitals
        place = np.empty(blocks.values.shape[1], dtype=np.int64)
        for group in blocks.groups:
            rows, columns = rows_and_columns(blocks, group)
            place[group.entries] = rows * n + columns
        self._shifts, of_pair = np.unique(blocks.pairs.shift, axis=0, return_inverse=True)
        of_entry = np.repeat(of_pair.ravel(), np.diff(blocks.starts))
        # a row for each place in the matrix, a column for each R: an entry meets its phase in one product
        shape = (n * n, len(self._shifts))
        self._sums = [scipy.sparse.csr_array((part, (place, of_entry)), shape=shape) for part in blocks.values]

    def __call__(self, k: Sequence[float] = (0.0, 0.0, 0.0)) -> Values:
        """Matrix at fractional k; shapes as in :func:`dense_matrix`."""
        n = self.blocks.n_orbitals
        phases = _phases(self._shifts, k) if np.any(k) else np.ones(len(self._shifts))
        return _joined(self.blocks, [_times(part, phases).reshape(n, n) for part in self._sums], np.block)


def _times(sums: Any, phases: NDArray[Any]) -> NDArray[Any]:
    """A sparse matrix times a vector; a real one times a complex vector as two real columns, which copies no matrix."""
    if phases.dtype.kind == "c" and sums.dtype.kind != "c":
        parts = np.ascontiguousarray(sums @ phases.view(np.float64).reshape(-1, 2))
        return parts.view(np.complex128)[:, 0]
    return np.asarray(sums @ phases)


def sparse_matrix(blocks: BlockSet, k: Sequence[float] = (0.0, 0.0, 0.0)) -> Any:
    """Matrix at a k-point as ``scipy.sparse.csr_array``; shapes as in :func:`dense_matrix`, unrestricted as a list of two."""
    values, n = blocks.values, blocks.n_orbitals
    if np.any(k) and not blocks.pairs.is_molecular:
        values = values * np.repeat(_phases(blocks.pairs.shift, k), np.diff(blocks.starts))
    row, column = np.empty(values.shape[1], dtype=np.int64), np.empty(values.shape[1], dtype=np.int64)
    for group in blocks.groups:
        row[group.entries], column[group.entries] = rows_and_columns(blocks, group)
    parts = [scipy.sparse.coo_array((part, (row, column)), shape=(n, n)).tocsr() for part in values]
    return _joined(blocks, parts, lambda rows: scipy.sparse.block_array(rows, format="csr"))


def cut_matrix(
    space: OrbitalSpace, numbers: NDArray[np.int64], pairs: PairList, matrix: NDArray[np.float64]
) -> BlockSet:
    """A molecule's matrix as blocks.

    Args:
        space: its order is the matrix's.
        numbers: atomic numbers.
        pairs: with R = 0 only.
        matrix: (ao, ao), or (2, ao, ao) for two spins.
    """
    stacked = matrix[None] if matrix.ndim == 2 else matrix
    empty = BlockSet.zeros(space, numbers, pairs, "restricted" if len(stacked) == 1 else "unrestricted")
    for group in empty.groups:
        rows, columns = rows_and_columns(empty, group)
        empty.values[:, group.entries] = stacked[:, rows, columns]
    return empty


def unpack_triangle(packed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Symmetric matrices (..., ao, ao) from their lower triangles by rows, (..., ao (ao + 1) / 2)."""
    orbital = np.arange(int((np.sqrt(8 * packed.shape[-1] + 1) - 1) / 2))
    row, column = np.maximum.outer(orbital, orbital), np.minimum.outer(orbital, orbital)
    return np.asarray(packed[..., row * (row + 1) // 2 + column])


def rows_and_columns(blocks: BlockSet, group: BlockGroup) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row (item, row, 1) and column (item, 1, column) in the matrix of a group's entries."""
    n_rows, n_columns = group.shape
    rows = blocks.atom_offsets[blocks.pairs.first[group.pairs]][:, None, None] + np.arange(n_rows)[:, None]
    return rows, blocks.atom_offsets[blocks.pairs.second[group.pairs]][:, None, None] + np.arange(n_columns)


def _phases(shifts: NDArray[np.int64], k: Sequence[float]) -> NDArray[np.complex128]:
    """exp(2 pi i k.R) of each R, (R, 3)."""
    return np.asarray(np.exp(2j * np.pi * (shifts @ np.asarray(k, dtype=np.float64))))


def _joined(blocks: BlockSet, parts: list[Any], block: Any) -> Any:
    if blocks.spin == "restricted":
        return parts[0]
    if blocks.spin == "unrestricted":
        return parts if scipy.sparse.issparse(parts[0]) else np.stack(parts)
    return block([parts[:2], parts[2:]])
