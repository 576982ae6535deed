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

from model.blocks.block_set import BlockSet, Values
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
    values = _with_phases(blocks, k)
    n = blocks.n_orbitals
    matrix = np.zeros((len(values), n, n), dtype=values.dtype)
    offsets, pairs = blocks.atom_offsets, blocks.pairs
    for group in blocks.groups:
        n_rows, n_columns = group.entries.shape[1:]
        rows = offsets[pairs.first[group.pairs]][:, None, None] + np.arange(n_rows)[:, None]
        columns = offsets[pairs.second[group.pairs]][:, None, None] + np.arange(n_columns)
        if pairs.is_molecular:
            matrix[:, rows, columns] = values[:, group.entries]
        else:  # several images of one pair of atoms add up
            for part, source in zip(matrix, values, strict=True):
                np.add.at(part, (rows, columns), source[group.entries])
    return _joined(blocks, list(matrix), np.block)


def sparse_matrix(blocks: BlockSet, k: Sequence[float] = (0.0, 0.0, 0.0)) -> Any:
    """Matrix at a k-point as ``scipy.sparse.csr_array``; shapes as in :func:`dense_matrix`, unrestricted as a list of two."""
    values = _with_phases(blocks, k)
    n = blocks.n_orbitals
    offsets, pairs = blocks.atom_offsets, blocks.pairs
    row, column = np.empty(values.shape[1], dtype=np.int64), np.empty(values.shape[1], dtype=np.int64)
    for group in blocks.groups:
        n_rows, n_columns = group.entries.shape[1:]
        row[group.entries] = offsets[pairs.first[group.pairs]][:, None, None] + np.arange(n_rows)[:, None]
        column[group.entries] = offsets[pairs.second[group.pairs]][:, None, None] + np.arange(n_columns)
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
    values, offsets = empty.values, empty.atom_offsets
    for group in empty.groups:
        n_rows, n_columns = group.entries.shape[1:]
        rows = offsets[pairs.first[group.pairs]][:, None, None] + np.arange(n_rows)[:, None]
        columns = offsets[pairs.second[group.pairs]][:, None, None] + np.arange(n_columns)
        values[:, group.entries] = stacked[:, rows, columns]
    return empty


def _with_phases(blocks: BlockSet, k: Sequence[float]) -> Values:
    """Entries times exp(2 pi i k.R) of their pair; as they are at Gamma."""
    if not np.any(k) or blocks.pairs.is_molecular:
        return blocks.values
    phases = np.exp(2j * np.pi * (blocks.pairs.shift @ np.asarray(k, dtype=np.float64)))
    return np.asarray(blocks.values * np.repeat(phases, np.diff(blocks.starts)))


def _joined(blocks: BlockSet, parts: list[Any], block: Any) -> Any:
    if blocks.spin == "restricted":
        return parts[0]
    if blocks.spin == "unrestricted":
        return parts if scipy.sparse.issparse(parts[0]) else np.stack(parts)
    return block([parts[:2], parts[2:]])
