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


class SectorLayout:
    """Which irreps meet in which sector.

    Args:
        layout: irreps of the features.
        channels: channels of each irrep; one number if all have the same.

    Attributes:
        members: for each sector the indices of its irreps, natural parity first.
        widths: width of each sector.
        dims: components of each sector, 1 or 2.
    """

    def __init__(self, layout: Layout, channels: int | Sequence[int]) -> None:
        self.layout = layout
        count = len(layout.irreps)
        self.channels = (channels,) * count if isinstance(channels, int) else tuple(channels)
        self.lmax = max(ang for ang, _ in layout.irreps)
        is_natural = [parity == (-1) ** ang for ang, parity in layout.irreps]
        natural = [i for i in range(count) if is_natural[i]]
        unnatural = [i for i in range(count) if not is_natural[i]]
        self.n_natural = []
        self.members: list[list[int]] = [natural, unnatural]
        for m in range(1, self.lmax + 1):
            reaching = [i for i in natural if layout.irreps[i][0] >= m]
            self.n_natural.append(len(reaching))
            self.members.append(reaching + [i for i in unnatural if layout.irreps[i][0] >= m])
        self.dims = (1, 1, *[2] * self.lmax)

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(sum(self.channels[i] for i in members) for members in self.members)

    def split(self, parts: Sequence[Tensor]) -> Sectors:
        """Irreps, already turned into the frame, -> sectors.

        Args:
            parts: of each irrep, (item, 2l + 1, its channels).
        """
        angular = [ang for ang, _ in self.layout.irreps]
        rows = [part.unbind(1) for part in parts]
        sectors = [
            torch.cat([rows[i][angular[i]] for i in members], dim=-1).unsqueeze(1) for members in self.members[:2]
        ]
        for m in range(1, self.lmax + 1):
            members, count = self.members[m + 1], self.n_natural[m - 1]
            first = [rows[i][angular[i] + m] for i in members[:count]]
            first += [-rows[i][angular[i] - m] for i in members[count:]]
            second = [rows[i][angular[i] - m] for i in members[:count]]
            second += [rows[i][angular[i] + m] for i in members[count:]]
            sectors.append(torch.stack([torch.cat(first, dim=-1), torch.cat(second, dim=-1)], dim=1))
        return tuple(sectors)

    def join(self, sectors: Sectors) -> list[Tensor]:
        """Inverse of :meth:`split`: sectors -> irreps in the frame, each (item, 2l + 1, its channels)."""
        rows: list[list[Tensor]] = [[sectors[0]] * (2 * ang + 1) for ang, _ in self.layout.irreps]
        for members, sector in zip(self.members[:2], sectors[:2], strict=True):
            pieces = sector.squeeze(1).split([self.channels[i] for i in members], dim=-1)
            for i, piece in zip(members, pieces, strict=True):
                rows[i][self.layout.irreps[i][0]] = piece
        for m in range(1, self.lmax + 1):
            members, count = self.members[m + 1], self.n_natural[m - 1]
            sizes = [self.channels[i] for i in members]
            first, second = (part.split(sizes, dim=-1) for part in sectors[m + 1].unbind(1))
            for position, i in enumerate(members):
                ang = self.layout.irreps[i][0]
                plus, minus = (
                    (first[position], second[position]) if position < count else (second[position], -first[position])
                )
                rows[i][ang + m], rows[i][ang - m] = plus, minus
        return [torch.stack(row, dim=1) for row in rows]


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

    def forward(self, sectors: Sectors) -> Sectors:
        """Each (item, dim, n_in) -> (item, dim, n_out)."""
        out = [sector @ weight for sector, weight in zip(sectors, self.weights, strict=True)]
        if self.bias is not None:
            out[0] = out[0] + self.bias
        return tuple(out)


def add(*terms: Sectors) -> Sectors:
    """Sum of features of equal widths."""
    return tuple(
        torch.stack(parts).sum(0) if len(parts) > 2 else parts[0] + parts[1] for parts in zip(*terms, strict=True)
    )


