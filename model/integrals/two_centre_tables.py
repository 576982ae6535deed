"""Tables of two-centre integrals: for every two elements splines over the distance, for every element its on-site numbers.

A spline is a sum of quintic B-splines on evenly spaced knots whose supports end where the table ends, so it goes to zero
there with four continuous derivatives and is zero beyond. The block of (j, i, -R) is the transpose of that of (i, j, R), bit
for bit. Time and memory grow linearly with the pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from model.blocks.block_set import BlockSet
from model.errors import CheckpointError, IntegralError
from model.integrals.bond_channels import BondChannels, BondFrames, standard_entries
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import SYMBOLS

DEGREE: Final = 5

SHORT_MARGIN_ANGSTROM: Final = 1e-3
"""So far below the smallest distance of a table it still answers: structures turn and move with rounding."""

FADED_LIMIT: Final = 1e-5
"""Overlaps of this size at the end of the covered range may be faded to zero without a word."""

Array = NDArray[np.float64]
Elements = tuple[int, int]
"""Atomic numbers in the alphabetical sequence of their symbols."""


@dataclass(frozen=True, eq=False)
class PairTable:
    """Splines of two elements.

    Attributes:
        first_knot_angstrom, spacing_angstrom: knots are evenly spaced.
        coefficients: of B-spline k, which begins at knot k, in each channel, (B-spline, channel).
        covered: from and to, Å, of each range of distances that was fitted, ascending, (range, 2).
    """

    first_knot_angstrom: float
    spacing_angstrom: float
    coefficients: Array
    covered: Array

    def __post_init__(self) -> None:
        start = self.first_knot_angstrom + DEGREE * self.spacing_angstrom
        edges = self.covered.ravel()
        sound = self.spacing_angstrom > 0 and len(edges) and start <= edges[0] and edges[-1] < self.end_angstrom
        if not sound or (np.diff(edges) < 0).any():
            raise CheckpointError("A table of two-centre integrals has knots and ranges that do not fit each other.")

    @property
    def end_angstrom(self) -> float:
        """From here on all is zero."""
        return self.first_knot_angstrom + self.spacing_angstrom * (len(self.coefficients) + DEGREE)

    @property
    def knots(self) -> Array:
        """Of the B-splines, and of as many behind them as make the table's end the end of the spline, (knot,)."""
        count = len(self.coefficients) + 2 * DEGREE + 1
        return np.asarray(self.first_knot_angstrom + self.spacing_angstrom * np.arange(count), dtype=np.float64)

    def __call__(self, distances: Array) -> Array:
        """Channels at distances in Å, (pair, channel)."""
        padded = np.concatenate([self.coefficients, np.zeros((DEGREE, self.coefficients.shape[1]))])
        inside = distances < self.end_angstrom
        result = np.zeros((len(distances), padded.shape[1]))
        result[inside] = BSpline(self.knots, padded, DEGREE)(distances[inside])
        return result

    def outside(self, distances: Array) -> NDArray[np.bool_]:
        """Which distances are between two covered ranges, or behind the last while the overlap is not nearly zero."""
        place = np.searchsorted(self.covered[:, 0], distances + SHORT_MARGIN_ANGSTROM, side="right") - 1
        found = distances > self.covered[place.clip(0), 1] + SHORT_MARGIN_ANGSTROM
        if np.abs(self(self.covered[-1:, 1])).max() < FADED_LIMIT:
            found &= distances < self.covered[-1, 1]
        return np.asarray(found & (distances < self.end_angstrom))


