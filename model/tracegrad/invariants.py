"""Invariants u of equivariant features (TraceGrad, arXiv:2405.05722, Eq. 6), low-rank.

    u_c = sum over irreps of <A f, B f>_c / sqrt(2l + 1)

A and B mix channels per irrep, c runs over C channels. The paper's W^c_ij (one weight for every pair of channels) is the
case of C unrestricted rank-one terms; at 1,024 channels it costs more than the whole backbone, so the rank is set here
by C (docs/decisions/0002-network.md). Only irreps of equal l and parity meet, so u is invariant under O(3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.nn.irreps import Layout
from model.nn.layers import Linear
from model.nn.so2 import SectorLayout, SectorLinear, Sectors


class SelfProductScalars(nn.Module):
    """u of Eq. 6.

    Args:
        layout: irreps of the features.
        channels: channels of the features.
        rank: number C of invariants.
    """

    inverse_norm: Tensor

    def __init__(self, layout: Layout, channels: int, rank: int) -> None:
        super().__init__()
        self.layout = layout
        self.left = Linear(layout, channels, rank)
        self.right = Linear(layout, channels, rank)
        for linear in (self.left, self.right):  # a bias would make u affine, not quadratic, in f
            del linear.bias
            linear.register_buffer("bias", torch.zeros(rank), persistent=False)
        norms = [(2 * ang + 1) ** -0.5 for ang, _ in layout.irreps for _ in range(2 * ang + 1)]
        self.register_buffer("inverse_norm", torch.tensor(norms, dtype=torch.float64), persistent=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """features (item, component, channel) -> u (item, rank), and A f and B f, which the gradient reuses."""
        left, right = self.left(features), self.right(features)
        u = (left * right * self.inverse_norm[:, None].to(left.dtype)).sum(dim=1)
        return u, left, right

    def gradient(self, left: Tensor, right: Tensor, weights: Tensor) -> Tensor:
        """d(sum_c weights_c u_c)/df at fixed weights: (item, component, channel).

        v_l = (A_l^T (g * B_l f_l) + B_l^T (g * A_l f_l)) / sqrt(2l + 1) with g = weights.
        """
        scaled = weights.unsqueeze(1) * self.inverse_norm[:, None].to(weights.dtype)
        from_left, from_right = scaled * right, scaled * left
        parts = [
            one @ a.T + two @ b.T
            for one, two, a, b in zip(
                from_left.split(self.layout.sizes, dim=1),
                from_right.split(self.layout.sizes, dim=1),
                self.left.weight.unbind(),
                self.right.weight.unbind(),
                strict=True,
            )
        ]
        return torch.cat(parts, dim=1)


class SectorScalars(nn.Module):
    """u of features in a bond's frame: one term per sector instead of one per irrep.

    In the frame only rotations about the bond and mirrors through it are left, so inner products of equal sectors are
    invariant whatever l they came from: u_c = sum over sectors of <A f, B f>_c / sqrt(components).

    Args:
        layout: sectors of the features.
        rank: number C of invariants.
    """

    def __init__(self, layout: SectorLayout, rank: int) -> None:
        super().__init__()
        self.inverse_norm = tuple(dim**-0.5 for dim in layout.dims)
        ranks = (rank,) * len(layout.dims)
        self.left = SectorLinear(layout.widths, ranks)
        self.right = SectorLinear(layout.widths, ranks)

    def forward(self, features: Sectors) -> tuple[Tensor, Sectors, Sectors]:
        """Sectors -> u (item, rank), and A f and B f, which the gradient reuses."""
        left, right = self.left(features), self.right(features)
        terms = [(a * b).sum(dim=1) * scale for a, b, scale in zip(left, right, self.inverse_norm, strict=True)]
        return torch.stack(terms).sum(dim=0), left, right

    def gradient(self, left: Sectors, right: Sectors, weights: Tensor) -> Sectors:
        """d(sum_c weights_c u_c)/df at fixed weights, shaped like the features."""
        return tuple(
            (scale * weights.unsqueeze(1) * two) @ a.T + (scale * weights.unsqueeze(1) * one) @ b.T
            for one, two, a, b, scale in zip(
                left, right, self.left.weights, self.right.weights, self.inverse_norm, strict=True
            )
        )
