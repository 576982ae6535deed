"""Equivariant layers that backbones share; features are (item, component, channel), see ``model.nn.irreps``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.nn.irreps import Layout, Product


class Linear(nn.Module):
    """Channel mixing per irrep, with a bias on scalars.

    Args:
        layout: irreps of input and output.
        n_in, n_out: channels per irrep; a sequence gives every irrep its own (then the output is a list).
    """

    def __init__(self, layout: Layout, n_in: int, n_out: int) -> None:
        super().__init__()
        self.layout = layout
        self.weight = nn.Parameter(torch.randn(len(layout.irreps), n_in, n_out) / math.sqrt(n_in))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, features: Tensor) -> Tensor:
        """(item, component, n_in) -> (item, component, n_out)."""
        return linear(features, self.layout, self.weight, self.bias)


def linear(features: Tensor, layout: Layout, weight: Tensor, bias: Tensor | None) -> Tensor:
    """:class:`Linear` with weights from elsewhere: weight (irrep, n_in, n_out), bias (n_out,) or None."""
    split = features.split(layout.sizes, dim=1)
    parts = [part @ matrix for part, matrix in zip(split, weight.unbind(), strict=True)]
    if bias is not None and layout.irreps[0] == (0, 1):
        parts[0] = parts[0] + bias
    return torch.cat(parts, dim=1)


def mix(part: Tensor, matrix: Tensor) -> Tensor:
    """(item, component, n_in) times (n_in, n_out) as one GEMM: of a slice, torch would make one small GEMM per item."""
    return (part.reshape(-1, part.shape[2]) @ matrix).view(*part.shape[:2], matrix.shape[1])


class RaggedLinear(nn.Module):
    """Channel mixing where every irrep has its own number of input or output channels.

    Args:
        layout: irreps.
        n_in, n_out: channels of each irrep in and out.
        gain: scale of the initial weights; 0 makes a read-out start at zero.
    """

    def __init__(self, layout: Layout, n_in: Sequence[int], n_out: Sequence[int], gain: float = 1.0) -> None:
        super().__init__()
        self.layout = layout
        self.weights = nn.ParameterList(
            [nn.Parameter(gain * torch.randn(i, o) / math.sqrt(i)) for i, o in zip(n_in, n_out, strict=True)]
        )

    def forward(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Each irrep's (item, 2l + 1, n_in) -> (item, 2l + 1, n_out)."""
        return [part @ weight for part, weight in zip(parts, self.weights, strict=True)]


def root_mean_square_norm(features: Tensor, floor: float = 0.0) -> Tensor:
    """Features of each item divided by their root mean square over components and channels.

    Args:
        features: (item, component, channel).
        floor: what they are divided by at least. Where the largest irrep of an atom vanishes by symmetry, the mean
            square collapses, and without a floor all other irreps are magnified beyond anything seen in training
            (docs/decisions/0011-norm-floors.md).
    """
    mean_square = features.square().mean(dim=(1, 2), keepdim=True)
    if floor:
        mean_square = mean_square.clamp_min(floor**2)
    return features * (mean_square + 1e-6).rsqrt()


class FloorLayerNorm(nn.LayerNorm):
    """LayerNorm over the last axis that divides by at least ``floor``, see ``root_mean_square_norm``."""

    def __init__(self, width: int, floor: float) -> None:
        super().__init__(width)
        self.floor = floor

    def forward(self, input: Tensor) -> Tensor:
        """(item, width) -> the same shape."""
        if not self.floor:
            return super().forward(input)
        centred = input - input.mean(dim=-1, keepdim=True)
        variance = centred.square().mean(dim=-1, keepdim=True).clamp_min(self.floor**2)
        return torch.addcmul(self.bias, centred * (variance + self.eps).rsqrt(), self.weight)


class NormGate(nn.Module):
    """QHNet's NormGate: an MLP of scalars and norms gives new scalars, and a gate for every other irrep.

    The MLP sees its input through a LayerNorm, and gates are added to 1: unbounded gates of gates overflow.

    Args:
        layout: irreps; the first is the scalar.
        channels: channels per irrep.
        hidden: width of the MLP.
        floor: of the LayerNorm.
    """

    def __init__(self, layout: Layout, channels: int, hidden: int, floor: float = 0.0) -> None:
        super().__init__()
        self.layout = layout
        width = channels * len(layout.irreps)
        self.mlp = nn.Sequential(
            FloorLayerNorm(width, floor), nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, width)
        )

    def forward(self, features: Tensor) -> Tensor:
        """(item, component, channel) -> the same shape."""
        scalars, *rest = features.split(self.layout.sizes, dim=1)
        norms = [(part.square().mean(dim=1) + 1e-8).sqrt() for part in rest]
        gates = self.mlp(torch.cat([scalars.squeeze(1), *norms], dim=-1))
        first, *others = gates.unflatten(1, (len(self.layout.irreps), -1)).split(1, dim=1)
        return torch.cat(
            [scalars + first, *[part + part * gate for part, gate in zip(rest, others, strict=True)]], dim=1
        )


