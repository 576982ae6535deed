"""Slots: irreps with their numbers of channels, "64x0e+32x1o", as the published network counts and orders them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from model.errors import CheckpointError
from model.nn.irreps import CoefficientLayout, Irrep, Layout

_SLOT: Final = re.compile(r"([0-9]{1,4})x([0-8])([eo])")


class Slot(NamedTuple):
    """Some channels of one irrep.

    Attributes:
        channels: how many.
        ang, parity: l and +1 or -1.
    """

    channels: int
    ang: int
    parity: int

    @property
    def irrep(self) -> Irrep:
        return (self.ang, self.parity)


Slots = tuple[Slot, ...]


class ProductPath(NamedTuple):
    """A path of a tensor product with harmonics: indices of the two slots, l of the harmonics."""

    source: int
    harmonic: int
    target: int


def parse_slots(text: str) -> Slots:
    """Read "64x0e+32x1o+16x2e".

    Raises:
        CheckpointError: anything else, or an irrep that stands there twice.
    """
    found = [_SLOT.fullmatch(part.strip()) for part in text.split("+")]
    slots = tuple(Slot(int(m[1]), int(m[2]), 1 if m[3] == "e" else -1) for m in found if m is not None)
    if (
        len(slots) != len(found)
        or len({slot.irrep for slot in slots}) != len(slots)
        or 0 in {s.channels for s in slots}
    ):
        raise CheckpointError(
            f"Irreps {text!r} cannot be read.",
            hint="Write channels, l and parity of each irrep once, for instance 64x0e+32x1o+16x2e.",
        )
    return slots


def layout_of(slots: Slots) -> Layout:
    """Irreps of slots that name each once, in their order."""
    return Layout(tuple(slot.irrep for slot in slots))


def channels_of(slots: Slots) -> tuple[int, ...]:
    """Channels of each slot."""
    return tuple(slot.channels for slot in slots)


def target_slots(coefficients: CoefficientLayout) -> Slots:
    """Features after the last edge block: all that blocks have coefficients of, by (l, parity)."""
    counted = zip(coefficients.layout.irreps, coefficients.multiplicity, strict=True)
    found = [Slot(count, ang, parity) for (ang, parity), count in counted if count]
    return tuple(sorted(found, key=lambda slot: slot.irrep))


def last_node_slots(mid: Slots, targets: Slots, harmonics_lmax: int) -> Slots:
    """Features of nodes after the last node block: ``mid``, and what else the targets need.

    A target that no irrep of ``mid`` reaches together with harmonics, (0, -1) of spinors, gets the lowest irrep that does
    reach it and that ``mid`` reaches, with as many channels as ``mid`` has of the same l.
    """
    found = list(mid)
    for _, ang, parity in targets:
        if any(_reaches(slot.irrep, (ang, parity), harmonics_lmax) for slot in found):
            continue
        candidates = [
            Slot(slot.channels, slot.ang, -slot.parity)
            for slot in mid
            if _reaches((slot.ang, -slot.parity), (ang, parity), harmonics_lmax)
            and any(_reaches(other.irrep, (slot.ang, -slot.parity), harmonics_lmax) for other in mid)
        ]
        if not candidates:
            raise CheckpointError(
                f"No irrep of the features leads to l = {ang}, parity {parity:+d} of the blocks.",
                hint="Give irreps_mid a higher l.",
            )
        found.append(min(candidates, key=lambda slot: slot.ang))
    return tuple(found)


def gate_slots(slots: Slots) -> Slots:
    """What goes into the gate of features: an even scalar more for each channel that is no scalar, neighbours merged."""
    gates = sum(slot.channels for slot in slots if slot.ang)
    scalars = [slot for slot in slots if slot.ang == 0]
    gated = [slot for slot in slots if slot.ang]
    merged: list[Slot] = []
    for slot in [*scalars, *([Slot(gates, 0, 1)] if gates else []), *gated]:
        if merged and merged[-1].irrep == slot.irrep:
            merged[-1] = slot._replace(channels=merged[-1].channels + slot.channels)
        else:
            merged.append(slot)
    return tuple(merged)


def product_paths(sources: Sequence[Slot], harmonics_lmax: int, targets: Sequence[Slot]) -> tuple[ProductPath, ...]:
    """All paths source x Y_l -> target, in the order of the published weights: by source, l of the harmonics, l."""
    return tuple(
        ProductPath(s, harmonic, t)
        for s, source in enumerate(sources)
        for harmonic in range(harmonics_lmax + 1)
        for ang in range(abs(source.ang - harmonic), source.ang + harmonic + 1)
        for t, target in enumerate(targets)
        if target.irrep == (ang, source.parity * (-1) ** harmonic)
    )


def couples(source: Irrep, harmonic: int, target: Irrep) -> bool:
    """Whether source x Y_harmonic contains target."""
    fits = abs(source[0] - harmonic) <= target[0] <= source[0] + harmonic
    return fits and source[1] * (-1) ** harmonic == target[1]


def _reaches(source: Irrep, target: Irrep, harmonics_lmax: int) -> bool:
    return any(couples(source, ang, target) for ang in range(harmonics_lmax + 1))
