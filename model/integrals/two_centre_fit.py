"""Fit of two-centre tables to labelled overlaps.

Every channel of every two elements is the least-squares sum of quintic B-splines, with a penalty on differences of their
coefficients (P-splines: Eilers and Marx, Stat. Sci. 11, 89 (1996)) so weak that it decides only where there are no data:
between two distances it makes the smoothest bridge, behind the last one the smoothest way to zero. Rows are reduced by QR a
chunk at a time, so time is linear in the number of pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from model.blocks.block_set import BlockSet
from model.errors import IntegralError
from model.integrals.bond_channels import BondChannels, BondFrames, standard_entries
from model.integrals.two_centre_tables import (
    DEGREE,
    SHORT_MARGIN_ANGSTROM,
    Elements,
    PairTable,
    TwoCentreTables,
    channels_of,
    forward_bonds,
    name_of,
)
from model.structure import SYMBOLS

TWO_CENTRE_TOLERANCE: Final = 1e-5
"""Largest element that two-centre integrals do not have, in the bond frame; PySCF 1e-8, GPAW (PAW) 1e-2."""

RESIDUAL_TOLERANCE: Final = 1e-4
"""Largest difference of a fitted and a labelled overlap."""

FADE_ANGSTROM: Final = 0.5
"""Behind the longest fitted distance the splines go to zero over so much."""

GAP_ANGSTROM: Final = 0.1
"""Neighbouring fitted distances that are farther apart bound a gap, where values are interpolated and reported."""


@dataclass(frozen=True)
class _Stiffness:
    """How far a spline may follow its data.

    Attributes:
        knot_spacing_angstrom: between knots.
        smoothness: weight of differences of the coefficients, by their order, beside a label's.
    """

    knot_spacing_angstrom: float
    smoothness: Mapping[int, float]


EXACT: Final = _Stiffness(0.05, {3: 1e-6, 5: 1e-5})
"""For functions of the distance. Fifth differences decide over short gaps (an error that shrinks faster with the gap), third
ones over long gaps (no swings)."""

SCATTERED: Final = _Stiffness(0.1, {2: 1.0})
"""For values that scatter about such a function: a knot with some bonds follows them, gaps get the straightest bridge."""

CHUNK_PAIRS: Final = 4096

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PairReport:
    """How well two elements were fitted.

    Attributes:
        n_pairs: bonds.
        ranges_angstrom: distances that were fitted, without the gaps.
        mean_residual, largest_residual: of the absolute differences of all channels.
    """

    n_pairs: int
    ranges_angstrom: tuple[tuple[float, float], ...]
    mean_residual: float
    largest_residual: float


@dataclass(frozen=True)
class FitReport:
    """How well overlaps are two-centre integrals.

    Attributes:
        pairs: by "Mo-Te".
        largest_forbidden: largest element that should be zero or equal to another one, and is not.
        forbidden_at: where that is, in words.
    """

    pairs: Mapping[str, PairReport]
    largest_forbidden: float
    forbidden_at: str

    def __str__(self) -> str:
        n_bonds = sum(pair.n_pairs for pair in self.pairs.values())
        return (
            f"Two-centre tables of {', '.join(self.pairs)}: {n_bonds} bonds, residual "
            f"{self.mean_residual:.1e} on average, {self.largest_residual:.1e} at most; largest element that should vanish "
            f"{self.largest_forbidden:.1e} ({self.forbidden_at})"
        )

    @property
    def mean_residual(self) -> float:
        """Over all bonds; two elements count by their number of bonds."""
        counts = [report.n_pairs for report in self.pairs.values()]
        means = [report.mean_residual for report in self.pairs.values()]
        return float(np.average(means, weights=counts)) if counts else 0.0

    @property
    def largest_residual(self) -> float:
        """Over all bonds."""
        return max((report.largest_residual for report in self.pairs.values()), default=0.0)


@dataclass(frozen=True, eq=False)
class _Bonds:
    """Bonds of two elements of one or several structures: length, (bond,), and channels, (bond, channel)."""

    distances: Array
    channels: Array


def fit_two_centre(
    overlaps: Iterable[BlockSet], *, tolerance: float = TWO_CENTRE_TOLERANCE
) -> tuple[TwoCentreTables, FitReport]:
    """Tables from the overlaps of some structures.

    Args:
        overlaps: S of structures of one basis, molecules or crystals, with vectors in Å; orders may differ. They are read
            once; what is kept of a bond are its length and its channels.
        tolerance: largest element that two-centre integrals do not have.

    Raises:
        IntegralError: no overlaps, different shells of one element, or overlaps that are not two-centre integrals.
    """
    measured = _Measured()
    for overlap in overlaps:
        measured.add(overlap)
    if not measured.shells:
        raise IntegralError(
            "There are no overlaps to fit two-centre tables to.", hint="Take data that carry S(R), or another source."
        )
    if measured.forbidden > tolerance:
        raise IntegralError(
            f"These overlaps are not two-centre integrals: in the frame of the bond an element that must vanish, or equal "
            f"another one, is off by {measured.forbidden:.1e} ({measured.where}); allowed is {tolerance:.0e}.",
            hint="Overlaps of PAW programs (GPAW) have three-centre parts, and some programs integrate on grids: take the "
            "integral source 'given'. For other programs, check the orbital order.",
        )
    tables = measured.fit(EXACT)
    reports = {
        name_of(elements): _report(_joined(bonds), tables.pairs[elements], name_of(elements))
        for elements, bonds in measured.bonds.items()
    }
    return tables, FitReport(reports, measured.forbidden, measured.where)


def nearest_two_centre(matrices: Iterable[BlockSet]) -> TwoCentreTables:
    """Tables that come nearest, in the mean square, to matrices that are not made of two-centre integrals, like H.

    Args:
        matrices: of structures of one basis, restricted; read once.

    Raises:
        IntegralError: no matrices, or different shells of one element.
    """
    measured = _Measured()
    for matrix in matrices:
        measured.add(matrix)
    if not measured.shells:
        raise IntegralError("There are no matrices to fit two-centre tables to.", hint="Take data with labels.")
    return measured.fit(SCATTERED)


class _Measured:
    """What overlaps are in the frames of their bonds."""

    def __init__(self) -> None:
        self.shells: dict[int, tuple[int, ...]] = {}
        self.bonds: dict[Elements, list[_Bonds]] = {}
        self.on_site: dict[int, list[Array]] = {}
        self.forbidden, self.where = 0.0, "nowhere"

    def add(self, overlap: BlockSet) -> None:
        space, pairs, flat = overlap.space, overlap.pairs, overlap.values[0]
        for number in sorted(set(overlap.numbers.tolist())):
            own = tuple(space.shells_of(number))
            if self.shells.setdefault(number, own) != own:
                raise IntegralError(
                    f"{SYMBOLS[number]} has the shells {own} in one overlap and {self.shells[number]} in another; tables are "
                    "of one basis."
                )
        self._note(overlap.hermitian_error(), "S is not symmetric")
        for group in overlap.groups:
            items = np.flatnonzero(group.pairs < pairs.n_atoms)
            if len(items):
                entries, signs = standard_entries(space, group, items)
                channels = BondChannels.on_site(self.shells[group.rows])
                self._read(channels, flat[entries] * signs, f"{SYMBOLS[group.rows]} on-site")
                values = channels.read(flat[entries] * signs)
                self._note(float(np.ptp(values, axis=0).max()), f"{SYMBOLS[group.rows]} on-site, between atoms")
                self.on_site.setdefault(group.rows, []).append(values.mean(axis=0))
        for group, items, elements in forward_bonds(overlap):
            channels = channels_of(self.shells, elements)
            first, second = (self.shells[number] for number in elements)
            for start in range(0, len(items), CHUNK_PAIRS):
                some = items[start : start + CHUNK_PAIRS]
                entries, signs = standard_entries(space, group, some)
                vectors = pairs.vectors_angstrom[group.pairs[some]]
                blocks = BondFrames.of(vectors, max(*first, *second)).enter(flat[entries] * signs, first, second)
                values = self._read(channels, blocks, name_of(elements))
                self.bonds.setdefault(elements, []).append(_Bonds(np.linalg.norm(vectors, axis=1), values))

    def fit(self, stiffness: _Stiffness) -> TwoCentreTables:
        """Tables of all that was added."""
        on_site = {number: np.mean(values, axis=0) for number, values in self.on_site.items()}
        return TwoCentreTables(
            self.shells, on_site, {elements: _fit(_joined(bonds), stiffness) for elements, bonds in self.bonds.items()}
        )

    def _read(self, channels: BondChannels, blocks: Array, where: str) -> Array:
        values = channels.read(blocks)
        self._note(float(np.abs(blocks - channels.fill(values)).max(initial=0.0)), where)
        return values

    def _note(self, size: float, where: str) -> None:
        if size > self.forbidden:
            self.forbidden, self.where = size, where


def _joined(bonds: Sequence[_Bonds]) -> _Bonds:
    return _Bonds(np.concatenate([own.distances for own in bonds]), np.concatenate([own.channels for own in bonds]))


def _fit(bonds: _Bonds, stiffness: _Stiffness) -> PairTable:
    """Penalised least squares of all channels at once."""
    h = stiffness.knot_spacing_angstrom
    covered = _ranges(bonds.distances)
    first = (np.floor((covered[0, 0] - SHORT_MARGIN_ANGSTROM) / h) - DEGREE) * h
    n_splines = int(np.ceil((covered[-1, 1] + FADE_ANGSTROM - first) / h)) - DEGREE
    knots = first + h * np.arange(n_splines + 2 * DEGREE + 1)
    n_channels = bonds.channels.shape[1]
    # behind the last B-spline all coefficients are zero, and the penalty knows it
    differences = [
        weight * np.diff(np.eye(n_splines + order, n_splines), n=order, axis=0)
        for order, weight in stiffness.smoothness.items()
    ]
    penalty = np.concatenate(differences)
    rows = np.concatenate([penalty, np.zeros((len(penalty), n_channels))], axis=1)
    for start in range(0, len(bonds.distances), CHUNK_PAIRS):
        some = slice(start, start + CHUNK_PAIRS)
        basis = BSpline.design_matrix(bonds.distances[some], knots, DEGREE).toarray()[:, :n_splines]
        more = np.concatenate([basis, bonds.channels[some]], axis=1)
        rows = np.asarray(np.linalg.qr(np.concatenate([rows, more]), mode="r"))
    coefficients = scipy.linalg.solve_triangular(rows[:n_splines, :n_splines], rows[:n_splines, n_splines:])
    return PairTable(float(first), h, np.ascontiguousarray(coefficients), covered)


def _ranges(distances: Array) -> Array:
    """Ranges without a gap, (range, 2)."""
    ordered = np.sort(distances)
    breaks = np.flatnonzero(np.diff(ordered) > GAP_ANGSTROM)
    lows, highs = ordered[np.concatenate([[0], breaks + 1])], ordered[np.concatenate([breaks, [len(ordered) - 1]])]
    return np.column_stack([lows, highs])


def _report(bonds: _Bonds, table: PairTable, name: str) -> PairReport:
    residuals = np.abs(table(bonds.distances) - bonds.channels)
    largest = float(residuals.max())
    if largest > RESIDUAL_TOLERANCE:
        at = bonds.distances[residuals.max(axis=1).argmax()]
        raise IntegralError(
            f"Overlaps of {name} are no function of the distance: at {at:.3f} Å they differ from the fit by {largest:.1e}; "
            f"allowed is {RESIDUAL_TOLERANCE:.0e}.",
            hint="Take overlaps of one basis and one program.",
        )
    ranges = tuple((low, high) for low, high in table.covered.tolist())
    return PairReport(len(residuals), ranges, float(residuals.mean()), largest)
