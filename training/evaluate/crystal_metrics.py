"""The table of metrics of crystals, in meV: the paper's three, and what a user sees. Definitions: docs/metrics.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from training.evaluate.crystals import CrystalErrors
from training.evaluate.errors import ShellErrors
from training.evaluate.metrics import Metric


@dataclass(frozen=True)
class CrystalSplit:
    """What the metrics of a split are made of.

    Attributes:
        frames: its structures, at least one.
        shells: errors by shell pair over the same structures, meV.
    """

    frames: Sequence[CrystalErrors]
    shells: ShellErrors

    def values(self, name: str) -> list[float]:
        """A field of every structure that has it."""
        return [value for frame in self.frames if (value := getattr(frame, name)) is not None]


def _of(name: str, statistic: Callable[[Any], Any]) -> Callable[[CrystalSplit], float | None]:
    """A statistic of the absolute value of a field."""
    return lambda split: float(statistic(np.abs(found))) if (found := split.values(name)) else None


def published_block(split: CrystalSplit) -> float:
    """Largest cell of the map over all elements and both kinds of blocks."""
    return float(np.nanmax(split.shells.overall()))


def metallic(split: CrystalSplit) -> float | None:
    """Share of structures whose gap is there in one of prediction and label only."""
    pairs = [(f.gap_label, f.gap_label + f.gap) for f in split.frames if f.gap is not None and f.gap_label is not None]
    return float(np.mean([(own == 0) != (other == 0) for own, other in pairs])) if pairs else None


CRYSTAL_METRICS: Final[tuple[Metric, ...]] = (
    Metric("Data", "frames", "", "structures", lambda split: len(split.frames)),
    Metric("Data", "with_spectra", "", "of them diagonalised", lambda split: len(split.values("dos"))),
    *(
        Metric("Hamiltonian", name, "meV", meaning, of)
        for name, meaning, of in (
            ("hamiltonian_mae_meV", "mean |dH| of a structure, then over structures", _of("hamiltonian", np.mean)),
            ("hamiltonian_mae_entries_meV", "mean over all elements: MAE_all", lambda s: s.shells.entry_means()[0]),
            ("hamiltonian_rms_meV", "root mean square |dH|, mean over structures", _of("hamiltonian_rms", np.mean)),
            ("on_site_mae_meV", "blocks of an atom with itself", _of("on_site", np.mean)),
            ("off_site_mae_meV", "blocks of two atoms, or of two images of one", _of("off_site", np.mean)),
            ("challenging_sample_mae_meV", "the worst structure: MAE_cha-sample", _of("hamiltonian", np.max)),
            ("challenging_block_mae_meV", "the worst shell pair over all elements: MAE_cha-block", published_block),
            ("worst_block_mae_meV", "the same by element pair and kind", lambda split: split.shells.worst().mae),
            ("zero_mae_meV", "common zero mu that was taken off before, label and prediction", _of("zero", np.mean)),
        )
    ),
    *(
        Metric("Spectrum", name, unit, meaning, of)
        for name, unit, meaning, of in (
            (
                "bands_rms_meV",
                "meV",
                "levels within 2 eV of E_F or the gap, aligned at E_F; mean over structures",
                _of("bands_rms", np.mean),
            ),
            ("bands_rms_worst_meV", "meV", "of the worst structure", _of("bands_rms", np.max)),
            ("bands_max_meV", "meV", "largest error of one level", _of("bands_max", np.max)),
            ("gap_mae_meV", "meV", "gap on the mesh, mean", _of("gap", np.mean)),
            ("gap_max_meV", "meV", "worst", _of("gap", np.max)),
            ("metal_or_not_wrong", "", "share with a gap in label or prediction only", metallic),
            ("fermi_mae_meV", "meV", "Fermi level, both with their common zero", _of("fermi", np.mean)),
            ("dos_distance", "", "0 equal, 1 disjoint; mean", _of("dos", np.mean)),
            ("dos_distance_max", "", "worst", _of("dos", np.max)),
            ("density_per_electron", "", "share of electrons in wrong places, mean", _of("density", np.mean)),
            ("density_per_electron_max", "", "worst", _of("density", np.max)),
        )
    ),
    Metric(
        "Cost of a prediction",
        "prediction_ms_median",
        "ms",
        "wall time, one at a time",
        _of("prediction_ms", np.median),
    ),
)
