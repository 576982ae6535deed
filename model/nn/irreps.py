"""Irreps layout of features and the coupling of two of them.

Features are channels-last: shape (item, component, channel). A layout lists irreps (l, parity); each takes 2l + 1
components, m = -l..l, and all have the same number of channels, so that every per-irrep operation is one GEMM.

Parity is the true one of O(3): a node carries the natural parity (-1)^l; a pair feature of an (l1, l2) block has parity
(-1)^(l1 + l2), so both kinds occur (1e, 2o, 3e beside 1o, 2e, 3o). QHNet labels all of them even (SO(3) only).

Clebsch-Gordan coefficients come from e3nn's real Wigner 3j symbols, built in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from numpy.typing import NDArray

Irrep = tuple[int, int]
"""(l, parity) with parity +1 or -1."""


def natural(ang: int) -> Irrep:
    """The irrep of an AO of angular momentum l: parity (-1)^l."""
    return (ang, (-1) ** ang)


@dataclass(frozen=True)
class Layout:
    """Order of irreps along the component axis.

    Attributes:
        irreps: the irreps, each once; a scalar (0, 1) comes first if there is one.
    """

    irreps: tuple[Irrep, ...]

    @classmethod
    def natural(cls, lmax: int) -> Layout:
        """0e + 1o + 2e + ... up to lmax: the layout of nodes."""
        return cls(tuple(natural(ang) for ang in range(lmax + 1)))

    @classmethod
    def of_products(cls, lmax: int) -> Layout:
        """All irreps of the product of two natural layouts up to lmax: what a pair block needs.

        For lmax 2: 0e 1o 1e 2e 2o 3o 3e 4e.
        """
        found = {
            (ang, (-1) ** (left + right))
            for left in range(lmax + 1)
            for right in range(lmax + 1)
            for ang in range(abs(left - right), left + right + 1)
        }
        return cls(tuple(sorted(found, key=lambda irrep: (irrep[0], irrep[1] != (-1) ** irrep[0]))))

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Components of each irrep."""
        ends = np.cumsum([2 * ang + 1 for ang, _ in self.irreps])
        return tuple(slice(int(end) - 2 * ang - 1, int(end)) for end, (ang, _) in zip(ends, self.irreps, strict=True))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """2l + 1 of each irrep. Networks split by it: a split's backward is one copy, a slice's a full array of zeros."""
        return tuple(2 * ang + 1 for ang, _ in self.irreps)

    @property
    def dim(self) -> int:
        """Number of components."""
        return sum(self.sizes)

    @property
    def component_irrep(self) -> NDArray[np.int64]:
        """Index of the irrep that each component belongs to; shape (component,)."""
        return np.repeat(np.arange(len(self.irreps)), self.sizes)


@cache
def coupling(left: int, right: int, ang: int) -> NDArray[np.float64]:
    """Real Clebsch-Gordan coefficients C with orthonormal columns: shape (2 left + 1, 2 right + 1, 2 ang + 1).

    ``sum(C[a, b, m] * C[a, b, n], over a, b) = delta_mn``: coupling a block keeps its Frobenius norm.
    """
    from e3nn.o3 import wigner_3j  # e3nn takes seconds to import: only who builds a network pays

    symbol = wigner_3j(left, right, ang, dtype=torch.float64).numpy()  # rounded to float32 it costs equivariance 1e-8
    return np.asarray(symbol * np.sqrt(2 * ang + 1))


@dataclass(frozen=True)
class Product:
    """Paths of a channel-wise tensor product left x right -> out, as one dense matrix.

    Attributes:
        matrix: shape (left component * right component, coupled component); columns are grouped by path.
        path_irrep: index in ``out`` of each path's irrep.
        path_dim: 2l + 1 of each path.
    """

    matrix: NDArray[np.float64]
    path_irrep: tuple[int, ...]
    path_dim: tuple[int, ...]

    @classmethod
    def full(cls, left: Layout, right: Layout, out: Layout) -> Product:
        """All paths whose result is in ``out``, sorted by the irrep they end in."""
        columns, targets, dims = [], [], []
        for index, (ang, parity) in enumerate(out.irreps):
            for (l1, p1), s1 in zip(left.irreps, left.slices, strict=True):
                for (l2, p2), s2 in zip(right.irreps, right.slices, strict=True):
                    if p1 * p2 != parity or not abs(l1 - l2) <= ang <= l1 + l2:
                        continue
                    column = np.zeros((left.dim, right.dim, 2 * ang + 1))
                    column[s1, s2] = coupling(l1, l2, ang)
                    columns.append(column.reshape(-1, 2 * ang + 1))
                    targets.append(index)
                    dims.append(2 * ang + 1)
        return cls(np.concatenate(columns, axis=1), tuple(targets), tuple(dims))


def block_irreps(left: Sequence[int], right: Sequence[int]) -> list[tuple[int, int, Irrep]]:
    """(row shell, column shell, irrep) of every irrep in a block whose shells have these angular momenta."""
    return [
        (a, b, (ang, (-1) ** (la + lb)))
        for a, la in enumerate(left)
        for b, lb in enumerate(right)
        for ang in range(abs(la - lb), la + lb + 1)
    ]


@dataclass(frozen=True)
class CoefficientLayout:
    """Irrep coefficients of a template block, flattened: for each irrep (2l + 1) components by its multiplicity.

    Attributes:
        layout: the irreps.
        multiplicity: channels of each irrep, that is, in how many shell pairs it occurs.
        slices: flat coefficients of each irrep.
        template: angular momentum of each shell of the template block.
        shell_pairs: (row shell, column shell) of each channel of each irrep, in order.
    """

    layout: Layout
    multiplicity: tuple[int, ...]
    slices: tuple[slice, ...]
    template: tuple[int, ...]
    shell_pairs: tuple[tuple[int, int], ...]

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Orthogonal, (row * column, coefficient): ``block.ravel() = matrix @ coefficients``."""
        starts = np.concatenate([[0], np.cumsum([2 * ang + 1 for ang in self.template])])
        size, first, parts = int(starts[-1]), 0, []
        for (ang, _), count in zip(self.layout.irreps, self.multiplicity, strict=True):
            part = np.zeros((size, size, 2 * ang + 1, count))
            for channel, (a, b) in enumerate(self.shell_pairs[first : first + count]):
                rows, columns = slice(starts[a], starts[a + 1]), slice(starts[b], starts[b + 1])
                part[rows, columns, :, channel] = coupling(self.template[a], self.template[b], ang)
            parts.append(part.reshape(size * size, -1))
            first += count
        return np.concatenate(parts, axis=1)
