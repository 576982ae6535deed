"""Pictures of a report: parity, errors by shell pair, orbital levels, SCF cycles.

Everything is drawn from the report alone, so a stored report.json can be drawn again. Needs matplotlib (part of the
``training`` extra); the figures are rendered by Agg, without pyplot and without a display. Colours are Okabe and Ito's and
viridis, which colour-blind readers tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from model.units import EV_PER_HARTREE
from training.evaluate.parity import ERROR_EDGES, LINEAR_HARTREE, PARITY_EDGES, SIZE_EDGES
from training.evaluate.spectra_plots import spectra_figures
from training.evaluate.summary import SCF_NAMES

Matrix = NDArray[np.float64]

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#666666"
GUESS_COLOURS: Final = {"guess": BLUE, "minao": ORANGE, "1e": GREEN, "atom": PURPLE}
STYLE: Final[Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "legend.frameon": False,
    "figure.dpi": 150.0,
    "svg.fonttype": "none",
}


def draw(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw all pictures of all splits.

    Args:
        report: from ``training.evaluate.report.evaluate``, or read back from report.json.
        folder: exists.

    Returns:
        the files: of molecules parity-, blocks-, levels- and, where SCFs were run, cycles-SPLIT.png; of crystals blocks-,
        bands- and dos-SPLIT.png.
    """
    written = []
    with mpl.rc_context(STYLE):
        for split, part in report["splits"].items():
            title = f"{report['checkpoint']}, {split}: {len(part['frames'])} structures"
            figures = {"blocks": blocks_figure(part["shells"], title)}
            if "spectra" in part:
                figures |= spectra_figures(part["spectra"], title)
            else:
                figures |= {"parity": parity_figure(part, title), "levels": levels_figure(part["levels"], title)}
            if part["scf"]:
                figures["cycles"] = cycles_figure(part["scf"], title)
            for name, figure in figures.items():
                path = folder / f"{name}-{split.replace('/', '-')}.png"
                FigureCanvasAgg(figure).print_png(str(path))
                written.append(path)
    return written


def parity_figure(part: Mapping[str, Any], title: str) -> Figure:
    """Predicted against labelled elements, and the size of the error over the size of the element."""
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    error = np.array(part["parity"]["error"])
    norm = LogNorm(1, max(10, int(error.max())))
    _counts(left, PARITY_EDGES, PARITY_EDGES, np.array(part["parity"]["parity"]), norm)
    left.plot(PARITY_EDGES[[0, -1]], PARITY_EDGES[[0, -1]], color=GREY, linewidth=0.6, zorder=3)
    ticks = [-10.0, -1.0, -0.1, -0.01, -1e-3, 0.0, 1e-3, 0.01, 0.1, 1.0, 10.0]
    names = ["−10", "−1", "", "$-10^{-2}$", "", "0", "", "$10^{-2}$", "", "1", "10"]
    places = np.arcsinh(np.array(ticks) / LINEAR_HARTREE)
    left.set_xticks(places, names)
    left.set_yticks(places, names)
    left.set_xlabel("label's element (Eh)")
    left.set_ylabel("predicted element (Eh)")
    left.set_title("elements of H")
    mesh = _counts(right, SIZE_EDGES, ERROR_EDGES, error, norm)
    for counts, colour, label in (
        (np.array(part["parity"]["error_reference"]), ORANGE, "median, H0"),
        (error, BLUE, "median, predicted"),
    ):
        if counts.any():
            right.plot(*_medians(counts), color="white", linewidth=3.2)
            right.plot(*_medians(counts), color=colour, linewidth=1.8, label=label)
    right.set_xticks(range(-6, 3, 2), [f"$10^{{{power}}}$" for power in range(-6, 3, 2)])
    right.set_yticks(range(-2, 7, 2), [f"$10^{{{power}}}$" for power in range(-2, 7, 2)])
    right.set_xlabel("size of the label's element (Eh)")
    right.set_ylabel("error of the element (µEh)")
    right.set_title("error by size")
    right.legend(loc="upper left")
    for axes in (left, right):
        axes.set_box_aspect(1.0)
    figure.colorbar(mesh, ax=[left, right], label="elements in a cell", shrink=0.85, extend="max")
    return figure


