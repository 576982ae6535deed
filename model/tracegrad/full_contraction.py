"""Invariants u as the paper writes them: one weight for every pair of channels (TraceGrad, Eq. 6).

    u_c = sum over irreps, i, j of W^c_ij <f_i, f_j> / sqrt(2l + 1)

Via the Gram matrix of each irrep, so that the contraction is a GEMM. It has channels^2 weights per irrep and invariant:
``SelfProductScalars`` is the same with W of low rank, and what checkpoints use.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.nn.irreps import Layout, RaggedLayout
from model.nn.so2 import Sectors
from model.tracegrad.invariants import Mixed


class FullScalars(nn.Module):
    """u of Eq. 6, literally.

    Args:
        layout: irreps of the features.
        channels: channels of the features.
        n_invariants: number C of invariants (the paper's 1,024 for DeepH-E3).
    """

    def __init__(self, layout: Layout, channels: int, n_invariants: int) -> None:
        super().__init__()
        self.layout = layout
        self.n_invariants = n_invariants
        self.norms = [(2 * ang + 1) ** -0.5 for ang, _ in layout.irreps]
        # u starts of order one for features of order one: channels^2 terms per irrep
        scale = 1.0 / (channels * len(layout.irreps) ** 0.5)
        self.weight = nn.Parameter(scale * torch.randn(len(layout.irreps), n_invariants, channels, channels))

    def forward(self, features: Sectors) -> tuple[Tensor, Mixed]:
        """One tensor (item, component, channel) -> u (item, n_invariants), and what ``gradient`` needs: the features."""
        (whole,) = features
        terms = [
            (part.mT @ part).flatten(1) @ weight.flatten(1).T * norm
            for part, weight, norm in zip(
                whole.split(self.layout.sizes, dim=1), self.weight.unbind(), self.norms, strict=True
            )
        ]
        return torch.stack(terms).sum(dim=0), Mixed(whole, [])

    def gradient(self, mixed: Mixed, weights: Tensor) -> Sectors:
        """d(sum_c weights_c u_c)/df at fixed weights: v_l = f_l (G + G^T) / sqrt(2l + 1) with G = sum_c weights_c W^c."""
        parts = []
        for part, weight, norm in zip(
            mixed.both.split(self.layout.sizes, dim=1), self.weight.unbind(), self.norms, strict=True
        ):
            mixing = (weights @ weight.flatten(1)).unflatten(1, weight.shape[1:])
            parts.append(part @ (mixing + mixing.mT) * norm)
        return (torch.cat(parts, dim=1),)


class RaggedFullScalars(nn.Module):
    """:class:`FullScalars` of features that have their own number of channels for each irrep.

    Args:
        layout: irreps of the features.
        n_invariants: number C of invariants.
    """

    def __init__(self, layout: RaggedLayout, n_invariants: int) -> None:
        super().__init__()
        self.n_invariants = n_invariants
        self.dims, self.widths = layout.dims, layout.widths
        self.norms = [dim**-0.5 for dim in layout.dims]
        scales = [1.0 / (width * len(layout.dims) ** 0.5) for width in layout.widths]
        self.weights = nn.ParameterList(
            [
                nn.Parameter(scale * torch.randn(n_invariants, width, width))
                for scale, width in zip(scales, layout.widths, strict=True)
            ]
        )

    def forward(self, features: Sectors) -> tuple[Tensor, Mixed]:
        """One tensor (item, component, channel) an irrep -> u (item, n_invariants), and the features."""
        terms = [
            (part.mT @ part).flatten(1) @ weight.flatten(1).T * norm
            for part, weight, norm in zip(features, self.weights, self.norms, strict=True)
        ]
        return torch.stack(terms).sum(dim=0), Mixed(torch.cat([part.flatten(1) for part in features], dim=1), [])

    def gradient(self, mixed: Mixed, weights: Tensor) -> Sectors:
        """See ``FullScalars.gradient``."""
        parts = []
        split = mixed.both.split([dim * width for dim, width in zip(self.dims, self.widths, strict=True)], dim=1)
        for part, weight, norm in zip(split, self.weights, self.norms, strict=True):
            mixing = (weights @ weight.flatten(1)).unflatten(1, weight.shape[1:])
            parts.append(part.unflatten(1, (-1, weight.shape[1])) @ (mixing + mixing.mT) * norm)
        return tuple(parts)
