"""Predicted orbital energies, read from the JSON answer of ``/v1/predict``, in hartree or eV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tracegrad_client.errors import InvalidAnswerError
from tracegrad_client.transport import Answer
from tracegrad_client.wire import warnings_of

EV_PER_HARTREE: Final = 27.211386245988
"""CODATA 2018."""

EnergyUnit = Literal["hartree", "eV"]


@dataclass(frozen=True, eq=False)
class OrbitalEnergies:
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

    @property
    def homo(self) -> float | None:
        """Energy of the highest occupied orbital, or None where none is occupied."""
        occupied = self.energies[self.occupations > 0]
        return float(occupied.max()) if len(occupied) else None

    @property
    def lumo(self) -> float | None:
        """Energy of the lowest empty orbital, or None where the basis has none."""
        empty = self.energies[self.occupations == 0]
        return float(empty.min()) if len(empty) else None

    @property
    def gap(self) -> float | None:
        """LUMO minus HOMO, or None where one of them is missing."""
        homo, lumo = self.homo, self.lumo
        return None if homo is None or lumo is None else lumo - homo


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
