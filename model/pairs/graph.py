"""AtomGraph: a batch of molecules as flat arrays of atoms, message edges and block pairs.

Two lists of ordered atom pairs:

* ``edge``: messages, source -> target, all ordered pairs within the cutoff;
* ``pair``: the off-diagonal blocks that are computed. H is symmetric, so of two unlike atoms only one ordered pair is
  listed, the one whose first atom has the larger atomic number; of two like atoms both are, and their blocks are
  averaged with each other's transpose. The choice depends on elements only, so atom order never changes the answer.

Diagonal blocks belong to atoms and need no list. Vectors point from first to second atom (or source to target), in Å.
Crystals will add a lattice shift to each pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.structure import Structure


@dataclass(frozen=True)
class AtomGraph:
    """A batch of molecules.

    Attributes:
        numbers: atomic numbers, (atom,), int64.
        molecule: which molecule each atom belongs to, (atom,), int64.
        edge_index: source and target, (2, edge), int64.
        edge_vectors: target less source, (edge, 3), Å.
        pair_index: row atom and column atom of each computed block, (2, pair), int64.
        pair_vectors: column atom less row atom, (pair, 3), Å.
        n_molecules: number of molecules.
    """

    numbers: Tensor
    molecule: Tensor
    edge_index: Tensor
    edge_vectors: Tensor
    pair_index: Tensor
    pair_vectors: Tensor
    n_molecules: int

    @property
    def n_atoms(self) -> int:
        return len(self.numbers)

    @property
    def n_pairs(self) -> int:
        return self.pair_index.shape[1]


def pair_list(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ordered pairs (row atom, column atom) of one molecule whose blocks are computed; shape (2, pair)."""
    row, column = np.nonzero(~np.eye(len(numbers), dtype=bool) & (numbers[:, None] >= numbers[None, :]))
    return np.stack([row, column])


def build_graph(
    structures: Sequence[Structure],
    *,
    cutoff_angstrom: float,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> AtomGraph:
    """Batch molecules into one graph.

    Args:
        structures: at least one molecule.
        cutoff_angstrom: longest message edge. Block pairs are always complete.
        dtype, device: of the vectors; distances are taken in float64 first.
    """
    numbers, molecule, edges, edge_vectors, pairs, pair_vectors = [], [], [], [], [], []
    offset = 0
    for index, structure in enumerate(structures):
        z, x = structure.numbers, structure.positions_angstrom
        difference = x[None, :, :] - x[:, None, :]
        near = (np.linalg.norm(difference, axis=-1) < cutoff_angstrom) & ~np.eye(len(z), dtype=bool)
        edge = np.stack(np.nonzero(near))
        pair = pair_list(z)
        numbers.append(z)
        molecule.append(np.full(len(z), index))
        edges.append(edge + offset)
        edge_vectors.append(difference[edge[0], edge[1]])
        pairs.append(pair + offset)
        pair_vectors.append(difference[pair[0], pair[1]])
        offset += len(z)

    def integers(parts: list[NDArray[np.int64]], axis: int) -> Tensor:
        return torch.from_numpy(np.concatenate(parts, axis=axis)).to(device)

    def reals(parts: list[NDArray[np.float64]]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(device=device, dtype=dtype)

    return AtomGraph(
        numbers=integers(numbers, 0),
        molecule=integers(molecule, 0),
        edge_index=integers(edges, 1),
        edge_vectors=reals(edge_vectors),
        pair_index=integers(pairs, 1),
        pair_vectors=reals(pair_vectors),
        n_molecules=len(structures),
    )
