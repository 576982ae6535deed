"""Layers on features that have their own number of channels for each irrep.

Features are parts: one tensor (item, 2l + 1, channels) a slot. Parameters have the published shapes (flat, in e3nn's order),
so that published weights can be copied by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.architectures.deeph_e3.slots import Slots
from model.nn.layers import mix

Parts = tuple[Tensor, ...]
"""One tensor (item, 2l + 1, channels) a slot."""


def flat(parts: Sequence[Tensor]) -> Tensor:
    """Parts side by side: (item, components of all channels)."""
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def unflat(features: Tensor, slots: Slots) -> Parts:
    """Inverse of :func:`flat`."""
    split = features.split([(2 * slot.ang + 1) * slot.channels for slot in slots], dim=1)
    return tuple(part.unflatten(1, (2 * slot.ang + 1, -1)) for part, slot in zip(split, slots, strict=True))


def take(parts: Parts, index: Tensor) -> Parts:
    """Items by index."""
    return tuple(part.index_select(0, index) for part in parts)


def add(one: Parts, other: Parts) -> Parts:
    """Sum of two features of the same slots."""
    return tuple(a + b for a, b in zip(one, other, strict=True))


class SlotLinear(nn.Module):
    """Channel mixing per irrep, each output over the square root of its number of inputs (e3nn's Linear).

    Args:
        n_in, n_out: slots; what has no irrep to come from is zero.
        bias: on even scalars.
    """

    bias: Tensor | None

    def __init__(self, n_in: Slots, n_out: Slots, *, bias: bool) -> None:
        super().__init__()
        self.n_in, self.n_out = n_in, n_out
        self.paths = [(i, o) for i, a in enumerate(n_in) for o, b in enumerate(n_out) if a.irrep == b.irrep]
        self.shapes = [(n_in[i].channels, n_out[o].channels) for i, o in self.paths]
        self.sizes = [a * b for a, b in self.shapes]
        self.weight = nn.Parameter(torch.randn(sum(self.sizes)))
        scalars = sum(slot.channels for slot in n_out if slot.irrep == (0, 1))
        self.bias = nn.Parameter(torch.zeros(scalars)) if bias else None

    def forward(self, parts: Parts) -> Parts:
        """Slots ``n_in`` -> slots ``n_out``."""
        out: list[Tensor | None] = [None] * len(self.n_out)
        for (i, o), shape, weight in zip(self.paths, self.shapes, self.weight.split(self.sizes), strict=True):
            made = mix(parts[i], weight.view(shape) / math.sqrt(shape[0]))
            old = out[o]
            out[o] = made if old is None else old + made
        full = filled(out, parts[0], self.n_out)
        return full if self.bias is None else with_bias(full, self.bias, self.n_out)


class SelfConnection(nn.Module):
    """Channel mixing with weights of its own for each kind of item: e3nn's product with a one-hot vector.

    Args:
        n_in, n_out: slots.
        n_types: kinds of items: elements, or ordered pairs of them.
    """

    def __init__(self, n_in: Slots, n_out: Slots, n_types: int) -> None:
        super().__init__()
        self.n_in, self.n_out, self.n_types = n_in, n_out, n_types
        self.paths = [(i, o) for i, a in enumerate(n_in) for o, b in enumerate(n_out) if a.irrep == b.irrep]
        self.shapes = [(n_in[i].channels * n_types, n_out[o].channels) for i, o in self.paths]
        self.sizes = [a * b for a, b in self.shapes]
        self.weight = nn.Parameter(torch.randn(sum(self.sizes)))

    def forward(self, parts: Parts, one_hot: Tensor) -> Parts:
        """Slots ``n_in`` and (item, type) -> slots ``n_out``."""
        out: list[Tensor | None] = [None] * len(self.n_out)
        for (i, o), shape, weight in zip(self.paths, self.shapes, self.weight.split(self.sizes), strict=True):
            part = parts[i]
            if self.n_types > 1:
                part = (part.unsqueeze(3) * one_hot[:, None, None, :]).flatten(2)
            out[o] = mix(part, weight.view(shape) / math.sqrt(shape[0]))
        return filled(out, parts[0], self.n_out)


class Skip(nn.Module):
    """What a block adds its result to: the features before it, mixed where the irreps change."""

    def __init__(self, n_in: Slots, n_out: Slots) -> None:
        super().__init__()
        self.sc = None if n_in == n_out else SlotLinear(n_in, n_out, bias=False)

    def forward(self, parts: Parts) -> Parts:
        """Slots ``n_in`` -> slots ``n_out``."""
        if self.sc is None:
            return parts
        out: Parts = self.sc(parts)
        return out


def filled(parts: Sequence[Tensor | None], like: Tensor, slots: Slots) -> Parts:
    """Zeros for slots that nothing came to."""
    return tuple(
        like.new_zeros((like.shape[0], 2 * slot.ang + 1, slot.channels)) if part is None else part
        for part, slot in zip(parts, slots, strict=True)
    )


def with_bias(parts: Parts, bias: Tensor, slots: Slots) -> Parts:
    """A bias added to the even scalars."""
    biases = iter(bias.split([slot.channels for slot in slots if slot.irrep == (0, 1)]))
    return tuple(part + next(biases) if slot.irrep == (0, 1) else part for part, slot in zip(parts, slots, strict=True))
