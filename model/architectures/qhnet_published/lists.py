"""Pairs of a batch as the published QHNet wants them: every pair of atoms once, with both of its directions.

Features of pairs are listed direction by direction: item ``p`` is the block (row ``high[p]``, column ``low[p]``), item
``n + p`` the block (row ``low[p]``, column ``high[p]``); a row is the published code's destination, a column its source.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.pairs.graph import AtomGraph


@dataclass(frozen=True)
class UnorderedPairs:
    """Each pair of atoms once.

    Attributes:
        low, high: the atom of smaller and of larger index, (unordered pair,).
        vectors: high less low, (unordered pair, 3), Å.
        of_listed: unordered pair that each pair of the given list belongs to.
    """

    low: Tensor
    high: Tensor
    vectors: Tensor
    of_listed: Tensor

    @classmethod
    def of(cls, index: Tensor, vectors: Tensor, n_atoms: int) -> UnorderedPairs:
        """Args: index (2, pair) first and second atom; vectors (pair, 3) second less first; repeats are allowed."""
        first, second = index
        key = torch.minimum(first, second) * n_atoms + torch.maximum(first, second)
        unique, inverse = torch.unique(key, return_inverse=True)
        # any listed pair may stand for the unordered one: the vectors of both directions are exact opposites
        chosen = torch.zeros_like(unique).scatter_(0, inverse, torch.arange(len(key), device=key.device))
        low, high = unique // n_atoms, unique % n_atoms
        sign = torch.where(first[chosen] == low, 1.0, -1.0).to(vectors.dtype)
        return cls(low, high, vectors[chosen] * sign.unsqueeze(1), inverse)

    @property
    def rows(self) -> Tensor:
        """Row atom (destination) of both directions, (2 * unordered pair,)."""
        return torch.cat([self.high, self.low])

    @property
    def columns(self) -> Tensor:
        """Column atom (source) of both directions, (2 * unordered pair,)."""
        return torch.cat([self.low, self.high])


@dataclass(frozen=True)
class BlockPairs:
    """The pairs whose blocks are computed, and where the graph's own list finds them.

    Attributes:
        unordered: the pairs.
        listed: item of each pair of ``AtomGraph.pair_index``.
        reverse: item of the same pair with row and column swapped.
    """

    unordered: UnorderedPairs
    listed: Tensor
    reverse: Tensor

    @classmethod
    def of(cls, graph: AtomGraph) -> BlockPairs:
        unordered = UnorderedPairs.of(graph.pair_index, graph.pair_vectors, graph.n_atoms)
        row, column = graph.pair_index
        n_unordered = len(unordered.low)
        upward = (row < column).to(torch.int64)
        listed = unordered.of_listed + n_unordered * upward
        reverse = unordered.of_listed + n_unordered * (1 - upward)
        return cls(unordered, listed, reverse)
