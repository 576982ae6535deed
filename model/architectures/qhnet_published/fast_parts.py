"""Building blocks of the fast path: channels last, components first, one tensor per l.

``Parts`` is a list with one tensor (2l + 1, item, channel) for each l: every irrep is a contiguous matrix, so channel
mixing, coupling and gating need no gather and no padding.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import softplus

from model.architectures.qhnet_published.parameters import IrrepLinear, SiluMLP, WeightMLP
from model.architectures.qhnet_published.paths import (
    SHIFTED_SOFTPLUS_SCALE,
    PathGroup,
    constant,
    coupling_matrices,
    frame_matrices,
)

Parts = list[Tensor]
PAIRS_PER_CHUNK = 64
"""Pairs that are worked on at once, which bounds memory; between 48 and 128 of them the speed hardly changes."""


def to_parts(features: Tensor, lmax: int) -> Parts:
    """(item, component, channel) -> parts."""
    return list(features.transpose(0, 1).split([2 * ang + 1 for ang in range(lmax + 1)]))


def from_parts(parts: Parts) -> Tensor:
    """Parts -> (item, component, channel)."""
    return torch.cat(parts).transpose(0, 1)


def take(whole: Tensor, items: Tensor, lmax: int) -> Parts:
    """Parts of these items; ``whole`` is parts, concatenated, so that one gather does."""
    return list(whole.index_select(1, items).split([2 * ang + 1 for ang in range(lmax + 1)]))


def linear(parts: Parts, parameters: IrrepLinear) -> Parts:
    """e3nn's Linear; its factor 1 / sqrt(n_in) rides on the GEMM."""
    weight, n_out = parameters.weight, parameters.weight.shape[2]
    start = weight.detach()[0, 0] if parameters.bias is None else parameters.bias
    out = []
    for ang, (part, matrix) in enumerate(zip(parts, weight.unbind(), strict=True)):
        beta = 1 if ang == 0 and parameters.bias is not None else 0
        flat = torch.addmm(
            start if beta else start.detach(), part.flatten(0, 1), matrix, beta=beta, alpha=weight.shape[1] ** -0.5
        )
        out.append(flat.view(*part.shape[:2], n_out))
    return out


def norm_gate(parts: Parts, mlp: SiluMLP) -> Parts:
    """NormGate: scalars are replaced by, other irreps multiplied with, an MLP of scalars and norms."""
    squares = torch.cat([part.square().sum(dim=0) for part in parts[1:]], dim=-1)
    # the gradient at zero is zero; torch's own vector_norm over the first axis is five times slower
    norms = squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()
    gates = mlp(torch.cat([parts[0][0], norms], dim=-1))
    first, *rest = gates.chunk(len(parts), dim=1)
    return [first.unsqueeze(0), *[part * gate for part, gate in zip(parts[1:], rest, strict=True)]]


def inner_products(whole: Tensor, first: Tensor, second: Tensor, lmax: int) -> Tensor:
    """Mean over components of the features of two lists of items for each l >= 1: (item, l * channel)."""
    rest = whole[1:]
    product = rest.index_select(1, first) * rest.index_select(1, second)
    return torch.cat([part.mean(dim=0) for part in product.split([2 * ang + 1 for ang in range(1, lmax + 1)])], dim=-1)


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
    return [constant(matrix, like) for matrix in frame_matrices(lmax)]


@cache
def coupling_tensors(lmax: int, dtype: torch.dtype, device: torch.device) -> dict[tuple[int, int], Tensor]:
    """``paths.coupling_matrices`` as tensors."""
    like = torch.empty((), dtype=dtype, device=device)
    return {key: constant(table, like) for key, table in coupling_matrices(lmax).items()}


def couple(left: Tensor, right: Tensor, group: PathGroup) -> tuple[Tensor, ...]:
    """Channel-wise product of two irreps, (2 l1 + 1, item, channel) and (2 l2 + 1, item, channel), for each l3 of a group.

    One GEMM couples the outer product to all l3; where l1 or l2 is 0 there is nothing to couple.
    """
    path = group.paths[0]
    if path.left == 0 or path.right == 0:
        return (left * (right * (path.coefficient * (2 * path.out + 1) ** -0.5)),)
    table = coupling_tensors(path.lmax, left.dtype, left.device)[path.left, path.right]
    outer = (left.unsqueeze(1) * right).view(table.shape[1], -1)
    return torch.split_with_sizes((table @ outer).view(-1, *left.shape[1:]), group.sizes)
