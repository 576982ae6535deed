"""EdgeList: all directed edges of a batch: every atom with itself, the listed pairs, and the reverses that are not listed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.pairs.graph import AtomGraph


@dataclass(frozen=True)
class EdgeList:
    """Edges in order: on-site, listed pairs (``AtomGraph.pair_index``), reverses of the listed pairs of unlike atoms.

    Attributes:
        n_atoms, n_listed: how many of the first two there are.
        row, column: atoms, (edge,).
        vectors: of all but the on-site edges, (edge less atoms, 3), Å.
        unlike: which listed pairs have their reverse at the end, in that order.
        structure_index: structure of each edge.
        n_edges_of_structure, n_atoms_of_structure: counts, (structure,), of the vectors' type.
    """

    n_atoms: int
    n_listed: int
    row: Tensor
    column: Tensor
    vectors: Tensor
    unlike: Tensor
    structure_index: Tensor
    n_edges_of_structure: Tensor
    n_atoms_of_structure: Tensor

    @classmethod
    def of(cls, graph: AtomGraph) -> EdgeList:
        """The edges of a batch."""
        first, second = graph.pair_index
        unlike = (graph.numbers[first] != graph.numbers[second]).nonzero().squeeze(1)
        atoms = torch.arange(graph.n_atoms, device=first.device)
        row = torch.cat([atoms, first, second[unlike]])
        column = torch.cat([atoms, second, first[unlike]])
        index = graph.structure_index[row]

        def counts(of: Tensor) -> Tensor:
            ones = graph.pair_vectors.new_ones(len(of))
            return graph.pair_vectors.new_zeros(graph.n_structures).index_add_(0, of, ones)

        return cls(
            n_atoms=graph.n_atoms,
            n_listed=graph.n_pairs,
            row=row,
            column=column,
            vectors=torch.cat([graph.pair_vectors, -graph.pair_vectors[unlike]]),
            unlike=unlike,
            structure_index=index,
            n_edges_of_structure=counts(index),
            n_atoms_of_structure=counts(graph.structure_index),
        )

    @property
    def distances(self) -> Tensor:
        """Length of each edge, 0 on-site, (edge,)."""
        return torch.cat([self.vectors.new_zeros(self.n_atoms), self.vectors.norm(dim=-1)])