@dataclass(frozen=True, eq=False)
class TwoCentreTables:
    """Overlaps of a basis, or what comes nearest to its Hamiltonians, as functions of the distance.

    Attributes:
        shells: atomic number -> angular momenta, as in ``OrbitalSpace``; orders and signs play no part.
        on_site: atomic number -> its channels (``BondChannels.on_site``), (channel,).
        pairs: table of every two elements.

    Raises:
        CheckpointError: tables that do not have the shells' channels.
    """

    shells: Mapping[int, tuple[int, ...]]
    on_site: Mapping[int, Array]
    pairs: Mapping[Elements, PairTable]
    _channels: dict[Elements, BondChannels] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for number, ls in self.shells.items():
            _check_shape(f"{SYMBOLS[number]}/on_site", self.on_site.get(number), (BondChannels.on_site(ls).n_channels,))
        for elements, table in self.pairs.items():
            if elements != elements_of(*elements) or not set(elements) <= set(self.shells):
                raise CheckpointError(f"There is no table for {elements}; its elements are not the basis's.")
            self._channels[elements] = channels_of(self.shells, elements)
            shape = (len(table.coefficients), self._channels[elements].n_channels)
            _check_shape(f"{name_of(elements)}/coefficients", table.coefficients, shape)

    def to_arrays(self) -> dict[str, Array]:
        """All numbers by name: ``Mo/on_site``; ``Mo-Te/grid`` (first knot, spacing), ``/coefficients``, ``/covered``."""
        arrays = {f"{SYMBOLS[number]}/on_site": values for number, values in self.on_site.items()}
        for elements, table in self.pairs.items():
            name = name_of(elements)
            arrays[f"{name}/grid"] = np.array([table.first_knot_angstrom, table.spacing_angstrom])
            arrays[f"{name}/coefficients"] = table.coefficients
            arrays[f"{name}/covered"] = table.covered
        return arrays

    @classmethod
    def from_arrays(cls, shells: Mapping[int, tuple[int, ...]], arrays: Mapping[str, Array]) -> TwoCentreTables:
        """Read what ``to_arrays`` made.

        Args:
            shells: of the basis.
            arrays: by name.

        Raises:
            CheckpointError: a table that is missing, misshapen, not expected, or of unsound knots.
        """
        elements = {SYMBOLS[number]: number for number in shells}
        on_site: dict[int, Array] = {}
        parts: dict[Elements, dict[str, Array]] = {}
        for name, values in arrays.items():
            key, _, part = name.partition("/")
            symbols = key.split("-")
            if set(symbols) <= set(elements) and len(symbols) == 1 and part == "on_site":
                on_site[elements[key]] = values
            elif set(symbols) <= set(elements) and len(symbols) == 2 and part in ("grid", "coefficients", "covered"):
                parts.setdefault((elements[symbols[0]], elements[symbols[1]]), {})[part] = values
            else:
                raise CheckpointError(f"A table of two-centre integrals called {name!r} was not expected.")
        pairs = {}
        for pair, own in parts.items():
            name = name_of(pair)
            _check_shape(f"{name}/grid", own.get("grid"), (2,))
            _check_shape(f"{name}/covered", own.get("covered"), (_length(own.get("covered")), 2))
            n_channels = channels_of(shells, pair).n_channels
            _check_shape(
                f"{name}/coefficients", own.get("coefficients"), (_length(own.get("coefficients")), n_channels)
            )
            first, spacing = own["grid"].tolist()
            pairs[pair] = PairTable(first, spacing, own["coefficients"], own["covered"])
        return cls(dict(shells), on_site, pairs)

    def blocks(
        self, space: OrbitalSpace, numbers: NDArray[np.int64], pairs: PairList, *, refuse: bool = True
    ) -> BlockSet:
        """The matrix of any structure.

        Args:
            space: orbitals with these tables' shells; its order and signs are the result's.
            numbers: atomic numbers, (atom,).
            pairs: which blocks; a whole list, closed under reversal.
            refuse: elements that were never fitted beside each other, and atoms that are closer than they ever were. If not,
                blocks of the ones are zero and of the others those of the shortest distance, in the frame of the bond.

        Raises:
            IntegralError: what is refused.
        """
        result = BlockSet.zeros(space, numbers, pairs)
        flat = result.values[0]
        for group in result.groups:
            on_site = np.flatnonzero(group.pairs < pairs.n_atoms)
            if len(on_site):
                entries, signs = standard_entries(space, group, on_site)
                channels = BondChannels.on_site(self.shells[group.rows])
                flat[entries] = signs * channels.fill(self.on_site[group.rows][None])
        for group, items, elements in forward_bonds(result):
            entries, signs = standard_entries(space, group, items)
            vectors = pairs.vectors_angstrom[group.pairs[items]]
            block = self._of_bonds(elements, vectors, refuse=refuse) * signs
            flat[entries] = block
            back = result.starts[pairs.reverse[group.pairs[items]]][:, None, None]
            rows, columns = (space.to_standard(number).index for number in elements)
            flat[back + columns * len(rows) + rows[:, None]] = block
        return result

    def _of_bonds(self, elements: Elements, vectors: Array, *, refuse: bool) -> Array:
        """Blocks of bonds from the first to the second element, standard order, (bond, row, column)."""
        distances = np.linalg.norm(vectors, axis=1)
        table = self.pairs.get(elements)
        if refuse:
            _refuse_unknown(elements, table, distances, self.pairs)
        channels = self._channels.get(elements) or channels_of(self.shells, elements)
        if table is None:
            return np.zeros((len(vectors), *channels.shape))
        first, second = (self.shells[number] for number in elements)
        frames = BondFrames.of(vectors, max(*first, *second))
        return frames.leave(channels.fill(table(distances.clip(table.covered[0, 0]))), first, second)

    def uncovered(self, numbers: NDArray[np.int64], pairs: PairList) -> tuple[str, ...]:
        """A sentence for every two elements with distances that were not fitted: overlaps are interpolated or faded."""
        sentences = []
        symbols = np.array(SYMBOLS)[numbers]
        first, second = symbols[pairs.first[pairs.n_atoms :]], symbols[pairs.second[pairs.n_atoms :]]
        lengths = pairs.distances_angstrom[pairs.n_atoms :]
        for elements, table in self.pairs.items():
            a, b = (SYMBOLS[number] for number in elements)
            own = lengths[(first == a) & (second == b)]
            outside = own[table.outside(own)]
            if len(outside):
                count = len(outside) // (1 + (a == b))  # of like atoms both directions are here
                ranges = ", ".join(f"{low:.2f}-{high:.2f}" for low, high in table.covered.tolist())
                sentences.append(
                    f"{count} overlaps of {name_of(elements)} at {outside.min():.2f} to {outside.max():.2f} Å lie outside "
                    f"the distances that the two-centre tables were fitted to ({ranges} Å); they are interpolated."
                )
        return tuple(sentences)