class ChannelwiseProduct(nn.Module):
    """Channel-wise tensor product ('uuu' in e3nn) with one external weight per item, path and channel.

    The product of all components is taken at once and coupled by one dense orthonormal matrix, which beats a sparse sum
    over paths on every device tried, because it is a GEMM.

    Args:
        left, right, out: layouts.
    """

    matrix: Tensor

    def __init__(self, left: Layout, right: Layout, out: Layout) -> None:
        super().__init__()
        product = Product.full(left, right, out)
        self.n_paths = len(product.path_irrep)
        self.register_buffer("matrix", torch.from_numpy(product.matrix.T.copy()).float(), persistent=False)
        self._matrix64 = torch.from_numpy(product.matrix.T.copy())
        # paths are sorted by irrep: those of one irrep are summed as a (path, component) reshape
        self.paths = [product.path_irrep.count(index) for index in range(len(out.irreps))]
        self.sizes = out.sizes
        self.components = [count * size for count, size in zip(self.paths, out.sizes, strict=True)]

    def forward(self, left: Tensor, right: Tensor, weights: Tensor) -> Tensor:
        """left (item, a, channel), right (item, b, channel), weights (item, path, channel) -> (item, out, channel)."""
        outer = (left.unsqueeze(2) * right.unsqueeze(1)).flatten(1, 2)
        matrix = self.matrix if outer.dtype == torch.float32 else self._matrix64.to(outer)
        coupled = matrix @ outer
        parts = []
        groups = zip(coupled.split(self.components, dim=1), weights.split(self.paths, dim=1), strict=True)
        for (part, weight), count, size in zip(groups, self.paths, self.sizes, strict=True):  # no path: zeros
            paths = part.reshape(part.shape[0], count, size, part.shape[2])  # not unflatten: there may be no path
            parts.append((paths * weight.unsqueeze(2)).sum(dim=1))
        return torch.cat(parts, dim=1)


class FrameConvolution(nn.Module):
    """Channel-wise tensor product of source features with the bond's spherical harmonics ('uvu' in e3nn).

    In a frame whose pole is the bond, harmonics have m = 0 only, so the product couples equal m, and the paths
    l1 x l2 -> l3 of natural parity are exactly one weight for each (l1, l3, |m|) (Passaro & Zitnick, arXiv:2302.03655).
    Rotate, scale, rotate back; the frame's gauge drops out because m and -m share their weight.

    Args:
        layout: natural layout of the nodes.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.lmax = len(layout.irreps) - 1
        self.paths = [
            (l1, l3, m) for l3 in range(self.lmax + 1) for l1 in range(self.lmax + 1) for m in range(min(l1, l3) + 1)
        ]

    @property
    def n_weights(self) -> int:
        """Weights per edge and channel: as many as 'uvu' has paths."""
        return len(self.paths)

    def forward(self, source: Tensor, wigner: Sequence[Tensor], weights: Tensor) -> Tensor:
        """source (edge, component, channel), wigner per l, weights (edge, n_weights, channel) -> like source."""
        split = source.split(self.layout.sizes, dim=1)
        rotated = [(matrix @ part).unbind(1) for matrix, part in zip(wigner, split, strict=True)]
        path_weights = weights.unbind(1)
        out = []
        for l3 in range(self.lmax + 1):
            columns: list[Tensor | None] = [None] * (2 * l3 + 1)
            for index, (l1, target, m) in enumerate(self.paths):
                if target != l3:
                    continue
                weight = path_weights[index]
                for sign in (1, -1) if m else (1,):
                    term = weight * rotated[l1][l1 + sign * m]
                    old = columns[l3 + sign * m]
                    columns[l3 + sign * m] = term if old is None else old + term
            stacked = torch.stack([column for column in columns if column is not None], dim=1)
            out.append(wigner[l3].transpose(1, 2) @ stacked)
        return torch.cat(out, dim=1)


def sum_per_target(messages: Tensor, target: Tensor, n_targets: int) -> Tensor:
    """Sum messages (edge, ...) by their target atom -> (atom, ...)."""
    return messages.new_zeros((n_targets, *messages.shape[1:])).index_add_(0, target, messages)
