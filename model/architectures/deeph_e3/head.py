"""The head, and how its published outputs lie among this project's irrep coefficients (``CoefficientLayout``).

Published outputs of an edge are irreps c in the order of the targets: of each real copy of a block (with spin-orbit
coupling its real part, then its imaginary part), of each pair of shells, L of H_block = sum_L w3j(l1, l2, L) c_L, and with
spin the vector's L and J of w3j(l1, l2, L) w3j(L, 1, J) c_LJ. Coefficients here belong to couplings of norm 1, so they are
c / sqrt(2 L + 1), with a vector's another sqrt(2 J + 1). Columns (o, y, z, x) / sqrt(2) of the published spin part are
sqrt(2) times h0, hy, hz, hx, which is what ``BlockSpace`` calls components.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.architectures.deeph_e3.parts import Parts
from model.architectures.deeph_e3.slots import Slots
from model.nn.irreps import Channel, CoefficientLayout, Irrep
from model.nn.layers import mix


class Output(NamedTuple):
    """One published output irrep.

    Attributes:
        irrep: l and parity.
        channel: its channel in the ``CoefficientLayout``, among those of the irrep.
        scale: coefficient over output.
    """

    irrep: Irrep
    channel: int
    scale: float


class OutputOrder:
    """Published outputs of a layout of coefficients.

    Args:
        coefficients: the layout.
    """

    def __init__(self, coefficients: CoefficientLayout) -> None:
        self.coefficients = coefficients
        channels: dict[tuple[Irrep, Channel], int] = {}
        first = 0
        for irrep, count in zip(coefficients.layout.irreps, coefficients.multiplicity, strict=True):
            for place, channel in enumerate(coefficients.channels[first : first + count]):
                channels[irrep, channel] = place
            first += count
        self.outputs = [
            Output(irrep, channels[irrep, channel], norm**-0.5) for irrep, channel, norm in _published(coefficients)
        ]

    def of(self, irrep: Irrep) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Of each coefficient channel of an irrep: which of the irrep's outputs it is, and its scale."""
        mine = [output for output in self.outputs if output.irrep == irrep]
        place = np.argsort([output.channel for output in mine])
        return place, np.array([mine[index].scale for index in place])

    @cached_property
    def raw(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Of each component of the published outputs: the coefficient that it is, and output over coefficient."""
        layout = self.coefficients
        starts = {
            irrep: (part.start, count)
            for irrep, part, count in zip(layout.layout.irreps, layout.slices, layout.multiplicity, strict=True)
        }
        places: list[int] = []
        scales: list[float] = []
        for (ang, parity), channel, scale in self.outputs:
            start, count = starts[ang, parity]
            places.extend(start + component * count + channel for component in range(2 * ang + 1))
            scales.extend([1.0 / scale] * (2 * ang + 1))
        return np.array(places), np.array(scales)

    @cached_property
    def adjoint(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Of each coefficient of a block: which coefficient of the reversed pair's block equals it, and the sign."""
        layout = self.coefficients
        places: list[int] = []
        signs: list[int] = []
        first = 0
        for (ang, _), part, count in zip(layout.layout.irreps, layout.slices, layout.multiplicity, strict=True):
            channels = layout.channels[first : first + count]
            first += count
            where = {channel: index for index, channel in enumerate(channels)}
            for component in range(2 * ang + 1):
                for row, column, orbital, term in channels:
                    swapped = Channel(column, row, orbital, term)
                    places.append(part.start + component * count + where[swapped])
                    exchange = (-1) ** (layout.template[row] + layout.template[column] + orbital)
                    signs.append(exchange * (-1 if layout.terms[term].name.startswith("Im") else 1))
        return np.array(places), np.array(signs, dtype=np.float64)


def _published(coefficients: CoefficientLayout) -> Iterator[tuple[Irrep, Channel, int]]:
    """Published outputs in order: irrep, where it comes from, and output over coefficient squared."""
    copies: list[list[int]] = []  # a scalar of spin, and the vector after it if there is one
    for index, term in enumerate(coefficients.terms):
        if term.is_vector and copies:
            copies[-1].append(index)
        else:
            copies.append([index])
    shells = list(enumerate(coefficients.template))
    for copy, (a, la), (b, lb) in product(copies, shells, shells):
        for index in copy:
            for orbital in range(abs(la - lb), la + lb + 1):
                channel, parity = Channel(a, b, orbital, index), (-1) ** (la + lb)
                if not coefficients.terms[index].is_vector:
                    yield (orbital, parity), channel, 2 * orbital + 1
                    continue
                for ang in range(abs(orbital - 1), orbital + 2):
                    yield (ang, parity), channel, (2 * orbital + 1) * (2 * ang + 1)


class EdgeHead(nn.Module):
    """Channel mixing to all outputs, as coefficients; the published linear map with its columns reordered and scaled.

    It starts at zero, so that a new network starts at the mean of its targets.

    Args:
        slots: features of edges after the last block.
        order: the outputs.
    """

    scales: Tensor

    def __init__(self, slots: Slots, order: OutputOrder) -> None:
        super().__init__()
        self.slots = slots
        self.irreps = order.coefficients.layout.irreps
        self.counts = {irrep: count for irrep, count in zip(self.irreps, order.coefficients.multiplicity, strict=True)}
        self.sizes = [slot.channels * self.counts[slot.irrep] for slot in slots]
        self.weight = nn.Parameter(torch.zeros(sum(self.sizes)))
        self.bias = nn.Parameter(torch.zeros(self.counts.get((0, 1), 0)))
        for index, slot in enumerate(slots):
            place, scale = order.of(slot.irrep)
            self.register_buffer(f"place{index}", torch.from_numpy(place), persistent=False)
            self.register_buffer(f"scale{index}", torch.from_numpy(scale), persistent=False)

    def forward(self, parts: Parts) -> Tensor:
        """Slots -> (edge, coefficient)."""
        made: dict[Irrep, Tensor] = {}
        for index, (part, slot, weight) in enumerate(
            zip(parts, self.slots, self.weight.split(self.sizes), strict=True)
        ):
            place: Tensor = getattr(self, f"place{index}")
            scale: Tensor = getattr(self, f"scale{index}").to(part.dtype)
            matrix = weight.view(-1, slot.channels).T / math.sqrt(slot.channels)
            out = mix(part, matrix.index_select(1, place) * scale)
            if slot.irrep == (0, 1):
                out = out + self.bias.index_select(0, place) * scale
            made[slot.irrep] = out.flatten(1)
        return torch.cat([made[irrep] for irrep in self.irreps if self.counts[irrep]], dim=1)
