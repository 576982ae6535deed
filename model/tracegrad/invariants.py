"""Invariants u of equivariant features (TraceGrad, arXiv:2405.05722, Eq. 6), low-rank.

    u_c = sum over irreps of <A f, B f>_c / sqrt(2l + 1)

A and B mix channels per irrep, c runs over C channels. The paper's W^c_ij (one weight for every pair of channels) is the
case of C unrestricted rank-one terms; at 1,024 channels it costs more than the whole backbone, so the rank is set here
by C (docs/decisions/0002-network.md). Only irreps of equal l and parity meet, so u is invariant under O(3).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from model.nn.irreps import Layout, RaggedLayout
from model.nn.layers import Linear, mix
from model.nn.so2 import SectorLayout, SectorLinear, Sectors


class Mixed(NamedTuple):
    """What a gradient reuses of its invariants.

    Attributes:
        both: A f and B f, side by side and scaled, of all irreps together or (``RaggedScalars``) of each; or
            (``FullScalars``) the features.
        weights: the weights that made them.
    """

    both: Any
    weights: list[Tensor]


class Invariants(Protocol):
    """Invariants u of features, and their gradient. Features are a tuple: one tensor, or sectors in bond frames."""

    @property
    def n_invariants(self) -> int:
        """Number of invariants."""
        ...

    def __call__(self, features: Sectors) -> tuple[Tensor, Mixed]:
        """u, (item, invariant), and what ``gradient`` reuses."""
        ...

    def gradient(self, mixed: Mixed, weights: Tensor) -> Sectors:
        """d(sum_c weights_c u_c)/df at fixed weights, shaped like the features."""
        ...


class SelfProductScalars(nn.Module):
    """u of Eq. 6.

    Args:
        layout: irreps of the features.
        channels: channels of the features.
        rank: number C of invariants.
    """

    root_norm: Tensor
    irrep: Tensor

    def __init__(self, layout: Layout, channels: int, rank: int) -> None:
        super().__init__()
        self.layout = layout
        self.n_invariants = rank
        self.left = Linear(layout, channels, rank)
        self.right = Linear(layout, channels, rank)
        for linear in (self.left, self.right):  # a bias would make u affine, not quadratic, in f
            del linear.bias
            linear.register_buffer("bias", torch.zeros(rank), persistent=False)
        norms = [(2 * ang + 1) ** -0.25 for ang, _ in layout.irreps]
        self.register_buffer("root_norm", torch.tensor(norms, dtype=torch.float64)[:, None, None], persistent=False)
        self.register_buffer("irrep", torch.from_numpy(layout.component_irrep), persistent=False)

    def forward(self, features: Sectors) -> tuple[Tensor, Mixed]:
        """One tensor (item, component, channel) -> u (item, rank), and what the gradient reuses.

        That is A f and B f side by side, each over the fourth root of 2l + 1, components first: one batched product takes
        all components at once, and reads features where they lie. And the weights that made them, (irrep, channel, rank).
        """
        (whole,) = features
        weight = torch.cat([self.left.weight, self.right.weight], dim=2) * self.root_norm.to(whole.dtype)
        both = torch.bmm(whole.transpose(0, 1), weight.index_select(0, self.irrep))
        left, right = both.chunk(2, dim=2)
        return (left * right).sum(dim=0), Mixed(both, [weight])

    def gradient(self, mixed: Mixed, weights: Tensor) -> Sectors:
        """d(sum_c weights_c u_c)/df at fixed weights: (item, component, channel).

        v_l = (A_l^T (g * B_l f_l) + B_l^T (g * A_l f_l)) / sqrt(2l + 1) with g = weights.
        """
        both, (weight,) = mixed
        scaled = both * torch.cat([weights, weights], dim=1)
        swapped = torch.cat(weight.chunk(2, dim=2)[::-1], dim=2).index_select(0, self.irrep)
        return (torch.bmm(scaled, swapped.transpose(1, 2)).transpose(0, 1),)


class SectorScalars(nn.Module):
    """u of features in a bond's frame, one term per sector instead of one per irrep.

    In the frame only rotations about the bond and mirrors through it are left, so inner products of equal sectors are
    invariant whatever l they came from: u_c = sum over sectors of <A f, B f>_c / sqrt(components).

    Args:
        layout: sectors of the features.
        rank: number C of invariants.
    """

    root_norm: Tensor

    def __init__(self, layout: SectorLayout, rank: int) -> None:
        super().__init__()
        self.n_invariants = rank
        self.dims = layout.dims
        norms = [dim**-0.25 for dim in layout.dims for _ in range(dim)]
        self.register_buffer("root_norm", torch.tensor(norms, dtype=torch.float64)[:, None], persistent=False)
        ranks = (rank,) * len(layout.dims)
        self.left = SectorLinear(layout.widths, ranks)
        self.right = SectorLinear(layout.widths, ranks)

    def forward(self, features: Sectors) -> tuple[Tensor, Mixed]:
        """Sectors -> u (item, rank), and what the gradient reuses.

        That is A f and B f side by side, (item, sector component, 2 * rank), each over the fourth root of its components,
        and the weights that made them.
        """
        weights = [torch.cat(pair, dim=1) for pair in zip(self.left.weights, self.right.weights, strict=True)]
        mixed = torch.cat([mix(part, weight) for part, weight in zip(features, weights, strict=True)], dim=1)
        both = mixed * self.root_norm.to(mixed.dtype)
        left, right = both.chunk(2, dim=2)
        return (left * right).sum(dim=1), Mixed(both, weights)

    def gradient(self, mixed: Mixed, weights: Tensor) -> Sectors:
        """d(sum_c weights_c u_c)/df at fixed weights, shaped like the features."""
        both, maps = mixed
        factor = weights.unsqueeze(1) * self.root_norm.to(weights.dtype)
        swapped = (both.unflatten(2, (2, -1)).flip(2) * factor.unsqueeze(2)).flatten(2)
        return tuple(mix(part, weight.T) for part, weight in zip(swapped.split(self.dims, dim=1), maps, strict=True))


class RaggedScalars(nn.Module):
    """u of features that have their own number of channels for each irrep; the irreps' terms stay apart.

        u_lc = <A_l f_l, B_l f_l>_c / sqrt(2l + 1),    c < min(rank, half the channels of l, rounded up)

    The first layer of z adds them up as it likes: together that is Eq. 6 with W^c = sum over r of w_cr A_r^T B_r, so an irrep
    of few channels gets as many terms as it can fill, and A f and B f together are hardly larger than f. All time that
    TraceGrad takes on a CPU is that of reading and writing arrays of this size.

    Args:
        layout: irreps with their channels.
        rank: terms of an irrep, at most.
    """

    def __init__(self, layout: RaggedLayout, rank: int) -> None:
        super().__init__()
        self.ranks = [min(rank, -(-width // 2)) for width in layout.widths]
        self.n_invariants = sum(self.ranks)
        self.root_norms = [dim**-0.25 for dim in layout.dims]
        self.weights = nn.ParameterList(
            [
                nn.Parameter(torch.randn(width, 2 * own) / math.sqrt(width))
                for width, own in zip(layout.widths, self.ranks, strict=True)
            ]
        )
        """A and B of each irrep side by side, (channels, 2 * terms)."""

    def scaled_weights(self) -> list[Tensor]:
        """A and B of each irrep side by side over the fourth root of 2l + 1, (channels, 2 * terms)."""
        return [weight * norm for weight, norm in zip(self.weights, self.root_norms, strict=True)]

    def forward(self, features: Sectors) -> tuple[Tensor, Mixed]:
        """One tensor (item, component, channel) an irrep -> u (item, n_invariants), and what the gradient reuses."""
        weights = self.scaled_weights()
        both = [mix(part, weight) for part, weight in zip(features, weights, strict=True)]
        terms = []
        for part in both:
            left, right = part.chunk(2, dim=2)
            terms.append((left * right).sum(dim=1))
        return torch.cat(terms, dim=1), Mixed(both, weights)

    def gradient(self, mixed: Mixed, weights: Tensor) -> Sectors:
        """d(sum_c weights_c u_c)/df at fixed weights, shaped like the features."""
        parts = []
        for part, own, of_u in zip(mixed.both, mixed.weights, weights.split(self.ranks, dim=1), strict=True):
            factor, swapped = torch.cat([of_u, of_u], dim=1)[:, None], torch.cat(own.chunk(2, dim=1)[::-1], dim=1)
            # without autograd nobody reads the projections again, and memory that is at hand is faster than new memory
            scaled = part * factor if torch.is_grad_enabled() else part.mul_(factor)
            parts.append(mix(scaled, swapped.T))
        return tuple(parts)
