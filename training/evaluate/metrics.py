"""The table of metrics: what a split's summary holds, in which unit, how it comes from its structures, and what it means.

One row is one figure. The summary, the text table and the list in docs/metrics.md (a test compares them) are made of it;
figures of SCF runs, whose names depend on the guesses compared with, are ``summary.scf_ratios``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from model.electronic.comparison import INTRUDER_DISTANCE
from training.evaluate.errors import ShellErrors
from training.evaluate.molecules import FrameErrors

GROSS_UEH: Final = {"homo": 1e4, "lumo": 2e4, "gap": 2e4}
"""Frontier errors from which on a prediction is grossly wrong, µEh."""

SCF_SECTION: Final = "SCF, PySCF's defaults"
"""Where figures that are not in the table are shown."""


@dataclass(frozen=True)
class Split:
    """What the metrics of a split are made of.

    Attributes:
        frames: its structures, at least one.
        shells: errors gathered over the same structures; None if they were not.
    """

    frames: Sequence[FrameErrors]
    shells: ShellErrors | None

    def values(self, name: str) -> list[Any]:
        """A field of every structure; empty if one has none."""
        found = [getattr(frame, name) for frame in self.frames]
        return [] if any(value is None for value in found) else found


@dataclass(frozen=True)
class Metric:
    """One figure.

    Attributes:
        section: of the table.
        name: key in the summary; public.
        unit: of the value; empty for counts, shares and norms.
        meaning: in a few words, for people.
        of: its value for a split, of molecules or of crystals; None where it has none.
    """

    section: str
    name: str
    unit: str
    meaning: str
    of: Callable[[Any], float | None]


def wrong_homo(item: FrameErrors) -> bool:
    """Whether the HOMO's level is another one: the intruder is among the occupied orbitals."""
    return item.homo_distance > INTRUDER_DISTANCE


def gross(item: FrameErrors) -> bool:
    """Whether a prediction is grossly wrong around the gap."""
    return item.intruder or any(abs(getattr(item, name)) > limit for name, limit in GROSS_UEH.items())


def mean(name: str) -> Callable[[Split], float | None]:
    """Mean of a field over structures."""
    return lambda split: float(np.mean(found)) if (found := split.values(name)) else None


def worst(name: str) -> Callable[[Split], float | None]:
    """Largest value of a field."""
    return lambda split: float(max(found)) if (found := split.values(name)) else None


def per_electron(name: str) -> Callable[[Split], float | None]:
    """Mean of a norm over the square root of occupied orbitals."""

    def of(split: Split) -> float | None:
        found = split.values(name)
        norms = [value / np.sqrt(frame.occupied) for value, frame in zip(found, split.frames, strict=bool(found))]
        return float(np.mean(norms)) if norms else None

    return of


def absolute(name: str, statistic: Callable[[Any], Any]) -> Callable[[Split], float | None]:
    """A statistic of the absolute value of a field."""
    return lambda split: float(statistic(np.abs(split.values(name))))


def share(which: Callable[[FrameErrors], bool]) -> Callable[[Split], float | None]:
    """Share of structures for which something holds."""
    return lambda split: float(np.mean([which(frame) for frame in split.frames]))


def entry_mean(part: int) -> Callable[[Split], float | None]:
    """Mean per entry of all, on-site or off-site elements."""
    return lambda split: None if split.shells is None else split.shells.entry_means()[part]


_FRONTIER: Final[tuple[tuple[str, str, Callable[[Any], Any]], ...]] = (
    ("mae", "mean", np.mean),
    ("median", "median", np.median),
    ("p95", "95th percentile", lambda values: np.percentile(values, 95)),
    ("max", "worst", np.max),
)

