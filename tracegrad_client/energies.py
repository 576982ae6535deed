"""Predicted orbital energies, read from the JSON answer of ``/v1/predict``, in hartree or eV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tracegrad_client.errors import InvalidAnswerError
from tracegrad_client.exchange import Answer
from tracegrad_client.frontier import Frontier, told
from tracegrad_client.wire import warnings_of

EV_PER_HARTREE: Final = 27.211386245988
"""CODATA 2018."""

EnergyUnit = Literal["hartree", "eV"]


@dataclass(frozen=True, eq=False, repr=False)
class OrbitalEnergies(Frontier):
    """Predicted orbital energies in ascending order.

    Attributes:
        energies: shape (mo,), in ``unit``.
        occupations: shape (mo,), 2.0 or 0.0.
        unit: ``"hartree"`` or ``"eV"``.
        model: name of the model.
        in_domain: whether the structure is of the kind and size that the model was tested on.
        warnings: what the server had to say.
    """

    energies: NDArray[np.float64]
    occupations: NDArray[np.float64]
    unit: EnergyUnit
    model: str
    in_domain: bool
    warnings: tuple[str, ...]

    def levels(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Energies and occupations, (mo,)."""
        return self.energies, self.occupations

    def __repr__(self) -> str:
        frontier = ", ".join(f"{name} {told(getattr(self, name), self.unit)}" for name in ("homo", "lumo", "gap"))
        return f"OrbitalEnergies({self.model}, {len(self.energies)} orbitals, {frontier})"

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON knows it."""
        return {
            "model": self.model,
            "unit": self.unit,
            "homo": self.homo,
            "lumo": self.lumo,
            "gap": self.gap,
            "energies": self.energies.tolist(),
            "occupations": self.occupations.tolist(),
            "in_domain": self.in_domain,
            "warnings": list(self.warnings),
        }


def read_energies(answer: Answer, unit: EnergyUnit) -> OrbitalEnergies:
    """The energies in a JSON answer of ``/v1/predict`` (there in hartree), in ``unit``."""
    document = answer.json()
    meta, results, checks = (_object(document, name) for name in ("meta", "results", "checks"))
    if meta.get("energy_unit", "hartree") != "hartree":
        raise InvalidAnswerError(f"The energies came in {meta['energy_unit']!r}, not in hartree.")
    try:
        energies = np.array(results["orbital_energies"], dtype=np.float64)
        occupations = np.array(results["occupations"], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidAnswerError("The answer has no orbital energies with occupations.") from error
    if energies.ndim != 1 or energies.shape != occupations.shape or not np.isfinite(energies).all():
        raise InvalidAnswerError("The orbital energies are not one finite number for each occupation.")
    return OrbitalEnergies(
        energies=energies * (EV_PER_HARTREE if unit == "eV" else 1.0),
        occupations=occupations,
        unit=unit,
        model=str(meta.get("model", "")),
        in_domain=checks.get("in_domain") is True,
        warnings=warnings_of(document),
    )


def _object(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name, {})
    if not isinstance(value, dict):
        raise InvalidAnswerError(f"`{name}` in the answer is not an object.")
    return value


def check_unit(unit: str) -> None:
    """Raise ValueError unless ``unit`` is a known unit of energy."""
    if unit not in ("hartree", "eV"):
        raise ValueError(f"unit is {unit!r}; allowed are 'hartree' and 'eV'.")
