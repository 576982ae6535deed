"""What the second stage reads of an item, side by side: one tensor (item, component, channel) an irrep, or a sector.

Sources are features of the first stage, in whatever layout its architecture has, and its output coefficients. They come
together either as irreps in the global frame, or as sectors in the frames of the bonds (``model.nn.so2``), where the
components of one |m| of all irreps stand together and those of m = 0 are invariants by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from model.nn.irreps import CoefficientLayout, Irrep, Layout, RaggedLayout
from model.nn.so2 import SectorLayout, Sectors, rotate


class Source(NamedTuple):
    """Layout of some features.

    Attributes:
        layout: a ``Layout`` for one tensor (item, component, channel), a ``RaggedLayout`` for one an irrep, a
            ``SectorLayout`` for features in the frames of ``model.nn.frames.bond_rotations``.
        channels: of a ``Layout``.
    """

    layout: Layout | RaggedLayout | SectorLayout
    channels: int

    @property
    def irreps(self) -> Layout:
        """The irreps, in order."""
        return self.layout if isinstance(self.layout, Layout) else self.layout.layout

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each irrep."""
        return (self.channels,) * len(self.layout.irreps) if isinstance(self.layout, Layout) else self.layout.channels


@dataclass(frozen=True)
class Frames:
    """Wigner matrices into and out of each item's frame, l = 0, 1, ...: (item, 2l + 1, 2l + 1); none for on-site items."""

    to_frame: Sequence[Tensor] = ()
    from_frame: Sequence[Tensor] = ()


class Collection(Protocol):
    """How sources come together.

    Attributes:
        dims: components of each part.
        widths: channels of each part.
        invariant: the part whose one component is invariant.
        out_widths: of the parts that make coefficients.
    """

    dims: tuple[int, ...]
    widths: tuple[int, ...]
    invariant: int
    out_widths: tuple[int, ...]

    def gather(self, features: Sequence[Sectors], frames: Frames) -> Sectors:
        """Features of all sources -> parts."""
        ...

    def coefficients(self, parts: Sectors, frames: Frames) -> Tensor:
        """Parts of ``out_widths`` -> (item, coefficient)."""
        ...


class IrrepParts:
    """One part an irrep, in the global frame.

    Args:
        sources: what is read; together they have every irrep of the coefficients.
        coefficients: of the blocks.
    """

    def __init__(self, sources: Sequence[Source], coefficients: CoefficientLayout) -> None:
        self.sources = tuple(sources)
        widths: dict[Irrep, int] = {}
        for source in sources:
            for irrep, width in zip(source.irreps.irreps, source.widths, strict=True):
                widths[irrep] = widths.get(irrep, 0) + width
        self.irreps = Layout.of(irrep for irrep, width in widths.items() if width)
        self.dims = self.irreps.sizes
        self.widths = tuple(widths[irrep] for irrep in self.irreps.irreps)
        self.invariant = self.irreps.irreps.index((0, 1))
        counts = dict(zip(coefficients.layout.irreps, coefficients.multiplicity, strict=True))
        self.out_widths = tuple(counts.get(irrep, 0) for irrep in self.irreps.irreps)
        self._order = [self.irreps.irreps.index(irrep) for irrep, count in counts.items() if count]

    def gather(self, features: Sequence[Sectors], frames: Frames) -> Sectors:
        """See ``Collection``."""
        found: dict[Irrep, list[Tensor]] = {irrep: [] for irrep in self.irreps.irreps}
        for source, parts in zip(self.sources, features, strict=True):
            for irrep, part in zip(source.irreps.irreps, in_global_frame(source, parts, frames), strict=True):
                if part.shape[2]:
                    found[irrep].append(part)
        return tuple(torch.cat(parts, dim=2) for parts in found.values())

    def coefficients(self, parts: Sectors, frames: Frames) -> Tensor:
        """See ``Collection``."""
        return torch.cat([parts[index].flatten(1) for index in self._order], dim=1)


class SectorParts:
    """One part a sector, in the frames of the bonds.

    Args:
        sources, coefficients: as of ``IrrepParts``.
    """

    def __init__(self, sources: Sequence[Source], coefficients: CoefficientLayout) -> None:
        self.sources = tuple(sources)
        self.layouts = [
            source.layout if isinstance(source.layout, SectorLayout) else SectorLayout(source.irreps, source.widths)
            for source in sources
        ]
        count = max(len(layout.dims) for layout in self.layouts)
        self.dims = (1, 1, *[2] * (count - 2))
        self.widths = tuple(sum(_width(layout, sector) for layout in self.layouts) for sector in range(count))
        self.invariant = 0
        self.out = SectorLayout(coefficients.layout, coefficients.multiplicity)
        self.out_widths = tuple(_width(self.out, sector) for sector in range(count))

    def gather(self, features: Sequence[Sectors], frames: Frames) -> Sectors:
        """See ``Collection``."""
        found: list[list[Tensor]] = [[] for _ in self.dims]
        for source, layout, parts in zip(self.sources, self.layouts, features, strict=True):
            sectors = parts
            if not isinstance(source.layout, SectorLayout):
                turned = rotate(in_global_frame(source, parts, frames), frames.to_frame, source.irreps)
                sectors = layout.split(turned)
            for index, sector in enumerate(sectors):
                found[index].append(sector)
        return tuple(torch.cat(parts, dim=2) for parts in found)

    def coefficients(self, parts: Sectors, frames: Frames) -> Tensor:
        """See ``Collection``."""
        irreps = self.out.join(parts[: len(self.out.dims)])
        return torch.cat([part.flatten(1) for part in rotate(irreps, frames.from_frame, self.out.layout)], dim=1)


def in_global_frame(source: Source, parts: Sectors, frames: Frames) -> Sequence[Tensor]:
    """Features as irreps in the global frame, each (item, 2l + 1, its channels)."""
    if isinstance(source.layout, SectorLayout):
        return rotate(source.layout.join(parts), frames.from_frame, source.irreps)
    if isinstance(source.layout, Layout):
        return parts[0].split(source.layout.sizes, dim=1)
    return parts


def of_coefficients(values: Tensor, coefficients: CoefficientLayout) -> Sectors:
    """Coefficients (item, coefficient) as features of ``RaggedLayout(coefficients.layout, coefficients.multiplicity)``."""
    return tuple(
        values[:, part].reshape(len(values), size, count)
        for part, size, count in zip(
            coefficients.slices, coefficients.layout.sizes, coefficients.multiplicity, strict=True
        )
    )


def _width(layout: SectorLayout, sector: int) -> int:
    return layout.widths[sector] if sector < len(layout.dims) else 0
