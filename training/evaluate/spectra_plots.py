"""Pictures of crystals: bands and density of states beside the label's, from a report or from any two spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

LABEL_COLOUR: Final = "#000000"
PREDICTED_COLOUR: Final = "#D55E00"
LIMITS_EV: Final = (-4.0, 4.0)


def spectra_figures(chosen: Sequence[Mapping[str, Any]], title: str) -> dict[str, Figure]:
    """Bands and DOS of some structures; none where nothing was diagonalised.

    Args:
        chosen: "spectra" of a split of a report.
        title: of the figures.
    """
    if not chosen:
        return {}
    return {"bands": bands_figure(chosen, title), "dos": dos_figure(chosen, title)}


def bands_figure(chosen: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Predicted bands over the label's, each from its own Fermi level."""
    figure = Figure(figsize=(3.6 * len(chosen) + 0.6, 4.4), layout="constrained")
    figure.suptitle(title)
    for axes, entry in zip(np.atleast_1d(figure.subplots(1, len(chosen), sharey=True)), chosen, strict=True):
        draw_bands(axes, entry["bands"])
        error = entry.get("bands_rms_meV")
        figures = "" if error is None else f"\n{error:.1f} meV within 2 eV"
        axes.set_title(f"{entry['rank']}: {entry['formula']}{figures}")
    figure.axes[0].set_ylabel("energy from the Fermi level (eV)")
    _legend(figure)
    return figure


def draw_bands(axes: Axes, bands: Mapping[str, Any]) -> None:
    """One structure's bands.

    Args:
        axes: to draw on.
        bands: {"x", "ticks", "names", "label", "predicted"} of ``spectra.compare_spectra``.
    """
    styles: dict[str, dict[str, Any]] = {
        "label": {"color": LABEL_COLOUR, "linewidth": 1.4},
        "predicted": {"color": PREDICTED_COLOUR, "linewidth": 0.9, "linestyle": (0, (4, 2))},
    }
    for name, style in styles.items():
        for spin in bands[name]:
            for energies in spin:
                axes.plot(bands["x"], energies, **style)
    for tick in bands["ticks"]:
        axes.axvline(tick, color="#BBBBBB", linewidth=0.6, zorder=0)
    axes.axhline(0.0, color="#BBBBBB", linewidth=0.6, linestyle=":", zorder=0)
    axes.set_xticks(bands["ticks"], ["Γ" if name == "G" else name for name in bands["names"]])
    axes.set_xlim(bands["x"][0], bands["x"][-1])
    axes.set_ylim(*LIMITS_EV)


def dos_figure(chosen: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Predicted density of states over the label's."""
    figure = Figure(figsize=(7.0, 2.0 * len(chosen) + 1.0), layout="constrained")
    figure.suptitle(title)
    for axes, entry in zip(np.atleast_1d(figure.subplots(len(chosen), 1, sharex=True)), chosen, strict=True):
        energies, label = np.array(entry["dos"]["energies"]), np.array(entry["dos"]["label"])
        axes.fill_between(energies, label, color="#CCCCCC", linewidth=0.0)
        axes.plot(energies, label, color=LABEL_COLOUR, linewidth=1.0)
        axes.plot(energies, entry["dos"]["predicted"], color=PREDICTED_COLOUR, linewidth=1.0, linestyle=(0, (4, 2)))
        axes.axvline(0.0, color="#BBBBBB", linewidth=0.6, linestyle=":")
        axes.set_xlim(energies[0], energies[-1])
        axes.set_ylim(bottom=0.0)
        axes.set_ylabel("states / (eV atom)")
        distance = entry.get("dos_distance")
        figures = "" if distance is None else f", distance {distance:.4f}"
        axes.set_title(f"{entry['rank']}: {entry['formula']}{figures}")
    figure.axes[-1].set_xlabel("energy from the Fermi level (eV)")
    _legend(figure)
    return figure


def _legend(figure: Figure) -> None:
    first = figure.axes[0]
    lines = [
        first.plot([], [], color=LABEL_COLOUR, linewidth=1.4, label="label (DFT)")[0],
        first.plot([], [], color=PREDICTED_COLOUR, linewidth=0.9, linestyle=(0, (4, 2)), label="predicted")[0],
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=2)
