"""Paths of QHNet's tensor products with their normalisation, and the constant matrices that evaluate them fast.

Published normalisation: an instruction of a product gets the path weight sqrt((2 l3 + 1) / number of paths), and e3nn
("component", "element") multiplies it by (2 l3 + 1) / (number of paths that end in l3) under another root.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from model.nn.irreps import coupling

SHIFTED_SOFTPLUS_SCALE = 1.878204668541552
"""1 / root mean square of softplus(x) - ln 2 over normal x, as e3nn estimates it (``normalize2mom``, seed 0)."""


@dataclass(frozen=True)
class TensorPath:
    """One path l1 x l2 -> l3.

    Attributes:
        left, right, out: l1, l2, l3.
        weight: the published path weight, an argument of e3nn's TensorProduct.
        coefficient: what the Wigner 3j symbol is multiplied by in the end.
        lmax: highest l of the product.
    """

    left: int
    right: int
    out: int
    weight: float
    coefficient: float
    lmax: int


@cache
def tensor_paths(lmax: int, *, left_lmax: int, natural: bool) -> tuple[TensorPath, ...]:
    """All paths with l1 <= left_lmax and l2, l3 <= lmax, in the order of the published weights.

    Args:
        natural: parity (-1)^l, so only even l1 + l2 + l3 occur (convolutions); otherwise all of a triangle (pairs).
    """
    triples = [
        (left, right, out)
        for left in range(left_lmax + 1)
        for right in range(lmax + 1)
        for out in range(abs(left - right), min(left + right, lmax) + 1)
        if not natural or (left + right + out) % 2 == 0
    ]
    per_out = Counter(out for _, _, out in triples)
    paths = []
    for left, right, out in triples:
        weight = math.sqrt((2 * out + 1) / len(triples))
        coefficient = math.sqrt((2 * out + 1) / per_out[out] * weight)
        paths.append(TensorPath(left, right, out, weight, coefficient, lmax))
    return tuple(paths)


@dataclass(frozen=True)
class PathGroup:
    """Paths of one (l1, l2), which follow each other in the list of all paths.

    Attributes:
        paths: the paths, by rising l3.
        start: place of the first among all paths.
        sizes: 2 l3 + 1 of each.
    """

    paths: tuple[TensorPath, ...]
    start: int
    sizes: tuple[int, ...]


def grouped(paths: tuple[TensorPath, ...]) -> dict[tuple[int, int], PathGroup]:
    """Paths by (l1, l2)."""
    keys = [(path.left, path.right) for path in paths]
    groups = {}
    for key in dict.fromkeys(keys):
        members = tuple(path for path in paths if (path.left, path.right) == key)
        groups[key] = PathGroup(members, keys.index(key), tuple(2 * path.out + 1 for path in members))
    return groups


def wigner_3j(left: int, right: int, out: int) -> NDArray[np.float64]:
    """e3nn's real Wigner 3j symbol, float64; shape (2 left + 1, 2 right + 1, 2 out + 1)."""
    return np.asarray(coupling(left, right, out) / math.sqrt(2 * out + 1))


@cache
def frame_matrices(lmax: int) -> tuple[NDArray[np.float64], ...]:
    """Path weights of a convolution -> weights in the bond's frame; for each l1 a matrix (frame weight, path of this l1).

    In the frame the harmonics are sqrt(2 l2 + 1) at m = 0 and nothing else, so a path scales the component m of the
    source by its 3j symbol at (m, 0, m), the same for m and -m. Rows are sorted by m = 0..l1, then l3 = m..lmax.
    """
    matrices = []
    for left in range(lmax + 1):
        paths = [path for path in tensor_paths(lmax, left_lmax=lmax, natural=True) if path.left == left]
        rows = [(m, out) for m in range(left + 1) for out in range(m, lmax + 1)]
        matrix = np.zeros((len(rows), len(paths)))
        for row, (m, out) in enumerate(rows):
            for column, path in enumerate(paths):
                if path.out == out:
                    symbol = wigner_3j(left, path.right, out)[left + m, path.right, out + m]
                    matrix[row, column] = path.coefficient * math.sqrt(2 * path.right + 1) * symbol
        matrices.append(matrix)
    return tuple(matrices)


@cache
def coupling_matrices(lmax: int) -> dict[tuple[int, int], NDArray[np.float64]]:
    """For l1, l2 >= 1: outer product of two irreps -> all their paths, coefficients included.

    Returns:
        (l1, l2) -> (sum of 2 l3 + 1 over its paths, (2 l1 + 1) (2 l2 + 1)).
    """
    found: dict[tuple[int, int], list[NDArray[np.float64]]] = {}
    for path in tensor_paths(lmax, left_lmax=lmax, natural=False):
        if path.left and path.right:
            table = path.coefficient * wigner_3j(path.left, path.right, path.out)
            found.setdefault((path.left, path.right), []).append(table.reshape(-1, 2 * path.out + 1).T)
    return {key: np.concatenate(tables) for key, tables in found.items()}


@dataclass(frozen=True)
class ExpansionPath:
    """One path of the read-out: irrep l -> blocks of n_rows shells of l1 by n_columns shells of l2."""

    ang: int
    left: int
    right: int
    n_rows: int
    n_columns: int


def expansion_paths(template: Sequence[int], lmax: int) -> tuple[ExpansionPath, ...]:
    """Paths in the order of the published weights: 19 for three s, two p and one d shell."""
    shells = Counter(template)
    return tuple(
        ExpansionPath(ang, left, right, shells[left], shells[right])
        for ang in range(lmax + 1)
        for left in sorted(shells)
        for right in sorted(shells)
        if abs(left - right) <= ang <= left + right
    )


def constant(array: NDArray[np.float64], like: torch.Tensor) -> torch.Tensor:
    """A matrix as a tensor of the same dtype and device as ``like``, usable in and out of inference mode."""
    with torch.inference_mode(False):
        return torch.as_tensor(array).to(dtype=like.dtype, device=like.device)
