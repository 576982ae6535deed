"""Expansion: template blocks <-> irrep coefficients, one orthogonal matrix (QHNet's "Expansion", arXiv:2306.04922 Eq. 7).

A block of shells (a, b) with angular momenta (la, lb) is the direct sum of l = |la - lb| .. la + lb. With orthonormal
Clebsch-Gordan coefficients the map of a whole template block is orthogonal: norms, and so mean squared errors, are the
same on both sides. Coefficients are laid out as features are: for each irrep of the layout, components by channels
(here the *multiplicity*: which shell pair the irrep belongs to), flattened.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from model.nn.irreps import CoefficientLayout, Irrep, Layout, block_irreps


class Expansion:
    """The map for one template.

    Args:
        template: angular momentum of each shell of the template.

    Attributes:
        coefficients: layout of the coefficients; multiplicities are 14 scalars, 16 of 1o ... for def2-SVP.
        shell_pairs: for each channel of each irrep, in order, its (row shell, column shell).
        matrix: orthogonal, shape (row * column, coefficient), float64: ``block.ravel() = matrix @ coefficients``.
    """

    def __init__(self, template: Sequence[int]) -> None:
        self.template = tuple(template)
        layout = Layout.of_products(max(template))
        by_irrep: dict[Irrep, list[tuple[int, int]]] = {irrep: [] for irrep in layout.irreps}
        for a, b, irrep in block_irreps(template, template):
            by_irrep[irrep].append((a, b))
        self.shell_pairs: tuple[tuple[int, int], ...] = tuple(
            pair for irrep in layout.irreps for pair in by_irrep[irrep]
        )
        multiplicity = tuple(len(by_irrep[irrep]) for irrep in layout.irreps)
        widths = [(2 * ang + 1) * count for (ang, _), count in zip(layout.irreps, multiplicity, strict=True)]
        self.coefficients = CoefficientLayout(
            layout=layout,
            multiplicity=multiplicity,
            slices=tuple(slice(end - width, end) for end, width in zip(accumulate(widths), widths, strict=True)),
            template=self.template,
            shell_pairs=self.shell_pairs,
        )
        self.matrix: NDArray[np.float64] = self.coefficients.matrix

    @property
    def channel_of_coefficient(self) -> NDArray[np.int64]:
        """Index into ``shell_pairs`` of each coefficient; shape (coefficient,)."""
        parts = []
        start = 0
        for (ang, _), count in zip(self.coefficients.layout.irreps, self.coefficients.multiplicity, strict=True):
            parts.append(np.tile(np.arange(start, start + count), 2 * ang + 1))
            start += count
        return np.concatenate(parts)

    def shell_pair_index(self) -> NDArray[np.int64]:
        """Flat shell-pair index a * n_shells + b of each coefficient: sums squares per shell pair (the trace label)."""
        flat = np.array([a * len(self.template) + b for a, b in self.shell_pairs])
        return np.asarray(flat[self.channel_of_coefficient])
