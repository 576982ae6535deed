"""From the published read-out to this project's irrep coefficients (``CoefficientLayout``)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.architectures.qhnet_published.paths import constant, expansion_paths
from model.nn.irreps import CoefficientLayout


def expansion_order(layout: CoefficientLayout, lmax: int) -> tuple[NDArray[np.int64], ...]:
    """Where each of our irrep coefficients stands in the flat output of the read-out, and its partner in the transpose.

    The flat output is sorted by l, then m, then path, row shell, column shell.

    Returns:
        position of each coefficient; position of its partner in the block of the swapped pair; sign of the partner
        (the coupling of (b, a) is that of (a, b) times (-1)^(l1 + l2 + l)); l of each coefficient.
    """
    template = layout.template
    number = [template[:shell].count(ang) for shell, ang in enumerate(template)]
    start: dict[tuple[int, int, int], int] = {}
    width, base = Counter[int](), {}
    for path in expansion_paths(template, lmax):
        start[path.ang, path.left, path.right] = width[path.ang]
        width[path.ang] += path.n_rows * path.n_columns
    offset = 0
    for ang in range(lmax + 1):
        base[ang] = offset
        offset += (2 * ang + 1) * width[ang]

    def position(ang: int, component: int, row: int, column: int) -> int:
        left, right = template[row], template[column]
        inner = start[ang, left, right] + number[row] * template.count(right) + number[column]
        return base[ang] + component * width[ang] + inner

    places, partners, signs, angs = [], [], [], []
    first = 0
    for (ang, parity), count in zip(layout.layout.irreps, layout.multiplicity, strict=True):
        for component in range(2 * ang + 1):
            for row, column in layout.shell_pairs[first : first + count]:
                places.append(position(ang, component, row, column))
                partners.append(position(ang, component, column, row))
                signs.append(parity * (-1) ** ang)
                angs.append(ang)
        first += count
    return np.array(places), np.array(partners), np.array(signs), np.array(angs)


@dataclass(frozen=True)
class CoefficientTables:
    """Constant tensors of one layout, dtype and device.

    Attributes:
        place, partner: columns of the flat expansion output for the block and for its transposed partner.
        scale, partner_scale: their factors.
        projection: ``CoefficientLayout.matrix``, template blocks -> coefficients.
    """

    place: Tensor
    partner: Tensor
    scale: Tensor
    partner_scale: Tensor
    projection: Tensor

    @classmethod
    def of(cls, layout: CoefficientLayout, lmax: int, bottleneck: int, like: Tensor) -> CoefficientTables:
        place, partner, sign, ang = expansion_order(layout, lmax)
        # over the bottleneck's channels as published; our coupling has columns of norm 1, a 3j symbol 1 / sqrt(2l + 1)
        scale = (2 * ang + 1) ** -0.5 / bottleneck
        with torch.inference_mode(False):
            return cls(
                torch.as_tensor(place, device=like.device),
                torch.as_tensor(partner, device=like.device),
                constant(scale, like),
                constant(scale * sign, like),
                constant(layout.matrix, like),
            )