def _refuse_unknown(
    elements: Elements, table: PairTable | None, distances: Array, known: Mapping[Elements, PairTable]
) -> None:
    if table is None:
        raise IntegralError(
            f"The two-centre tables know no overlap of {name_of(elements)}: these elements were never neighbours in the "
            "structures that the tables were fitted to.",
            allowed=[name_of(pair) for pair in known],
            field="positions",
        )
    shortest = float(distances.min())
    if shortest < table.covered[0, 0] - SHORT_MARGIN_ANGSTROM:
        raise IntegralError(
            f"{name_of(elements)} atoms are {shortest:.3f} Å apart; the two-centre tables begin at "
            f"{table.covered[0, 0]:.3f} Å.",
            hint="Check the geometry; a model whose tables were fitted to shorter distances would be needed.",
            field="positions",
        )


def elements_of(a: int, b: int) -> Elements:
    """Two atomic numbers in the alphabetical sequence of their symbols."""
    return (a, b) if SYMBOLS[a] <= SYMBOLS[b] else (b, a)


def name_of(elements: Elements) -> str:
    """ "Mo-Te", as pair cutoffs are called on a card."""
    return "-".join(SYMBOLS[number] for number in elements)


def channels_of(shells: Mapping[int, tuple[int, ...]], elements: Elements) -> BondChannels:
    """Channels of a bond between two elements."""
    a, b = elements
    return BondChannels.of_pair(shells[a], shells[b], like=a == b)


def forward_bonds(blocks: BlockSet) -> Iterator[tuple[Any, NDArray[np.int64], Elements]]:
    """One direction of every bond: group, which of its pairs, and its elements, the group's rows being the first of them."""
    pairs = blocks.pairs
    for group in blocks.groups:
        elements = group.rows, group.columns
        if elements != elements_of(*elements):
            continue
        forward = group.pairs >= pairs.n_atoms
        if group.rows == group.columns:
            forward &= group.pairs < pairs.reverse[group.pairs]
        items = np.flatnonzero(forward)
        if len(items):
            yield group, items, elements


def _length(values: Array | None) -> int:
    return 0 if values is None or not values.ndim else len(values)


def _check_shape(name: str, values: Array | None, expected: tuple[int, ...]) -> None:
    if values is None or values.shape != expected:
        found = "missing" if values is None else f"of shape {values.shape}"
        raise CheckpointError(
            f"The table {name!r} of two-centre integrals is {found}; the basis needs {expected}.",
            hint="Fit the tables again with this basis, or copy the checkpoint folder again.",
        )
