"""Bands and densities of states as pictures, in eV from the Fermi level. Needs matplotlib (the extra ``pictures``)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model.units import EV_PER_HARTREE
from service.crystals.plan import Plan
from service.crystals.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE_INCHES: Final = (5.0, 4.0)
DOTS_PER_INCH: Final = 150
SHOWN_EV: Final = (-10.0, 10.0)
"""Around the Fermi level, where nobody chose a window."""

COLOURS: Final = ("#1f4e8c", "#c0392b")
"""Of the one spin, or of alpha and beta."""

GREEK: Final = {"G": "Γ"}


def draw(study: Study, plan: Plan, form: str) -> bytes:
    """A picture of what was solved.

    Args:
        study: with bands on a path, or with a density of states.
        plan: what was asked.
        form: "png" or "svg".
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # the same answer is the same bytes
    with mpl.rc_context({"svg.hashsalt": "tracegrad", "svg.fonttype": "none"}):
        figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
        FigureCanvasAgg(figure)
        if study.bands is not None:
            _bands(figure, study, plan)
        else:
            _states(figure, study, plan)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, metadata={"Date": None} if form == "svg" else {"Software": None})
    return buffer.getvalue()


def _bands(figure: Figure, study: Study, plan: Plan) -> None:
    assert study.bands is not None
    assert study.level is not None
    assert plan.path is not None
    axes: Any = figure.add_subplot()
    path = plan.path
    breaks = np.flatnonzero(np.diff(path.distances) == 0) + 1
    for colour, energies in zip(COLOURS, study.bands.energies, strict=False):
        shown = (energies - study.level.energy) * EV_PER_HARTREE
        for x, y in zip(np.split(path.distances, breaks), np.split(shown, breaks), strict=True):
            axes.plot(x, y, color=colour, linewidth=1.0, marker="." if len(x) == 1 else None)
    places: dict[float, list[str]] = {}
    for index, label in path.labels:
        places.setdefault(float(path.distances[index]), []).append(GREEK.get(label, label))
    axes.set_xticks(list(places), ["|".join(dict.fromkeys(names)) for names in places.values()])
    for place in places:
        axes.axvline(place, color="0.8", linewidth=0.8)
    axes.axhline(0.0, color="0.4", linewidth=0.8, linestyle="--")
    axes.set_xlim(path.distances[0], max(path.distances[-1], 1e-9))
    axes.set_ylim(*(plan.window_ev or SHOWN_EV))
    axes.set_ylabel("E − E_F (eV)")


def _states(figure: Figure, study: Study, plan: Plan) -> None:
    assert study.dos is not None
    assert study.level is not None
    axes: Any = figure.add_subplot()
    energies = (study.dos.energies - study.level.energy) * EV_PER_HARTREE
    for colour, sign, values in zip(COLOURS, (1, -1), study.dos.values, strict=False):
        axes.fill_between(energies, sign * values / EV_PER_HARTREE, color=colour, alpha=0.3, linewidth=0)
        axes.plot(energies, sign * values / EV_PER_HARTREE, color=colour, linewidth=1.0)
    axes.axvline(0.0, color="0.4", linewidth=0.8, linestyle="--")
    axes.set_xlim(energies[0], energies[-1])
    axes.set_xlabel("E − E_F (eV)")
    axes.set_ylabel("states per eV and cell")
