"""Bands and densities of states of a crystal, read from the answers of ``/v1/bands`` and ``/v1/dos``; with pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tracegrad_client.energies import EnergyUnit
from tracegrad_client.errors import InvalidAnswerError
from tracegrad_client.wire import Tensors

GREEK: Final = {"G": "Γ"}


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Levels:
    """What bands and densities of states both say.

    Attributes:
        fermi_energy: in ``unit``.
        gap: lowest empty less highest full energy, 0 for a metal; None where there is no empty band.
        is_metal: whether a band is partly full.
        smallest_overlap_eigenvalue: an error of the Hamiltonian is magnified by up to its inverse.
        unit: of energies, "eV" or "hartree".
        model, in_domain, warnings: who answered, whether it was made for such a crystal, and what there was to say.
    """

    fermi_energy: float
    gap: float | None
    is_metal: bool
    smallest_overlap_eigenvalue: float
    unit: EnergyUnit
    model: str
    in_domain: bool
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model}, {self._told()})"

    def _told(self) -> str:
        gap = "a metal" if self.is_metal else f"gap {'none' if self.gap is None else f'{self.gap:.3f} {self.unit}'}"
        return f"Fermi level {self.fermi_energy:.3f} {self.unit}, {gap}"


@dataclass(frozen=True, eq=False, repr=False)
class BandStructure(Levels):
    """Bands along a path.

    Attributes:
        kpts: fractional coordinates, (k, 3).
        distances: along the path, 1/Å with 2 pi, (k,).
        labels: index of a k-point and the name of its special point.
        energies: ascending, (k, band), of collinear spins (2, k, band); NaN where functions were projected out.

    The other attributes are those of :class:`Levels`.
    """

    kpts: NDArray[np.float64]
    distances: NDArray[np.float64]
    labels: tuple[tuple[int, str], ...]
    energies: NDArray[np.float64]

    def _told(self) -> str:
        return f"{self.energies.shape[-1]} bands at {len(self.kpts)} k-points, {super()._told()}"

    def plot(self, axes: Any = None) -> Any:
        """Draw the bands, from the Fermi level; needs matplotlib. Returns the axes (new ones where none are given)."""
        axes = _axes(axes)
        breaks = np.flatnonzero(np.diff(self.distances) == 0) + 1
        for bands in self.energies if self.energies.ndim == 3 else self.energies[None]:
            pieces = (np.split(self.distances, breaks), np.split(bands - self.fermi_energy, breaks))
            for x, y in zip(*pieces, strict=True):
                axes.plot(x, y, color="C0", linewidth=1.0)
        axes.set_xticks(
            [float(self.distances[index]) for index, _ in self.labels],
            [GREEK.get(label, label) for _, label in self.labels],
        )
        axes.axhline(0.0, color="0.4", linewidth=0.8, linestyle="--")
        axes.set_ylabel(f"E − E_F ({self.unit})")
        return axes


@dataclass(frozen=True, eq=False, repr=False)
class DensityOfStates(Levels):
    """States of a cell.

    Attributes:
        energies: where, (energy,).
        dos: electrons that fit per unit of energy, (energy,), of collinear spins (2, energy).
        integrated: electrons that fit below, the same shape.

    The other attributes are those of :class:`Levels`.
    """

    energies: NDArray[np.float64]
    dos: NDArray[np.float64]
    integrated: NDArray[np.float64]

    def _told(self) -> str:
        return f"{len(self.energies)} energies, {super()._told()}"

    def plot(self, axes: Any = None) -> Any:
        """Draw it, from the Fermi level, beta downwards; needs matplotlib. Returns the axes."""
        axes = _axes(axes)
        for sign, values in zip((1, -1), self.dos if self.dos.ndim == 2 else self.dos[None], strict=False):
            axes.plot(self.energies - self.fermi_energy, sign * values, linewidth=1.0)
        axes.axvline(0.0, color="0.4", linewidth=0.8, linestyle="--")
        axes.set_xlabel(f"E − E_F ({self.unit})")
        axes.set_ylabel(f"states per {self.unit} and cell")
        return axes


def read_bands(answer: Tensors, unit: EnergyUnit) -> BandStructure:
    """The bands in an answer of ``/v1/bands``.

    Raises:
        InvalidAnswerError: numbers that are missing or do not fit each other.
    """
    points = answer.arrays.get("kpts")
    count = 0 if points is None else len(points)
    energies = answer.arrays.get("energies")
    if energies is None or energies.dtype.kind != "f" or energies.ndim not in (2, 3) or energies.shape[-2] != count:
        raise InvalidAnswerError("The answer has no energies for each of its k-points.")
    labels = _results(answer).get("labels")
    try:
        named = tuple((int(entry["index"]), str(entry["label"])) for entry in labels or ())
    except (TypeError, KeyError, ValueError) as error:
        raise InvalidAnswerError("The labels of the path are no indices with names.") from error
    if any(not 0 <= index < count for index, _ in named):
        raise InvalidAnswerError("A label of the path is of a k-point that is not there.")
    return BandStructure(
        answer.float64("kpts", (count, 3)),
        answer.float64("distances", (count,)),
        named,
        energies.astype(np.float64),
        **_common(answer, unit),
    )


def read_dos(answer: Tensors, unit: EnergyUnit) -> DensityOfStates:
    """The density of states in an answer of ``/v1/dos``.

    Raises:
        InvalidAnswerError: numbers that are missing or do not fit each other.
    """
    energies, dos = answer.arrays.get("energies"), answer.arrays.get("dos")
    if energies is None or dos is None or dos.shape[-1:] != energies.shape or dos.ndim > 2:
        raise InvalidAnswerError("The answer has no density of states for each of its energies.")
    return DensityOfStates(
        answer.float64("energies", energies.shape),
        answer.float64("dos", dos.shape),
        answer.float64("integrated", dos.shape),
        **_common(answer, unit),
    )


def _common(answer: Tensors, unit: EnergyUnit) -> dict[str, Any]:
    """What both kinds say."""
    about, results = answer.about(), _results(answer)
    if about.get("energy_unit") != unit:
        raise InvalidAnswerError(f"The energies came in {about.get('energy_unit')!r}, not in {unit}.")
    numbers = {name: results.get(name) for name in ("fermi_energy", "gap", "smallest_overlap_eigenvalue")}
    for name, value in numbers.items():
        optional = name == "gap" and value is None
        if not optional and (isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value)):
            raise InvalidAnswerError(f"The answer has no usable `{name}`.")
    return {
        **numbers,
        "is_metal": results.get("is_metal") is True,
        "unit": unit,
        "model": str(about.get("model", "")),
        "in_domain": answer.in_domain(),
        "warnings": answer.warnings(),
    }


def _results(answer: Tensors) -> dict[str, Any]:
    results = answer.meta.get("results")
    if not isinstance(results, dict):
        raise InvalidAnswerError("The answer has no `results`.")
    return results


def _axes(axes: Any) -> Any:
    if axes is not None:
        return axes
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]