def blocks_figure(shells: Mapping[str, Any], title: str) -> Figure:
    """Mean |dH| by shell pair: two atoms (triangle of element pairs), one atom (bottom row), all elements (top right)."""
    key = shells.get("unit", "uEh")
    unit = {"uEh": "µEh"}.get(key, key)
    maps = {
        (entry["kind"], *entry["elements"]): np.array(entry[f"mae_{key}"], dtype=float) for entry in shells["elements"]
    }
    elements = list(dict.fromkeys(symbol for _, row, column in maps for symbol in (row, column)))
    elements.sort(key=[key[1] for key in maps if key[0] == "on-site"].index)
    count = len(elements)
    values = np.concatenate([entry[entry > 0.0] for entry in [*maps.values(), np.zeros(0)]])
    low, high = (float(np.percentile(values, 2)), float(values.max())) if len(values) else (0.1, 1.0)
    norm = LogNorm(low, max(high, low * 1.01))
    side = max(1.55 * (count + 1), 4.6)
    figure = Figure(figsize=(side + 1.2, side + 0.5), layout="constrained")
    figure.suptitle(f"{title}\nmean |error| by shell pair")
    grid = figure.add_gridspec(count + 1, max(count, 2))
    mesh: Any = None
    for i, row in enumerate(elements):
        for j, column in enumerate(elements[: i + 1]):
            key = ("pair", column, row)
            if key in maps:
                axes = figure.add_subplot(grid[i, j])
                mesh = _map(axes, maps[key].T, shells["shells"], norm, names=count <= 6)
                axes.set_title(f"{row}-{column}", pad=2)
        if ("on-site", row, row) in maps:
            axes = figure.add_subplot(grid[count, i])
            mesh = _map(axes, maps["on-site", row, row], shells["shells"], norm, names=count <= 6)
            axes.set_title(f"{row} on-site", pad=2)
    if count:
        reach = max(1, count // 2)
        axes = figure.add_subplot(grid[:reach, grid.ncols - reach :])
        mesh = _map(axes, np.array(shells["overall"], dtype=float), shells["shells"], norm, numbers=reach > 1)
        axes.set_title(f"all elements ({unit})")
    figure.colorbar(mesh, ax=figure.axes, label=f"mean |error| ({unit})", shrink=0.7, aspect=30, extend="min")
    return figure


def levels_figure(chosen: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Orbital energies around the gap of a few molecules, from the best to the worst prediction."""
    figure = Figure(figsize=(max(2.6 * len(chosen), 4.0) + 0.6, 4.8), layout="constrained")
    figure.suptitle(f"{title}\nlevels around the gap (worst of HOMO and LUMO decides the rank)")
    for axes, entry in zip(np.atleast_1d(figure.subplots(1, len(chosen))), chosen, strict=True):
        columns = [name for name in ("h0", "label", "predicted") if entry[name] is not None]
        names = {"h0": "H0", "label": "label", "predicted": "predicted"}
        energies = {name: EV_PER_HARTREE * np.array(entry[name]) for name in columns}
        occupied = int(entry["occupied"])
        for place, name in enumerate(columns):
            for rank, energy in enumerate(energies[name]):
                colour = BLUE if rank < occupied else ORANGE
                axes.hlines(energy, place - 0.3, place + 0.3, color=colour, linewidth=1.6)
                if place and rank < len(energies[columns[place - 1]]):
                    before = energies[columns[place - 1]][rank]
                    axes.plot([place - 0.7, place - 0.3], [before, energy], color=GREY, linewidth=0.5, linestyle=":")
        axes.set_ylim(*_level_limits(energies, occupied))
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_xticks(range(len(columns)), [names[name] for name in columns])
        axes.tick_params(axis="x", length=0)
        smiles = str(entry["smiles"])
        axes.set_title(f"{entry['rank']}\n{smiles if len(smiles) <= 22 else smiles[:19] + '...'}")
    first = figure.axes[0]
    first.set_ylabel("orbital energy (eV)")
    for colour, label in ((ORANGE, "virtual"), (BLUE, "occupied")):
        first.plot([], [], color=colour, linewidth=1.6, label=label)
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def cycles_figure(runs: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """How many SCFs took how many cycles, from each guess."""
    sides = {"guess": [run["guess"] for run in runs], "minao": [run["minao"] for run in runs]}
    for name in GUESS_COLOURS:
        if all(name in run["others"] for run in runs):
            sides[name] = [run["others"][name] for run in runs]
    cycles = {name: np.array([run["cycles"] for run in side]) for name, side in sides.items()}
    low, high = min(c.min() for c in cycles.values()), max(c.max() for c in cycles.values())
    figure = Figure(figsize=(max(4.8, 0.36 * (high - low) + 2.5), 1.15 * len(cycles) + 1.1), layout="constrained")
    figure.suptitle(title)
    rows = np.atleast_1d(figure.subplots(len(cycles), 1, sharex=True, sharey=True))
    for axes, (name, counted) in zip(rows, cycles.items(), strict=True):
        values, counts = np.unique(counted, return_counts=True)
        axes.bar(values, counts, 0.8, color=GUESS_COLOURS[name])
        axes.axvline(counted.mean(), color="black", linewidth=0.9, linestyle="--")
        axes.set_title(f"from {SCF_NAMES.get(name, name)}: mean {counted.mean():.2f}", loc="left", pad=3)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    rows[-1].set_xticks(range(low, high + 1))
    rows[-1].set_xlabel("SCF cycles at PySCF's defaults")
    figure.supylabel("structures", fontsize="medium")
    return figure


def _counts(axes: Axes, x: Matrix, y: Matrix, counts: NDArray[np.int64], norm: LogNorm) -> Any:
    shown = np.ma.masked_equal(counts.T, 0)
    return axes.pcolormesh(x, y, shown, norm=norm, cmap="viridis", rasterized=True)


def _medians(counts: NDArray[np.int64]) -> tuple[Matrix, Matrix]:
    """Median error of each column that has enough elements to have one."""
    columns = [i for i, row in enumerate(counts) if row.sum() >= 50]
    middle = (ERROR_EDGES[:-1] + ERROR_EDGES[1:]) / 2
    medians = [middle[int(np.searchsorted(counts[i].cumsum(), counts[i].sum() / 2))] for i in columns]
    return ((SIZE_EDGES[:-1] + SIZE_EDGES[1:]) / 2)[columns], np.array(medians)


def _map(
    axes: Axes, values: Matrix, shells: Sequence[str], norm: LogNorm, *, names: bool = True, numbers: bool = False
) -> Any:
    rows, columns = (np.asarray(~np.isnan(values).all(axis=axis)) for axis in (1, 0))
    values = values[rows][:, columns]
    mesh = axes.imshow(values, norm=norm, cmap="viridis")
    size = 9.0 if numbers else 6.5
    for axis, kept in ((axes.xaxis, columns), (axes.yaxis, rows)):
        labels = [name for name, keep in zip(shells, kept, strict=True) if keep]
        axis.set_ticks(range(len(labels)), labels if names else [""] * len(labels), fontsize=size)
    axes.tick_params(length=0, pad=1.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if numbers:
        for (i, j), value in np.ndenumerate(values):
            if not np.isnan(value):
                dark = norm(max(value, norm.vmin or value)) < 0.55
                axes.text(
                    j, i, f"{value:.3g}", ha="center", va="center", color="white" if dark else "black", fontsize=7.5
                )
    return mesh


def _level_limits(energies: Mapping[str, Matrix], occupied: int) -> tuple[float, float]:
    """A window of some eV around the gap that holds everybody's HOMO and LUMO."""
    label = energies["label"]
    homos = [values[occupied - 1] for values in energies.values()]
    lumos = [values[min(occupied, len(values) - 1)] for values in energies.values()]
    low = max(min(label[occupied - 1] - 5.0, *homos), label[0]) - 0.8
    return min(low, min(homos) - 0.5, min(lumos) - 0.5), max(label[min(occupied, len(label) - 1)] + 5.0, *lumos) + 0.5
