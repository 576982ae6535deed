"""Tokens: what the Transformer sees of an item, of invariants (exact) or of components as they lie in space (faithful)."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from model.nn.so2 import SectorLinear, Sectors
from model.second_stage.parts import Collection


class Tokens(Protocol):
    """Parts -> tokens, (item, hidden)."""

    def __call__(self, parts: Sectors) -> Tensor: ...


class InvariantTokens(nn.Module):
    """Invariants: of each part <A f, B f> / sqrt(components), and the components that are invariant by themselves.

    Inner products grow as squares, so their inverse hyperbolic sine is taken: linear where they are small, logarithmic where
    they are large.

    Args:
        collection: what is read.
        n_invariants: inner products of each part.
        hidden: width of a token.
    """

    def __init__(self, collection: Collection, n_invariants: int, hidden: int) -> None:
        super().__init__()
        self.invariant = collection.invariant
        self.scales = [dim**-0.5 for dim in collection.dims]
        counts = (n_invariants,) * len(collection.dims)
        self.left = SectorLinear(collection.widths, counts)
        self.right = SectorLinear(collection.widths, counts)
        self.linear = nn.Linear(n_invariants * len(counts) + collection.widths[self.invariant], hidden)

    def forward(self, parts: Sectors) -> Tensor:
        """Parts -> (item, hidden)."""
        products = [
            (left * right).sum(dim=1) * scale
            for left, right, scale in zip(self.left(parts), self.right(parts), self.scales, strict=True)
        ]
        own = parts[self.invariant].squeeze(1)
        out: Tensor = self.linear(torch.cat([torch.asinh(torch.cat(products, dim=1)), own], dim=1))
        return out


class ComponentTokens(nn.Module):
    """A linear map of all components, which knows nothing of rotations.

    Args:
        collection: what is read.
        hidden: width of a token.
    """

    def __init__(self, collection: Collection, hidden: int) -> None:
        super().__init__()
        size = sum(dim * width for dim, width in zip(collection.dims, collection.widths, strict=True))
        self.linear = nn.Linear(size, hidden)

    def forward(self, parts: Sectors) -> Tensor:
        """Parts -> (item, hidden)."""
        out: Tensor = self.linear(torch.cat([part.flatten(1) for part in parts], dim=1))
        return out