METRICS: Final[tuple[Metric, ...]] = (
    Metric("Data", "frames", "", "structures", lambda split: len(split.frames)),
    Metric("Data", "molecules", "", "different molecules", lambda split: len({f.molecule for f in split.frames})),
    *(
        Metric("Hamiltonian", name, "µEh", meaning, of)
        for name, meaning, of in (
            ("hamiltonian_mae_uEh", "mean |dH| per molecule, then over molecules (QH9)", mean("hamiltonian")),
            ("hamiltonian_diagonal_mae_uEh", "the same, blocks of one atom", mean("hamiltonian_diagonal")),
            ("hamiltonian_off_diagonal_mae_uEh", "the same, blocks of two atoms", mean("hamiltonian_off_diagonal")),
            ("hamiltonian_mae_entries_uEh", "mean over all entries of all molecules", entry_mean(0)),
            ("hamiltonian_diagonal_mae_entries_uEh", "the same, blocks of one atom", entry_mean(1)),
            ("hamiltonian_off_diagonal_mae_entries_uEh", "the same, blocks of two atoms", entry_mean(2)),
            ("hamiltonian_reference_mae_uEh", "H0 alone", mean("hamiltonian_reference")),
            ("challenging_sample_mae_uEh", "the worst molecule", worst("hamiltonian")),
            (
                "challenging_block_mae_uEh",
                "the worst shell-pair block (element pair, kind)",
                lambda split: None if split.shells is None else split.shells.worst().mae,
            ),
        )
    ),
    Metric(
        "Hamiltonian", "error_share_oo", "", "of the squared error, in the reference's eigenbasis", mean("error_oo")
    ),
    Metric("Hamiltonian", "error_share_ov", "", "the only part that moves the density", mean("error_ov")),
    Metric("Hamiltonian", "error_share_vv", "", "virtual-virtual", mean("error_vv")),
    Metric(
        "Orbitals",
        "occupied_energies_mae_uEh",
        "µEh",
        "occupied orbital energies (QH9's eps)",
        mean("occupied_energies"),
    ),
    Metric("Orbitals", "psi_percent", "%", "mean |cos| of occupied orbitals, no overlap (QH9's psi)", mean("psi")),
    Metric(
        "Orbitals", "psi_overlap_percent", "%", "mean |cos| of occupied orbitals, overlap metric", mean("psi_overlap")
    ),
    *(
        Metric(
            "Orbitals",
            f"{level}_{kind}_uEh",
            "µEh",
            f"{'gap' if level == 'gap' else level.upper()}, {word}",
            absolute(level, statistic),
        )
        for level in ("homo", "lumo", "gap")
        for kind, word, statistic in _FRONTIER
    ),
    *(
        Metric("Orbitals", name, "", meaning, share(which))
        for name, meaning, which in (
            (
                "intruder_rate",
                "share with a wrong HOMO or LUMO (window distance > 0.7)",
                lambda frame: frame.intruder,
            ),
            ("intruder_rate_occupied", "share with a wrong HOMO", wrong_homo),
            ("protected_rate", "share whose guess was protected from an intruder", lambda frame: frame.protected),
            ("gross_failure_rate", "share with an intruder, or |HOMO| > 10, |LUMO| or |gap| > 20 mEh", gross),
        )
    ),
    *(
        Metric("Density", name, "", meaning, of)
        for name, meaning, of in (
            ("subspace", "distance of the occupied spaces, mean", mean("subspace")),
            ("subspace_max", "worst; near 1 and above: a wrong orbital is filled", worst("subspace")),
            ("density", "|D_ia| to first order, mean", mean("density")),
            ("density_max", "worst", worst("density")),
            ("density_per_electron", "over sqrt(occupied orbitals)", mean("density_per_electron")),
            ("density_reference", "H0, to first order", mean("density_reference")),
            ("density_reference_per_electron", "the same over sqrt(occupied)", per_electron("density_reference")),
            ("density_exact", "|D_ia| of the predicted density itself", mean("density_exact")),
            ("density_exact_per_electron", "the same over sqrt(occupied)", per_electron("density_exact")),
            ("density_exact_max", "worst", worst("density_exact")),
            ("density_reference_exact", "H0", mean("density_reference_exact")),
            ("density_minao", "minao", mean("density_minao")),
            ("density_minao_per_electron", "the same over sqrt(occupied)", per_electron("density_minao")),
        )
    ),
    Metric(
        "Cost of a prediction",
        "prediction_ms_median",
        "ms",
        "wall time, one molecule at a time",
        lambda split: float(np.median(split.values("prediction_ms"))),
    ),
)


def measure(split: Any, metrics: Sequence[Metric] = METRICS) -> dict[str, float]:
    """All metrics that a split has, in the table's order."""
    found = {metric.name: metric.of(split) for metric in metrics}
    return {name: value for name, value in found.items() if value is not None}


def render(metrics: Sequence[Metric] = METRICS) -> str:
    """The table as Markdown: what docs/metrics.md shows."""
    lines = ["| key | unit | meaning |", "|---|---|---|"]
    lines += [f"| `{m.name}` | {m.unit} | {m.meaning.replace('|', chr(92) + '|')} |" for m in metrics]
    return "\n".join(lines)
