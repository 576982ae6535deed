"""Building blocks of the fast path: channels last, components first, one tensor per l.

``Parts`` is a list with one tensor (2l + 1, item, channel) for each l: every irrep is a contiguous matrix, so channel
mixing, coupling and gating need no gather and no padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from model.backbone.qhnet_strict.parameters import IrrepLinear, WeightMLP
from model.backbone.qhnet_strict.paths import (
    SHIFTED_SOFTPLUS_SCALE,
    TensorPath,
    constant,
    coupling_matrices,
    frame_matrices,
)

Parts = list[Tensor]
PAIRS_PER_CHUNK = 64
"""Pairs that are worked on at once: their intermediates stay in a core's cache, and memory stays flat."""


def to_parts(features: Tensor, lmax: int) -> Parts:
    """(item, component, channel) -> parts."""
    return list(features.transpose(0, 1).split([2 * ang + 1 for ang in range(lmax + 1)]))


def from_parts(parts: Parts) -> Tensor:
    """Parts -> (item, component, channel)."""
    return torch.cat(parts).transpose(0, 1)


def take(parts: Parts, items: Tensor) -> Parts:
    """Parts of these items."""
    return [part.index_select(1, items) for part in parts]


def linear(parts: Parts, parameters: IrrepLinear) -> Parts:
    """e3nn's Linear."""
    weights = (parameters.weight * parameters.weight.shape[1] ** -0.5).unbind()
    out = [part.flatten(0, 1) @ weight for part, weight in zip(parts, weights, strict=True)]
    if parameters.bias is not None:
        out[0] = out[0] + parameters.bias
    return [flat.view(*part.shape[:2], -1) for flat, part in zip(out, parts, strict=True)]


def norm_gate(parts: Parts, mlp: nn.Sequential) -> Parts:
    """NormGate: scalars are replaced by, other irreps multiplied with, an MLP of scalars and norms."""
    squares = torch.cat([part.square().sum(dim=0) for part in parts[1:]], dim=-1)
    # the gradient at zero is zero; torch's own vector_norm over the first axis is five times slower
    norms = squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()
    gates = mlp(torch.cat([parts[0][0], norms], dim=-1))
    first, *rest = gates.chunk(len(parts), dim=1)
    return [first.unsqueeze(0), *[part * gate for part, gate in zip(parts[1:], rest, strict=True)]]


def inner_products(left: Parts, right: Parts) -> Tensor:
    """Mean over components of left * right for each l >= 1: (item, l * channel)."""
    return torch.cat([(a * b).mean(dim=0) for a, b in zip(left[1:], right[1:], strict=True)], dim=-1)


def shifted_softplus(values: Tensor) -> Tensor:
    """softplus(x) - ln 2."""
    return softplus(values) - math.log(2.0)


def hidden_of(preactivation: Tensor, mlp: WeightMLP) -> Tensor:
    """Hidden layer of a weight MLP from ``input @ first``, with every constant factor of its second layer included."""
    n_in, n_hidden = mlp.first.shape
    return shifted_softplus(preactivation * n_in**-0.5) * (SHIFTED_SOFTPLUS_SCALE * n_hidden**-0.5)


def per_path(hidden: Tensor, weight: Tensor, n_paths: int, bias: Tensor | None = None) -> Tensor:
    """hidden (item, n) @ weight (n, path * channel) -> (path, item, channel)."""
    split = weight.unflatten(1, (n_paths, -1)).transpose(0, 1)
    out = torch.bmm(hidden.expand(n_paths, *hidden.shape), split)
    return out if bias is None else out.add_(bias.unflatten(0, (n_paths, 1, -1)))  # baddbmm would copy the bias first


@cache
def frame_weights(lmax: int, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """``paths.frame_matrices`` as tensors."""
    like = torch.empty((), dtype=dtype, device=device)
    return [constant(lambda matrix=matrix: matrix, like) for matrix in frame_matrices(lmax)]


@cache
def coupling_tensors(lmax: int, dtype: torch.dtype, device: torch.device) -> dict[tuple[int, int], Tensor]:
    """``paths.coupling_matrices`` as tensors."""
    like = torch.empty((), dtype=dtype, device=device)
    return {key: constant(lambda table=table: table, like) for key, table in coupling_matrices(lmax).items()}


@cache
def grouped(paths: tuple[TensorPath, ...]) -> tuple[tuple[tuple[int, int], tuple[TensorPath, ...], list[int]], ...]:
    """Paths by (l1, l2), with 2 l3 + 1 of each."""
    groups: dict[tuple[int, int], list[TensorPath]] = {}
    for path in paths:
        groups.setdefault((path.left, path.right), []).append(path)
    return tuple((key, tuple(group), [2 * path.out + 1 for path in group]) for key, group in groups.items())


def coupled(left: Parts, right: Parts, paths: tuple[TensorPath, ...]) -> Iterator[tuple[TensorPath, Tensor, float]]:
    """Channel-wise products of all paths: (path, (2 l3 + 1, item, channel), factor still to be multiplied).

    One GEMM per (l1, l2) couples their outer product to all l3; where l1 or l2 is 0 there is nothing to couple.
    """
    tables = coupling_tensors(len(left) - 1, left[0].dtype, left[0].device)
    items = left[0].shape[1:]
    for (a, b), group, sizes in grouped(paths):
        if a == 0 or b == 0:
            yield group[0], left[a] * right[b], group[0].coefficient * (2 * max(a, b) + 1) ** -0.5
            continue
        outer = left[a].unsqueeze(1) * right[b]
        product = (tables[a, b] @ outer.view((2 * a + 1) * (2 * b + 1), -1)).view(-1, *items)
        for path, part in zip(group, torch.split_with_sizes(product, sizes), strict=True):
            yield path, part, 1.0


def add_product(total: Tensor, left: Tensor, right: Tensor, factor: float) -> None:
    """total += factor * left * right, in place (``total`` is fresh, and its value is not needed for gradients)."""
    total.addcmul_(left, right, value=factor)


def silu_hidden(preactivation: Tensor) -> Tensor:
    """Hidden layer of a SiLU MLP."""
    return silu(preactivation)
