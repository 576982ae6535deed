"""Features in a bond's frame: sectors of equal |m|, and the layers that respect what symmetry is left there.

With the bond along the pole, rotations about it and mirror planes through it remain. A component pair (+m, -m) of an irrep
turns by m times the angle; a mirror plane keeps +m and flips -m for irreps of natural parity (-1)^l, and the other way
round for unnatural parity. Writing an unnatural pair (c, s) as (-s, c) makes both kinds behave alike, so that **all layers
here have real weights** and hold for O(3), not only for SO(3):

    sector      components   irreps
    A1   m = 0  1            natural parity: scalars of the frame
    A2   m = 0  1            unnatural parity: they change sign under a mirror through the bond
    E_m  m > 0  2            all with l >= m

A feature is a tuple of sectors, each (item, 1 or 2, width): the irreps of a sector lie side by side in its width, so a
linear map that mixes l and channels is one GEMM per sector (compare Passaro & Zitnick, arXiv:2302.03655, whose complex
weights are SO(2) only, and QHNetV2, arXiv:2506.09398). How the frame is turned about the bond drops out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.nn.irreps import Layout

Sectors = tuple[Tensor, ...]
"""A1, A2, E_1, ..., E_lmax; each (item, 1 or 2, width)."""


ITEMS_AT_ONCE = 64
"""Items of a product that are worked on at once, so that what is in between stays in the cache."""


class SectorLayout:
    """Which irreps meet in which sector.

    Args:
        layout: irreps of the features.
        channels: channels of each irrep; one number if all have the same.

    Attributes:
        members: for each sector the indices of its irreps, natural parity first.
        widths: width of each sector.
        dims: components of each sector, 1 or 2.
        sizes: rows of each sector: components times irreps.
        sources: irrep, component of it and sign of each row, rows ordered by (sector, component, irrep).
    """

    def __init__(self, layout: Layout, channels: int | Sequence[int]) -> None:
        self.layout = layout
        count = len(layout.irreps)
        self.channels = (channels,) * count if isinstance(channels, int) else tuple(channels)
        self.lmax = max(ang for ang, _ in layout.irreps)
        is_natural = [parity == (-1) ** ang for ang, parity in layout.irreps]
        natural = [i for i in range(count) if is_natural[i]]
        unnatural = [i for i in range(count) if not is_natural[i]]
        self.members: list[list[int]] = [natural, unnatural]
        for m in range(1, self.lmax + 1):
            self.members.append([i for i in natural + unnatural if layout.irreps[i][0] >= m])
        self.dims = (1, 1, *[2] * self.lmax)
        self.sizes = tuple(dim * len(members) for dim, members in zip(self.dims, self.members, strict=True))
        self.sources = [(i, layout.irreps[i][0], 1.0) for members in self.members[:2] for i in members]
        for m, members in enumerate(self.members[2:], start=1):
            for first in (True, False):  # the pair's two components
                for i in members:
                    plus = first == is_natural[i]
                    sign = -1.0 if first and not is_natural[i] else 1.0
                    self.sources.append((i, layout.irreps[i][0] + (m if plus else -m), sign))

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(sum(self.channels[i] for i in members) for members in self.members)

    def split(self, parts: Sequence[Tensor]) -> Sectors:
        """Irreps, already turned into the frame, -> sectors.

        Args:
            parts: of each irrep, (item, 2l + 1, its channels).
        """
        components = [part.unbind(1) for part in parts]
        pieces = iter([components[i][c] if sign > 0 else -components[i][c] for i, c, sign in self.sources])
        return tuple(
            torch.stack([torch.cat([next(pieces) for _ in members], dim=-1) for _ in range(dim)], dim=1)
            if members
            else parts[0].new_zeros((parts[0].shape[0], dim, 0))
            for dim, members in zip(self.dims, self.members, strict=True)
        )

    def of_rows(self, rows: Tensor) -> Sectors:
        """What ``FrameMatrices`` make of features, (item, row, channel), as sectors; all irreps have as many channels."""
        return tuple(
            part.unflatten(1, (dim, -1)).flatten(2)
            for part, dim in zip(rows.split(self.sizes, dim=1), self.dims, strict=True)
        )

    def to_rows(self, sectors: Sectors) -> Tensor:
        """Inverse of :meth:`of_rows`."""
        # sizes in full: of no items at all, as a lone atom has, none can be inferred
        width = self.channels[0]
        return torch.cat([part.reshape(part.shape[0], part.shape[1:].numel() // width, width) for part in sectors], 1)

    def join(self, sectors: Sectors) -> list[Tensor]:
        """Inverse of :meth:`split`: sectors -> irreps in the frame, each (item, 2l + 1, its channels)."""
        pieces = [
            piece
            for members, sector in zip(self.members, sectors, strict=True)
            for component in sector.unbind(1)
            for piece in component.split([self.channels[i] for i in members], dim=-1)
        ]
        found = {
            (i, c): piece if sign > 0 else -piece for (i, c, sign), piece in zip(self.sources, pieces, strict=True)
        }
        return [torch.stack([found[i, c] for c in range(size)], dim=1) for i, size in enumerate(self.layout.sizes)]


def rotate(parts: Sequence[Tensor], wigner: Sequence[Tensor], layout: Layout) -> list[Tensor]:
    """Irreps (item, 2l + 1, channels) times their Wigner matrices; equal l are turned together.

    Args:
        wigner: for each l, (item, 2l + 1, 2l + 1).
    """
    turned: list[Tensor] = list(parts)
    for ang in range(1, max(ang for ang, _ in layout.irreps) + 1):
        same = [i for i, irrep in enumerate(layout.irreps) if irrep[0] == ang]
        if not same:
            continue
        together = wigner[ang] @ torch.cat([parts[i] for i in same], dim=-1)
        for i, piece in zip(same, together.split([parts[i].shape[-1] for i in same], dim=-1), strict=True):
            turned[i] = piece
    return turned


class FrameMatrices(nn.Module):
    """Matrices that turn all components of an item into its frame and sort them by sector, in one go.

    Mostly zeros; still one product with a whole matrix is faster than one per l and a sort of the results.

    Args:
        layout: of the sectors.
    """

    place: Tensor
    sign: Tensor

    def __init__(self, layout: SectorLayout) -> None:
        super().__init__()
        dim = layout.layout.dim
        starts = [sum((2 * lower + 1) ** 2 for lower in range(ang)) for ang in range(layout.lmax + 1)]
        place, sign = torch.zeros(dim, dim, dtype=torch.int64), torch.zeros(dim, dim)
        for row, (irrep, component, factor) in enumerate(layout.sources):
            part, (ang, _) = layout.layout.slices[irrep], layout.layout.irreps[irrep]
            first = starts[ang] + component * (2 * ang + 1)
            place[row, part] = torch.arange(first, first + 2 * ang + 1)
            sign[row, part] = factor
        self.register_buffer("place", place.flatten(), persistent=False)
        self.register_buffer("sign", sign, persistent=False)

    def forward(self, wigner: Sequence[Tensor]) -> Tensor:
        """For each l (item, 2l + 1, 2l + 1) -> (item, row, component)."""
        flat = torch.cat([matrix.flatten(1) for matrix in wigner], dim=1)
        return flat.index_select(1, self.place).unflatten(1, self.sign.shape) * self.sign.to(flat.dtype)


class SectorLinear(nn.Module):
    """Linear map of each sector: mixes l and channels freely, real weights shared by both components of a pair.

    Args:
        n_in, n_out: widths of the sectors.
        bias: on A1.
        gain: scale of the initial weights; 0 makes a read-out start at zero.
    """

    def __init__(self, n_in: Sequence[int], n_out: Sequence[int], *, bias: bool = False, gain: float = 1.0) -> None:
        super().__init__()
        self.weights = nn.ParameterList(
            [nn.Parameter(gain * torch.randn(i, o) / math.sqrt(max(1, i))) for i, o in zip(n_in, n_out, strict=True)]
        )
        self.bias = nn.Parameter(torch.zeros(n_out[0])) if bias else None

    def forward(self, sectors: Sectors, onto: Sectors | None = None) -> Sectors:
        """Each (item, dim, n_in) -> (item, dim, n_out); ``onto`` is added."""
        out = []
        for index, (sector, weight) in enumerate(zip(sectors, self.weights, strict=True)):
            flat = sector.flatten(0, 1)  # not reshape(-1, ...): a width may be zero
            if onto is not None:
                made = torch.addmm(onto[index].reshape(-1, weight.shape[1]), flat, weight)
            elif index == 0 and self.bias is not None:
                made = torch.addmm(self.bias, flat, weight)
            else:
                made = flat @ weight
            out.append(made.view(*sector.shape[:2], weight.shape[1]))
        if onto is not None and self.bias is not None:
            out[0] = out[0] + self.bias
        return tuple(out)


def modulate(sectors: Sectors, weights: Tensor) -> Sectors:
    """Each width times its own weight: (item, sum of widths)."""
    parts = weights.split([sector.shape[-1] for sector in sectors], dim=-1)
    return tuple(sector * part.unsqueeze(1) for sector, part in zip(sectors, parts, strict=True))


def sum_of_squares(sectors: Sectors) -> Tensor:
    """Over everything but the items, (item,)."""
    # the squares are added one by one: torch 2.13 compiles the gradient of stack(norms).square().sum() wrongly on a CPU
    first, *rest = (torch.linalg.vector_norm(sector, dim=(1, 2)).square() for sector in sectors)
    for squares in rest:
        first = first + squares
    return first


def inverse_root_mean_square(sectors: Sectors) -> Tensor:
    """1 / root mean square over everything but the items, (item, 1, 1)."""
    count = sum(sector.shape[1] * sector.shape[2] for sector in sectors)
    return (sum_of_squares(sectors) / count + 1e-6).rsqrt()[:, None, None]


def root_mean_square_norm(sectors: Sectors) -> Sectors:
    """Features of each item divided by their root mean square over everything."""
    scale = inverse_root_mean_square(sectors)
    return tuple(sector * scale for sector in sectors)


class SectorProduct(nn.Module):
    """Tensor product in the frame, channel by channel: m1 and m2 give m1 + m2 and |m1 - m2|, with learned weights.

    A channel holds one complex number per m (A1 + i A2 for m = 0), and products of those are all the equivariant bilinear
    maps there are. QHNetV2's SO(2) tensor product, here with mirrors.

    With z1 = a + ib and z2 = c + id every path is a c, b d, a d and b c with signs; four gathers, one product and one
    matrix that adds up, signs included.

    Args:
        lmax: highest m.
        channels: channels of both factors and of the result.
    """

    left: Tensor
    right: Tensor
    collect: Tensor

    def __init__(self, lmax: int, channels: int) -> None:
        super().__init__()
        self.lmax = lmax
        self.channels = channels
        # m1, m2, m of the result, and whether a factor is conjugated
        paths = [(a, b, a + b, 1, 1) for a in range(lmax + 1) for b in range(lmax + 1 - a)]
        for a in range(1, lmax + 1):
            for b in range(1, lmax + 1):
                paths.append((a, b, a - b, 1, -1) if a >= b else (a, b, b - a, -1, 1))
        count = len(paths)
        self.weight = nn.Parameter(torch.randn(count, channels))
        ends = [path[2] for path in paths]
        collect = torch.zeros(2 * (lmax + 1), 4, count)
        for index, (_, _, end, first, second) in enumerate(paths):
            real, imaginary = 2 * end, 2 * end + 1
            norm = ends.count(end) ** -0.5
            collect[real, 0, index], collect[real, 1, index] = norm, -norm * first * second
            collect[imaginary, 2, index], collect[imaginary, 3, index] = norm * second, norm * first
        self.register_buffer("collect", collect.flatten(1), persistent=False)
        # rows of the stacked factors: 4 m for the real part of the left one, then its right one, then the imaginary parts
        left = [4 * path[0] + part for part in (0, 2) for path in paths]
        right = [4 * path[1] + part for part in (1, 3, 3, 1) for path in paths]
        self.register_buffer("left", torch.tensor(left), persistent=False)
        self.register_buffer("right", torch.tensor(right), persistent=False)

    @property
    def widths(self) -> tuple[int, ...]:
        """Sector widths of factors and result."""
        return (self.channels,) * (self.lmax + 2)

    def forward(self, factors: Sectors, scale: Tensor | None = None) -> Sectors:
        """Product of two features.

        Args:
            factors: both, side by side in each sector: (item, 1 or 2, 2 * channels).
            scale: both are multiplied by it, (item, 1, 1).
        """
        stacked = torch.cat(factors, dim=1)
        if scale is not None:
            stacked = stacked * scale
        rows = stacked.unflatten(2, (2, -1)).flatten(1, 2)
        # a graph that is being exported has one chunk: its sizes are not known yet
        chunks = (rows,) if torch.compiler.is_compiling() else rows.split(ITEMS_AT_ONCE)
        out = [self._product(chunk) for chunk in chunks]
        return (torch.cat(out) if len(out) > 1 else out[0]).split([1, 1, *[2] * self.lmax], dim=1)

    def _product(self, rows: Tensor) -> Tensor:
        left = rows.index_select(1, self.left).unflatten(1, (1, 2, -1)) * self.weight
        right = rows.index_select(1, self.right).unflatten(1, (2, 2, -1))
        return torch.matmul(self.collect.to(rows.dtype), (left * right).flatten(1, 3))