def modulate(sectors: Sectors, weights: Tensor) -> Sectors:
    """Each width times its own weight: (item, sum of widths)."""
    parts = weights.split([sector.shape[-1] for sector in sectors], dim=-1)
    return tuple(sector * part.unsqueeze(1) for sector, part in zip(sectors, parts, strict=True))


def root_mean_square_norm(sectors: Sectors) -> Sectors:
    """Features of each item divided by their root mean square over everything."""
    return tuple(sector * scale for sector in sectors for scale in [_inverse_root_mean_square(sectors)])


def _inverse_root_mean_square(sectors: Sectors) -> Tensor:
    total = sum((sector.square().sum(dim=(1, 2)) for sector in sectors), torch.zeros_like(sectors[0][:, 0, 0]))
    count = sum(sector.shape[1] * sector.shape[2] for sector in sectors)
    return (total / count + 1e-6).rsqrt()[:, None, None]


class SectorProduct(nn.Module):
    """Tensor product in the frame, channel by channel: m1 and m2 give m1 + m2 and |m1 - m2|, with learned weights.

    A channel holds one complex number per m (A1 + i A2 for m = 0), and products of those are all the equivariant bilinear
    maps there are. QHNetV2's SO(2) tensor product, here with mirrors.

    Args:
        lmax: highest m.
        channels: channels of both factors and of the result.
    """

    first: Tensor
    second: Tensor
    first_sign: Tensor
    second_sign: Tensor
    collect: Tensor

    def __init__(self, lmax: int, channels: int) -> None:
        super().__init__()
        self.lmax = lmax
        self.channels = channels
        paths = [(a, b, 1.0, 1.0, a + b) for a in range(lmax + 1) for b in range(lmax + 1 - a)]
        for a in range(1, lmax + 1):
            for b in range(1, lmax + 1):
                paths.append((a, b, 1.0, -1.0, a - b) if a >= b else (a, b, -1.0, 1.0, b - a))
        self.weight = nn.Parameter(torch.randn(len(paths), channels))
        collect = torch.zeros(lmax + 1, len(paths))
        for index, path in enumerate(paths):
            collect[path[4], index] = 1.0
        collect /= collect.sum(dim=1, keepdim=True).sqrt()
        self.register_buffer("collect", collect, persistent=False)
        for name, column in (("first", 0), ("second", 1)):
            self.register_buffer(name, torch.tensor([path[column] for path in paths]), persistent=False)
        for name, column in (("first_sign", 2), ("second_sign", 3)):
            sign = torch.tensor([path[column] for path in paths]).unsqueeze(1)
            self.register_buffer(name, sign, persistent=False)

    @property
    def widths(self) -> tuple[int, ...]:
        """Sector widths of factors and result."""
        return (self.channels,) * (self.lmax + 2)

    def forward(self, left: Sectors, right: Sectors) -> Sectors:
        """Two features of these widths -> their product."""
        left_real, left_imaginary = _complex(left)
        right_real, right_imaginary = _complex(right)
        a = left_real[:, self.first] * self.weight
        b = left_imaginary[:, self.first] * (self.first_sign * self.weight)
        c = right_real[:, self.second]
        d = right_imaginary[:, self.second] * self.second_sign
        collect = self.collect.to(a.dtype)
        real = (collect @ (a * c - b * d)).unbind(1)
        imaginary = (collect @ (a * d + b * c)).unbind(1)
        pairs = [torch.stack([x, y], dim=1) for x, y in zip(real[1:], imaginary[1:], strict=True)]
        return (real[0].unsqueeze(1), imaginary[0].unsqueeze(1), *pairs)


def _complex(sectors: Sectors) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts, (item, m, channel)."""
    real = torch.cat([sectors[0], *[sector[:, :1] for sector in sectors[2:]]], dim=1)
    imaginary = torch.cat([sectors[1], *[sector[:, 1:] for sector in sectors[2:]]], dim=1)
    return real, imaginary
