"""Errors of matrix elements: of the blocks of atoms, of shell pairs, and where they lie among the orbitals.

Averages come in two kinds. *Per molecule*: mean over a molecule's entries, then over molecules; the one that QH9
publishes (Yu et al., NeurIPS Datasets and Benchmarks 2023, arXiv:2306.09549). *Per entry*: sum over all entries of all
molecules over their number, where large molecules weigh more; shell pairs have only this one, because most
molecules lack most of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.orbitals.space import OrbitalSpace
from model.structure import SYMBOLS
from training.evaluate.finished import packed, unpacked

Matrix = NDArray[np.float64]

KINDS: Final = ("on-site", "pair")
"""Blocks of one atom with itself, and of two different atoms."""


@dataclass(frozen=True)
class WorstBlock:
    """The shell-pair block with the largest mean error, µEh."""

    kind: str
    elements: tuple[str, str]
    shells: tuple[str, str]
    mae: float

    @property
    def name(self) -> str:
        """Like "O-O on-site, s1-s2"."""
        return f"{'-'.join(self.elements)} {self.kind}, {'-'.join(self.shells)}"


class ShellErrors:
    """Mean |dH| by shell pair, element pair and kind of block, gathered over molecules: DeepH-E3's error map.

    Args:
        basis: gives the shells; they are named by their place in the template, s1 s2 s3 p1 p2 d1 for def2-SVP of
            H C N O F (an element with fewer shells has the first ones of each kind).
    """

    def __init__(self, basis: OrbitalSpace) -> None:
        self.basis = basis
        letters = ["spdfghik"[ang] for ang in basis.template]
        self.shells = tuple(f"{letter}{letters[: i + 1].count(letter)}" for i, letter in enumerate(letters))
        size = len(basis.elements) * len(self.shells)
        self.sums: Matrix = np.zeros((len(KINDS), size, size))
        self.counts: Matrix = np.zeros((len(KINDS), size, size))

    def add(self, numbers: NDArray[np.int64], absolute: Matrix) -> None:
        """Add a molecule.

        Args:
            numbers: atomic numbers, (atom,).
            absolute: |dH|, (ao, ao), µEh, PySCF's order.
        """
        group, atom = [], []
        for index, number in enumerate(numbers):
            first = self.basis.elements.index(int(number)) * len(self.shells)
            sizes = [2 * ang + 1 for ang in self.basis.shells_of(number)]
            group += list(np.repeat(first + np.array(self.basis.template_shells(number)), sizes))
            atom += [index] * sum(sizes)
        member = (np.arange(self.sums.shape[1])[:, None] == np.array(group)[None, :]).astype(float)
        same = np.equal.outer(atom, atom).astype(float)
        for kind, mask in enumerate((same, 1.0 - same)):
            self.sums[kind] += member @ (absolute * mask) @ member.T
            self.counts[kind] += member @ mask @ member.T

    def add_blocks(self, absolute: BlockSet) -> None:
        """Add a crystal.

        Args:
            absolute: |dH| of every pair, mean over spin parts, one real part, in the unit of the map; a space with the same
                shells.
        """
        width = len(self.shells)
        pairs = absolute.pairs
        on_site = (pairs.first == pairs.second) & ~pairs.shift.any(axis=1)
        for group in absolute.groups:
            blocks = absolute.values[0, group.entries]
            row, column = (self._members(absolute.space, number) for number in (group.rows, group.columns))
            i, j = (self.basis.elements.index(number) * width for number in (group.rows, group.columns))
            here = (slice(i, i + width), slice(j, j + width))
            for kind, mask in enumerate((on_site[group.pairs], ~on_site[group.pairs])):
                self.sums[kind][here] += row @ blocks[mask].sum(axis=0) @ column.T
                self.counts[kind][here] += mask.sum() * np.outer(row.sum(axis=1), column.sum(axis=1))

    def _members(self, space: OrbitalSpace, number: int) -> Matrix:
        """Which template shell each orbital of an element is of, (template shell, ao); orders keep shells together."""
        shells = np.repeat(self.basis.template_shells(number), [2 * ang + 1 for ang in space.shells_of(number)])
        return (np.arange(len(self.shells))[:, None] == shells[None, :]).astype(float)

    def state(self) -> dict[str, Any]:
        """Sums and counts, JSON-able."""
        return {"sums": packed(self.sums), "counts": packed(self.counts)}

    def add_state(self, stored: Mapping[str, Any]) -> None:
        """Add what another one's :meth:`state` says, of the same basis."""
        self.sums += unpacked(stored["sums"])
        self.counts += unpacked(stored["counts"])

    def entry_means(self) -> tuple[float, float, float]:
        """Mean per entry of all, diagonal-block and off-diagonal-block elements, µEh (0 where there are none)."""
        sums, counts = self.sums.sum(axis=(1, 2)), self.counts.sum(axis=(1, 2))
        diagonal, off = (float(s / c) if c else 0.0 for s, c in zip(sums, counts, strict=True))
        return float(sums.sum() / max(counts.sum(), 1.0)), diagonal, off

    def overall(self, kind: str | None = None) -> Matrix:
        """Mean over all elements, (template shell, template shell), µEh; NaN where nothing was seen.

        Args:
            kind: of ``KINDS``; None for both.
        """
        width, chosen = len(self.shells), [KINDS.index(kind)] if kind else list(range(len(KINDS)))
        shape = (len(chosen), -1, width, len(self.basis.elements), width)
        return _mean(
            self.sums[chosen].reshape(shape).sum(axis=(0, 1, 3)), self.counts[chosen].reshape(shape).sum(axis=(0, 1, 3))
        )

    def of(self, kind: str, row: int, column: int) -> Matrix:
        """Mean for two elements, (shell of ``row``, shell of ``column``), µEh; NaN where nothing was seen."""
        width, which = len(self.shells), KINDS.index(kind)
        i, j = (self.basis.elements.index(number) * width for number in (row, column))
        here = (which, slice(i, i + width), slice(j, j + width))
        return _mean(self.sums[here], self.counts[here])

    def maps(self) -> list[tuple[str, int, int, Matrix]]:
        """Every (kind, element, element, map) that was seen; of two elements the lighter one gives the rows."""
        found = []
        for kind in KINDS:
            for i, row in enumerate(self.basis.elements):
                for column in self.basis.elements[i:]:
                    values = self.of(kind, row, column)
                    if not np.isnan(values).all():
                        found.append((kind, row, column, values))
        return found

    def worst(self) -> WorstBlock:
        """The block with the largest mean.

        Raises:
            ValueError: nothing was added.
        """
        best: WorstBlock | None = None
        for kind, row, column, values in self.maps():
            i, j = np.unravel_index(np.nanargmax(values), values.shape)
            if best is None or values[i, j] > best.mae:
                names = (SYMBOLS[row], SYMBOLS[column])
                best = WorstBlock(kind, names, (self.shells[i], self.shells[j]), float(values[i, j]))
        if best is None:
            raise ValueError("No molecule was added.")
        return best

    def to_json(self, unit: str = "uEh") -> dict[str, Any]:
        """Everything as lists, None where nothing was seen; the unit, in which errors were added, names the element maps."""
        return {
            "unit": unit,
            "shells": list(self.shells),
            "overall": _lists(self.overall()),
            **{kind: _lists(self.overall(kind)) for kind in KINDS},
            "elements": [
                {"kind": kind, "elements": [SYMBOLS[row], SYMBOLS[column]], f"mae_{unit}": _lists(values)}
                for kind, row, column, values in self.maps()
            ],
        }


def _mean(sums: Matrix, counts: Matrix) -> Matrix:
    return np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan)


def _lists(values: Matrix) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in values]
