"""Irreps layout of features and the coupling of two of them.

Features are channels-last: shape (item, component, channel). A layout lists irreps (l, parity); each takes 2l + 1
components, m = -l..l, and all have the same number of channels, so that every per-irrep operation is one GEMM.

Parity is the true one of O(3): a node carries the natural parity (-1)^l; a pair feature of an (l1, l2) block has parity
(-1)^(l1 + l2), so both kinds occur (1e, 2o, 3e beside 1o, 2e, 3o). QHNet labels all of them even (SO(3) only).

Clebsch-Gordan coefficients come from e3nn's real Wigner 3j symbols, built in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate
from typing import NamedTuple

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
        return cls.of(found)

    @classmethod
    def of(cls, irreps: Iterable[Irrep]) -> Layout:
        """These irreps in order: by l, the natural parity first."""
        return cls(tuple(sorted(set(irreps), key=lambda irrep: (irrep[0], irrep[1] != (-1) ** irrep[0]))))

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


@dataclass(frozen=True)
class RaggedLayout:
    """Irreps that each have their own number of channels: features are one tensor (item, 2l + 1, channels) an irrep.

    Attributes:
        layout: the irreps.
        channels: of each of them.
    """

    layout: Layout
    channels: tuple[int, ...]

    @property
    def dims(self) -> tuple[int, ...]:
        """Components of each tensor."""
        return self.layout.sizes

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each tensor."""
        return self.channels


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


class SpinTerm(NamedTuple):
    """Real components of a block that turn together.

    Attributes:
        name: "h" (restricted), "mean", "difference" (unrestricted), "Re h0", "Re h", "Im h0", "Im h" (spinor).
        components: positions along the block's component axis: one (a scalar of spin), or three (x, y, z of an axial
            vector, the irrep 1e).
        group: components whose squares a trace label may add up have the same number (``BlockSpace.trace_index``).
    """

    name: str
    components: tuple[int, ...]
    group: int

    @property
    def is_vector(self) -> bool:
        """Whether it is an axial vector of spin."""
        return len(self.components) == 3


class Channel(NamedTuple):
    """Where an irrep of a block comes from.

    Attributes:
        row, column: shells of the template.
        orbital: L, to which the two shells couple. The irrep itself if the term is a scalar of spin; L - 1, L or L + 1
            if it is a vector, (l1 x l2 -> L) x 1e.
        term: index into ``CoefficientLayout.terms``.
    """

    row: int
    column: int
    orbital: int
    term: int


@dataclass(frozen=True)
class CoefficientLayout:
    """Irrep coefficients of a template block, flattened: for each irrep (2l + 1) components by its multiplicity.

    All that an architecture needs to know of what it reads or reads out: its features must reach every irrep of
    ``layout``, unnatural parities (0o, 1e, 2o ...) and, for spinors, l up to l1 + l2 + 1 included.

    Attributes:
        layout: the irreps.
        multiplicity: channels of each irrep.
        slices: flat coefficients of each irrep.
        template: angular momentum of each shell of the template block.
        terms: the real components of a block, by how they turn with spin; one scalar if there is no spin.
        channels: where each channel of each irrep comes from, in order; inside an irrep by term, row, column, L.
    """

    layout: Layout
    multiplicity: tuple[int, ...]
    slices: tuple[slice, ...]
    template: tuple[int, ...]
    terms: tuple[SpinTerm, ...]
    channels: tuple[Channel, ...]

    @classmethod
    def of(cls, template: Sequence[int], terms: Sequence[SpinTerm]) -> CoefficientLayout:
        """All irreps of a template's block.

        Args:
            template: angular momentum of each shell.
            terms: the real components of the block.
        """
        by_irrep: dict[Irrep, list[Channel]] = {}
        if not any(term.is_vector for term in terms):
            by_irrep = {irrep: [] for irrep in Layout.of_products(max(template)).irreps}
        for index, term in enumerate(terms):
            for a, la in enumerate(template):
                for b, lb in enumerate(template):
                    for orbital in range(abs(la - lb), la + lb + 1):
                        for ang in _coupled_with_spin(orbital, term):
                            by_irrep.setdefault((ang, (-1) ** (la + lb)), []).append(Channel(a, b, orbital, index))
        layout = Layout.of(by_irrep)
        multiplicity = tuple(len(by_irrep[irrep]) for irrep in layout.irreps)
        widths = [(2 * ang + 1) * count for (ang, _), count in zip(layout.irreps, multiplicity, strict=True)]
        return cls(
            layout=layout,
            multiplicity=multiplicity,
            slices=tuple(slice(end - width, end) for end, width in zip(accumulate(widths), widths, strict=True)),
            template=tuple(template),
            terms=tuple(terms),
            channels=tuple(channel for irrep in layout.irreps for channel in by_irrep[irrep]),
        )

    @property
    def shell_pairs(self) -> tuple[tuple[int, int], ...]:
        """(row shell, column shell) of each channel."""
        return tuple((channel.row, channel.column) for channel in self.channels)

    @property
    def n_components(self) -> int:
        """Real components of a block."""
        return sum(len(term.components) for term in self.terms)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Orthogonal, (component * row * column, coefficient): ``block.ravel() = matrix @ coefficients``."""
        starts = np.concatenate([[0], np.cumsum([2 * ang + 1 for ang in self.template])])
        size, first, parts = int(starts[-1]), 0, []
        for (ang, _), count in zip(self.layout.irreps, self.multiplicity, strict=True):
            part = np.zeros((self.n_components, size, size, 2 * ang + 1, count))
            for index, channel in enumerate(self.channels[first : first + count]):
                rows = slice(starts[channel.row], starts[channel.row + 1])
                columns = slice(starts[channel.column], starts[channel.column + 1])
                table = coupling(self.template[channel.row], self.template[channel.column], channel.orbital)
                term = self.terms[channel.term]
                if term.is_vector:
                    with_spin = np.einsum("abl,lsm->sabm", table, coupling(channel.orbital, 1, ang))
                    x, y, z = term.components
                    part[[y, z, x], rows, columns, :, index] = with_spin  # m = -1, 0, 1 is (y, z, x)
                else:
                    part[term.components[0], rows, columns, :, index] = table
            parts.append(part.reshape(self.n_components * size * size, -1))
            first += count
        return np.concatenate(parts, axis=1)


def _coupled_with_spin(orbital: int, term: SpinTerm) -> Sequence[int]:
    if not term.is_vector:
        return (orbital,)
    return range(abs(orbital - 1), orbital + 2)
