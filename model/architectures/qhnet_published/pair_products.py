"""Weighted coupled products of the two atoms of each pair, for both directions: most of a PairNet's work.

In torch (any device, gradients, export), or by an own kernel (``pair_products.c``), three to four times as fast.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.architectures.qhnet_published.fast_parts import Parts, couple, per_path, take
from model.architectures.qhnet_published.parameters import PairParameters
from model.architectures.qhnet_published.paths import TensorPath, wigner_3j
from model.nn import native

BLOCK = 64
"""Channels that the kernel takes at once; it needs a multiple of them."""
SOURCE = Path(__file__).with_suffix(".c")


def weighted_products(
    whole: Tensor,
    low: Tensor,
    high: Tensor,
    hidden: Tensor,
    radial_hidden: Tensor,
    parameters: PairParameters,
    *,
    kernels: bool,
) -> Parts:
    """Sums over paths of coupled products, each with its weight.

    The first direction has the low atom as column, and couples c(l1 of low, l2 of high). The second one's path
    (l2, l1) is the same c times (-1)^(l1 + l2 + l3), so nothing is coupled twice.

    Args:
        whole: features of the atoms, (component, atom, channel); components of l = 0..lmax one after the other.
        low, high: atoms of each pair.
        hidden: hidden layer of the weights' MLP of invariants, (direction * pair, n).
        radial_hidden: hidden layer of their radial MLP, (pair, n).
        kernels: use the kernel where it can be used; its results differ by rounding only.

    Returns:
        parts, items (direction, pair) flattened.
    """
    if kernels and whole.shape[2] % BLOCK == 0 and native.usable(whole):
        library = native.library(SOURCE, whole.dtype)
        if library is not None:
            return _by_kernel(library, whole, low, high, hidden, radial_hidden, parameters)
    return _by_torch(whole, low, high, hidden, radial_hidden, parameters)


def _by_torch(
    whole: Tensor, low: Tensor, high: Tensor, hidden: Tensor, radial_hidden: Tensor, parameters: PairParameters
) -> Parts:
    last, n_paths, groups = parameters.invariant.last, len(parameters.paths), parameters.groups
    # (path, direction, pair, channel)
    weights = per_path(hidden, last.weight.T, n_paths, last.bias).unflatten(1, (2, -1))
    weights.mul_(per_path(radial_hidden, parameters.radial.second, n_paths).unsqueeze(1))
    first, second = (one.unbind() for one in weights.unbind(1))
    lmax = parameters.paths[0].lmax
    left, right = take(whole, low, lmax), take(whole, high, lmax)
    forth: dict[int, Tensor] = {}
    back: dict[int, Tensor] = {}
    for (a, b), group in groups.items():
        start, turned = group.start, groups[b, a].start
        for index, (path, product) in enumerate(zip(group.paths, couple(left[a], right[b], group), strict=True)):
            one, other = first[start + index], second[turned + index]
            if a == 0:  # the first path into l3 is (0, l3), whose sign is plus
                forth[path.out], back[path.out] = product * one, product * other
            else:
                forth[path.out].addcmul_(product, one)
                back[path.out].addcmul_(product, other, value=(-1.0) ** (a + b + path.out))
    return [torch.cat([forth[ang], back[ang]], dim=1) for ang in range(lmax + 1)]


class Tables(NamedTuple):
    """Paths and terms in the order in which ``pair_products.c`` takes them; integers are int64."""

    turned: Tensor
    sign: Tensor
    first: Tensor
    size: Tensor
    start: Tensor
    left: Tensor
    right: Tensor
    factor: Tensor


@cache
def _tables(paths: tuple[TensorPath, ...], dtype: torch.dtype) -> Tables:
    place = {(path.left, path.right, path.out): index for index, path in enumerate(paths)}
    start, left, right, factor = [0], [], [], []
    for path in paths:
        table = path.coefficient * wigner_3j(path.left, path.right, path.out)
        for component in range(2 * path.out + 1):
            for a, b in np.argwhere(np.abs(table[..., component]) > 1e-12):
                left.append(path.left**2 + int(a))
                right.append(path.right**2 + int(b))
                factor.append(float(table[a, b, component]))
            start.append(len(factor))

    def integers(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64)

    return Tables(
        turned=integers([place[path.right, path.left, path.out] for path in paths]),
        sign=torch.tensor([(-1.0) ** (path.left + path.right + path.out) for path in paths], dtype=dtype),
        first=integers([path.out**2 for path in paths]),
        size=integers([2 * path.out + 1 for path in paths]),
        start=integers(start),
        left=integers(left),
        right=integers(right),
        factor=torch.tensor(factor, dtype=torch.float64).to(dtype),
    )


def _by_kernel(
    library: ctypes.CDLL,
    whole: Tensor,
    low: Tensor,
    high: Tensor,
    hidden: Tensor,
    radial_hidden: Tensor,
    parameters: PairParameters,
) -> Parts:
    n_components, n_atoms, channels = whole.shape
    n_pairs, paths, last = low.shape[0], parameters.paths, parameters.invariant.last
    tables, scratch_size = _tables(paths, whole.dtype), 4 * n_components * BLOCK
    inner, radial = hidden @ last.weight.T, radial_hidden @ parameters.radial.second
    out = whole.new_empty((n_components, 2 * n_pairs, channels))
    sizes = [ctypes.c_int64(size) for size in (n_pairs, n_atoms, channels, n_components, len(paths))]
    arrays = [native.address(array) for array in (whole, low, high, inner, last.bias, radial, *tables, out)]

    def work(begin: int, end: int) -> None:
        scratch = whole.new_empty(scratch_size)
        library.pair_products(ctypes.c_int64(begin), ctypes.c_int64(end), *sizes, *arrays, native.address(scratch))

    native.in_parts(work, n_pairs)
    return list(out.split([2 * ang + 1 for ang in range(paths[0].lmax + 1)]))
