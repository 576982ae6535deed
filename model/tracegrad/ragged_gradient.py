"""TraceGrad on features with their own number of channels for each irrep, by an own kernel (``ragged_gradient.c``).

In torch the same takes some sixty passes over arrays that do not fit the caches, half of it for z's small network; the kernel
keeps what belongs to an item in them. Results differ by rounding only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from model.nn import native
from model.nn.so2 import Sectors

SOURCE: Final = Path(__file__).with_suffix(".c")
ALIGNMENT: Final = 64
FEWEST: Final = 32
"""Items for a thread, at least."""


@dataclass(frozen=True)
class ScalarNetwork:
    """Weights of z's network: Linear - LayerNorm - SiLU - Linear - LayerNorm - SiLU.

    Attributes:
        first, second: weights and biases of the linear layers, (out, in) and (out,).
        norms: weight and bias of the first LayerNorm, then of the second; None where they have none.
    """

    first: tuple[Tensor, Tensor]
    second: tuple[Tensor, Tensor]
    norms: tuple[Tensor | None, ...]


def library_for(features: Sectors) -> ctypes.CDLL | None:
    """The kernel, where it may stand in for torch on these features and can be had; None else."""
    return native.library(SOURCE, features[0].dtype) if native.usable(features[0]) else None


def gradient_added(
    library: ctypes.CDLL,
    features: Sectors,
    maps: Sequence[Tensor],
    scalars: ScalarNetwork,
    strength: Tensor,
    *,
    norm_scaled: bool,
) -> tuple[Tensor, Sectors]:
    """z and f + s v, or f + s |f| / |v| v.

    Args:
        library: of :func:`library_for`.
        features: f, one tensor (item, component, channel) an irrep.
        maps: A and B of each irrep side by side, each over the fourth root of 2l + 1, (channel, 2 * rank).
        scalars: z's network.
        strength: s, one number.
        norm_scaled: whether v is brought to the length of f.

    Returns:
        z (item, scalar) and the new features.
    """
    whole = [part.contiguous() for part in features]
    out = [torch.empty_like(part) for part in whole]
    first, first_bias = scalars.first
    second, second_bias = scalars.second
    n_items, (n_hidden, n_u), n_scalars = len(whole[0]), first.shape, len(second)
    z = whole[0].new_empty((n_items, n_scalars))
    dims, widths = ([part.shape[axis] for part in whole] for axis in (1, 2))
    ranks = [part.shape[1] // 2 for part in maps]
    arguments = [
        ctypes.c_int64(len(whole)),
        *(_integers(values) for values in (dims, widths, ranks)),
        *(_addresses(arrays) for arrays in (whole, out, maps)),
        *(ctypes.c_int64(value) for value in (n_u, n_hidden, n_scalars)),
        *(native.address(array) for array in (first, first_bias, second, second_bias)),
        _addresses(scalars.norms),
        native.address(strength),
        ctypes.c_int64(norm_scaled),
        native.address(z),
    ]
    size = sum(dim * width for dim, width in zip(dims, widths, strict=True))
    both = sum(2 * dim * rank for dim, rank in zip(dims, ranks, strict=True))
    scratch_bytes = ALIGNMENT * (2 * size + 2 * both + 2 * n_u + 5 * n_hidden + 3 * n_scalars + 1)

    def work(begin: int, end: int) -> None:
        scratch = torch.empty(scratch_bytes, dtype=torch.uint8)
        start = -scratch.data_ptr() % ALIGNMENT
        library.ragged_gradient(
            ctypes.c_int64(begin), ctypes.c_int64(end), *arguments, ctypes.c_void_p(scratch.data_ptr() + start)
        )

    native.in_parts(work, n_items, FEWEST)
    return z, tuple(out)


def _integers(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)


def _addresses(arrays: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    found = [None if array is None else native.address(array).value for array in arrays]
    return (ctypes.c_void_p * len(found))(*found)
