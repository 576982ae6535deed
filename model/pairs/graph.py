"""AtomGraph: a batch of structures as flat arrays of atoms, message edges and block pairs, for networks.

Two lists of ordered atom pairs:

* ``edge``: messages, source -> target, all pairs within the cutoff, images included;
* ``pair``: the off-site blocks that are computed (``PairList.once``): of two unlike atoms the pair whose first atom has the
  larger atomic number, of two like atoms both directions.

On-site blocks belong to atoms and need no list. Vectors point from first to second atom (or source to target), in Å; where
the second atom is an image, they lead to the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from model.pairs.pair_list import PairList
from model.structure import Structure


@dataclass(frozen=True)
class AtomGraph:
    """A batch of structures.

    Attributes:
        numbers: atomic numbers, (atom,), int64.
        structure_index: which structure each atom belongs to, (atom,), int64.
        edge_index: source and target, (2, edge), int64.
        edge_vectors: target less source, (edge, 3), Å.
        pair_index: row atom and column atom of each computed block, (2, pair), int64.
        pair_vectors: column atom less row atom, (pair, 3), Å.
        n_structures: number of structures.
    """

    numbers: Tensor
    structure_index: Tensor
    edge_index: Tensor
    edge_vectors: Tensor
    pair_index: Tensor
    pair_vectors: Tensor
    n_structures: int

    @classmethod
    def of(cls, structure: Structure, pairs: PairList, *, cutoff_angstrom: float) -> AtomGraph:
        """The graph of one structure, on the CPU, vectors in float64.

        Args:
            structure: molecule or crystal.
            pairs: whose blocks there are.
            cutoff_angstrom: longest message edge; 0 for no edges.
        """
        if cutoff_angstrom:
            near = PairList.within(structure, cutoff_angstrom)
            edges = near.take(np.arange(near.n_atoms, len(near)))
        else:
            edges = pairs.take(np.arange(0))
        listed = pairs.take(pairs.once(structure.numbers))
        return cls(
            numbers=torch.from_numpy(np.array(structure.numbers)),
            structure_index=torch.zeros(len(structure), dtype=torch.int64),
            edge_index=_index(edges),
            edge_vectors=torch.from_numpy(edges.vectors_angstrom),
            pair_index=_index(listed),
            pair_vectors=torch.from_numpy(listed.vectors_angstrom),
            n_structures=1,
        )

    @property
    def n_atoms(self) -> int:
        return self.numbers.shape[0]  # len() would be a plain number where an exported program keeps a symbol

    @property
    def n_pairs(self) -> int:
        return self.pair_index.shape[1]

    @property
    def n_blocks(self) -> int:
        """Blocks that a network computes: the measure of what the batch costs."""
        return self.n_atoms + self.n_pairs

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> AtomGraph:
        """The same graph with vectors of another type, or on another device."""
        return replace(
            self,
            numbers=self.numbers.to(device),
            structure_index=self.structure_index.to(device),
            edge_index=self.edge_index.to(device),
            edge_vectors=self.edge_vectors.to(device=device, dtype=dtype),
            pair_index=self.pair_index.to(device),
            pair_vectors=self.pair_vectors.to(device=device, dtype=dtype),
        )


def join_graphs(graphs: Sequence[AtomGraph]) -> AtomGraph:
    """One graph of several on the same device; reads no number back from there."""
    starts = list(accumulate((graph.n_atoms for graph in graphs), initial=0))
    counts = list(accumulate((graph.n_structures for graph in graphs), initial=0))
    index = graphs[0].structure_index.new_empty(starts[-1])
    for graph, (start, end), first in zip(graphs, pairwise(starts), counts, strict=False):
        index[start:end] = graph.structure_index + first

    def shifted(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part + start for part, start in zip(parts, starts, strict=False)], dim=1)

    return AtomGraph(
        numbers=torch.cat([graph.numbers for graph in graphs]),
        structure_index=index,
        edge_index=shifted([graph.edge_index for graph in graphs]),
        edge_vectors=torch.cat([graph.edge_vectors for graph in graphs]),
        pair_index=shifted([graph.pair_index for graph in graphs]),
        pair_vectors=torch.cat([graph.pair_vectors for graph in graphs]),
        n_structures=counts[-1],
    )


def build_graph(
    structures: Sequence[Structure],
    *,
    cutoff_angstrom: float,
    block_cutoff_angstrom: float | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> AtomGraph:
    """Batch structures into one graph.

    Args:
        structures: at least one.
        cutoff_angstrom: longest message edge.
        block_cutoff_angstrom: longest pair with a block; None takes every pair of a molecule's atoms.
        dtype, device: of the vectors; distances are taken in float64 first.
    """
    graphs = []
    for structure in structures:
        if block_cutoff_angstrom is None:
            pairs = PairList.complete(structure)
        else:
            pairs = PairList.within(structure, block_cutoff_angstrom)
        graphs.append(AtomGraph.of(structure, pairs, cutoff_angstrom=cutoff_angstrom))
    return join_graphs(graphs).to(dtype=dtype, device=device)


def _index(pairs: PairList) -> Tensor:
    return torch.from_numpy(np.stack([pairs.first, pairs.second]))
