"""The tensor product with harmonics, z_w = sum over paths of c (x_u Y)_l W'_uw W''_w, evaluated in bond frames.

In a frame whose pole is the bond, harmonics have m = 0 only, and a product with them is a linear map of each sector of equal
|m| (``model.nn.so2``): features are turned into the frame, mapped by one GEMM a sector and turned back. An atom with itself
has no direction, and of its harmonics only l = 0 is not zero. ``reference_path`` is the same by e3nn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.architectures.deeph_e3.parts import Parts, filled
from model.architectures.deeph_e3.slots import Slots, channels_of, layout_of, product_paths
from model.nn.irreps import Irrep, coupling
from model.nn.layers import mix
from model.nn.so2 import SectorLayout


class SeparateProduct(nn.Module):
    """Features of both ends of an edge and its own, times the edge's harmonics.

    Args:
        sources: slots of all three, one after the other, unsorted.
        targets: slots of the result.
        harmonics_lmax: highest l of the harmonics.
    """

    def __init__(self, sources: Slots, targets: Slots, harmonics_lmax: int) -> None:
        super().__init__()
        self.sources, self.targets = sources, targets
        self.harmonics_lmax = harmonics_lmax
        self.paths = product_paths(sources, harmonics_lmax, targets)
        shapes = [(sources[path.source].channels, targets[path.target].channels) for path in self.paths]
        self.weights1 = nn.ParameterList([nn.Parameter(torch.randn(shape)) for shape in shapes])
        self.weights2 = nn.ParameterList([nn.Parameter(torch.randn(1, shape[1])) for shape in shapes])
        self.fan_in = [
            sum(sources[path.source].channels for path in self.paths if path.target == index)
            for index in range(len(targets))
        ]
        self.sectors_out = SectorLayout(layout_of(targets), channels_of(targets))
        self.places_in = _places(SectorLayout(layout_of(sources), channels_of(sources)))
        self.places_out = _places(self.sectors_out)
        self.groups: dict[Irrep, list[int]] = {}
        """Sources of one irrep, which are turned together."""
        for index, slot in enumerate(sources):
            self.groups.setdefault(slot.irrep, []).append(index)
        self.blocks = self._blocks()
        for index, block in enumerate(self.blocks):
            self.register_buffer(f"table{index}", torch.from_numpy(block.table), persistent=False)

    def weights(self) -> list[Tensor]:
        """W' W'' of each path, (channels of its source, channels of its target)."""
        return [one * other for one, other in zip(self.weights1, self.weights2, strict=True)]

    def on_site(self, parts: Parts, weights: Sequence[Tensor]) -> Parts:
        """Product of edges without a direction with :meth:`weights`: slots ``sources`` -> slots ``targets``."""
        out: list[Tensor | None] = [None] * len(self.targets)
        for path, weight in zip(self.paths, weights, strict=True):
            if path.harmonic == 0:
                made = mix(parts[path.source], weight * self.fan_in[path.target] ** -0.5)
                old = out[path.target]
                out[path.target] = made if old is None else old + made
        return filled(out, parts[0], self.targets)

    def in_frame(self, parts: Parts, matrices: Mapping[int, Tensor], to_frame: Sequence[Tensor]) -> Parts:
        """Product of bonds.

        Args:
            parts: slots ``sources``, in the global frame.
            matrices: of the sectors, see :meth:`matrices`.
            to_frame: Wigner matrices of the bonds for each l.

        Returns:
            slots ``targets``, in the bonds' frames.
        """
        components: dict[int, tuple[Tensor, ...]] = {}
        for (ang, _), slots in self.groups.items():
            together = torch.cat([parts[s] for s in slots], dim=2) if len(slots) > 1 else parts[slots[0]]
            turned = to_frame[ang] @ together if ang else together
            components[slots[0]] = turned.unbind(1)
        found: dict[tuple[int, int], Tensor] = {}
        for sector, matrix in matrices.items():
            members = [slots for slots in self.groups.values() if sector in self.places_in[slots[0]]]
            targets = self.sectors_out.members[sector]
            widths = [self.targets[t].channels for t in targets]
            for row in range(self.sectors_out.dims[sector]):
                pieces = []
                for slots in members:
                    place, sign = self.places_in[slots[0]][sector][row]
                    piece = components[slots[0]][place]
                    pieces.append(piece if sign > 0 else -piece)
                made = (torch.cat(pieces, dim=1) @ matrix).split(widths, dim=1)
                for t, piece in zip(targets, made, strict=True):
                    place, sign = self.places_out[t][sector][row]
                    found[t, place] = piece if sign > 0 else -piece
        out = []
        for t, slot in enumerate(self.targets):
            zero = parts[0].new_zeros((parts[0].shape[0], slot.channels))  # of a sector that nothing leads to
            out.append(torch.stack([found.get((t, place), zero) for place in range(2 * slot.ang + 1)], dim=1))
        return tuple(out)

    def matrices(self, weights: Sequence[Tensor]) -> dict[int, Tensor]:
        """The linear map of each sector that has inputs and outputs, (width in, width out)."""
        found: dict[tuple[int, int, int], Tensor] = {}
        for index, block in enumerate(self.blocks):
            table: Tensor = getattr(self, f"table{index}")
            stacked = torch.stack([weights[path] for path in block.paths])
            mixed = (table.to(stacked.dtype) @ stacked.flatten(1)).unflatten(1, stacked.shape[1:])
            for sector, matrix in zip(block.sectors, mixed.unbind(), strict=True):
                found[sector, block.source, block.target] = matrix
        matrices = {}
        for sector, targets in enumerate(self.sectors_out.members):
            sources = [s for slots in self.groups.values() for s in slots if sector in self.places_in[s]]
            if sources and targets:
                rows = [torch.cat([self._matrix(found, sector, s, t) for t in targets], dim=1) for s in sources]
                matrices[sector] = torch.cat(rows)
        return matrices

    def _matrix(self, found: dict[tuple[int, int, int], Tensor], sector: int, s: int, t: int) -> Tensor:
        if (sector, s, t) in found:
            return found[sector, s, t]
        return self.weights1[0].new_zeros((self.sources[s].channels, self.targets[t].channels))

    def _blocks(self) -> list[_Block]:
        """Paths grouped by their two slots, and the coupling of each with the bond as pole, sector by sector."""
        grouped: dict[tuple[int, int], list[int]] = {}
        for index, path in enumerate(self.paths):
            grouped.setdefault((path.source, path.target), []).append(index)
        blocks = []
        for (s, t), members in grouped.items():
            sectors = sorted(set(self.places_in[s]) & set(self.places_out[t]))
            table = np.zeros((len(sectors), len(members)))
            for column, index in enumerate(members):
                ang = self.paths[index].harmonic
                pole = coupling(self.sources[s].ang, ang, self.targets[t].ang)[:, ang]
                scale = math.sqrt((2 * ang + 1) / self.fan_in[t])
                for row, sector in enumerate(sectors):
                    (c_in, sign_in), (c_out, sign_out) = self.places_in[s][sector][0], self.places_out[t][sector][0]
                    table[row, column] = scale * sign_in * sign_out * pole[c_in, c_out]
            blocks.append(_Block(s, t, tuple(members), tuple(sectors), table))
        return blocks


class _Block(NamedTuple):
    """What maps one source slot to one target slot.

    Attributes:
        source, target: slots.
        paths: indices of the paths between them.
        sectors: sectors that both have.
        table: factor of each path's weights in each sector, (sector, path).
    """

    source: int
    target: int
    paths: tuple[int, ...]
    sectors: tuple[int, ...]
    table: NDArray[np.float64]


def _places(layout: SectorLayout) -> list[dict[int, list[tuple[int, float]]]]:
    """For each slot its sectors, and in each the component and the sign of every row."""
    found: list[dict[int, list[tuple[int, float]]]] = [{} for _ in layout.layout.irreps]
    rows = iter(layout.sources)
    for sector, (members, dim) in enumerate(zip(layout.members, layout.dims, strict=True)):
        for _ in range(dim * len(members)):
            irrep, place, sign = next(rows)
            found[irrep].setdefault(sector, []).append((place, sign))
    return found
