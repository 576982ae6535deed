"""Tokens -> correction of the coefficients. Both read-outs start at zero: a new second stage corrects nothing."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from model.nn.so2 import SectorLinear, Sectors
from model.second_stage.parts import Collection, Frames


class ReadOut(Protocol):
    """Tokens and parts -> (item, coefficient)."""

    def __call__(self, token: Tensor, parts: Sectors, frames: Frames) -> Tensor: ...


class MixingReadOut(nn.Module):
    """The correction as a mixing of the features themselves, by weights that a token, an invariant, makes.

        delta_k = sum_r G_kr(token) (V f)_r / sqrt(rank)        in each irrep, or in each sector of a bond frame

    It turns as f does. With f's gradient form v = A(invariants) f, TraceGrad is the case of a token that sees its own item
    only.

    Args:
        collection: what is read, and how coefficients are made of it.
        rank: channels r of each part.
        hidden: width of a token.
    """

    def __init__(self, collection: Collection, rank: int, hidden: int) -> None:
        super().__init__()
        self.collection = collection
        self.rank = rank
        self.project = SectorLinear(collection.widths, (rank,) * len(collection.dims))
        self.linear = nn.Linear(hidden, rank * sum(collection.out_widths))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, token: Tensor, parts: Sectors, frames: Frames) -> Tensor:
        """(item, hidden), parts -> (item, coefficient)."""
        widths = self.collection.out_widths
        weights = (self.linear(token) * self.rank**-0.5).split([self.rank * width for width in widths], dim=1)
        mixed = [
            torch.bmm(part, weight.reshape(len(weight), self.rank, width))
            for part, weight, width in zip(self.project(parts), weights, widths, strict=True)
        ]
        return self.collection.coefficients(tuple(mixed), frames)


class ComponentReadOut(nn.Module):
    """The correction's components, as published: they know nothing of rotations.

    Args:
        hidden: width of a token.
        n_coefficients: of a block.
    """

    def __init__(self, hidden: int, n_coefficients: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, n_coefficients)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, token: Tensor, parts: Sectors, frames: Frames) -> Tensor:
        """(item, hidden) -> (item, coefficient); the features are not looked at again."""
        out: Tensor = self.linear(token)
        return out
