"""How far a prediction is from the caller's own converged matrix: the question and the answer of ``/v1/evaluate``."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tracegrad_client.ask import Ask
from tracegrad_client.energies import EnergyUnit, check_unit
from tracegrad_client.errors import InvalidAnswerError, InvalidInputError
from tracegrad_client.exchange import Request, Talk
from tracegrad_client.frontier import told

ROWS: Final[tuple[tuple[str, str, bool], ...]] = (
    ("hamiltonian", "mean error of H", True),
    ("hamiltonian_diagonal", "  blocks of one atom", True),
    ("hamiltonian_off_diagonal", "  blocks of two", True),
    ("occupied_energies", "occupied energies", True),
    ("homo", "HOMO, signed", True),
    ("lumo", "LUMO, signed", True),
    ("gap", "gap, signed", True),
    ("density_exact_per_electron", "density error per electron", False),
    ("subspace", "distance of occupied spaces", False),
    ("psi_overlap", "likeness of orbitals, %", False),
)
"""What :meth:`Evaluation.table` shows: name, text, and whether it is an energy."""


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """A prediction against the caller's matrix; figures as docs/metrics.md defines them, energies in ``unit``.

    Attributes:
        errors: of the prediction, by name: ``hamiltonian``, ``gap``, ``density_exact_per_electron`` ...
        reference_errors: of H0, its part without the network, or None.
        predicted, given: ``homo``, ``lumo`` and ``gap`` of both matrices.
        orbital_energies, orbital_energies_given: of both matrices, (mo,).
        intruder: whether a frontier level of the prediction is another orbital than the caller's.
        unit: "hartree" or "eV".
        overlap_error: how far the caller's overlap is from the server's, or None if none was sent.
        xc, basis, model: what answered.
        in_domain: whether the structure is of the kind and size that the model was tested on.
        warnings: what the server had to say.
    """

    errors: Mapping[str, float]
    reference_errors: Mapping[str, float] | None
    predicted: Mapping[str, float | None]
    given: Mapping[str, float | None]
    orbital_energies: NDArray[np.float64]
    orbital_energies_given: NDArray[np.float64]
    intruder: bool
    unit: EnergyUnit
    overlap_error: float | None
    xc: str
    basis: str
    model: str
    in_domain: bool
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        error, density = self.errors["hamiltonian"], self.errors["density_exact_per_electron"]
        return (
            f"Evaluation({self.model}, H {error:.3g} {self.unit}, density {density:.3g} per electron, "
            f"gap {told(self.predicted.get('gap'), self.unit)} for {told(self.given.get('gap'), self.unit)})"
        )

    def table(self) -> str:
        """The figures for people, one a line, with those of H0 beside them."""
        lines = [f"{self.model}, {self.xc}/{self.basis}{'' if self.in_domain else ', outside of its domain'}"]
        lines.append(f"{'':28s} {'prediction':>12s} {'H0 alone':>12s}")
        for name, text, is_energy in ROWS:
            values = [self.errors[name]] + ([] if self.reference_errors is None else [self.reference_errors[name]])
            unit = f"  {self.unit}" if is_energy else ""
            lines.append(f"{text:28s} " + " ".join(f"{value:12.6f}" for value in values) + unit)
        for name, levels in (("predicted", self.predicted), ("given", self.given)):
            lines.append(f"{name}: " + ", ".join(f"{key} {told(value, self.unit)}" for key, value in levels.items()))
        if self.intruder:
            lines.append("A frontier level of the prediction is another orbital than yours.")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON knows it."""
        values = dict(vars(self))
        for name in ("orbital_energies", "orbital_energies_given"):
            values[name] = values[name].tolist()
        return {**values, "warnings": list(self.warnings)}


def evaluate(
    ask: Ask, molecule: Any, fock: Any, overlap: Any, *, ao_order: str, energy_unit: EnergyUnit
) -> Talk[Evaluation]:
    """Ask for the comparison; see :meth:`tracegrad_client.Client.evaluate`."""
    check_unit(energy_unit)
    arrays = {"fock": _matrix("fock", fock)}
    if overlap is not None:
        arrays["overlap"] = _matrix("overlap", overlap).astype(np.float32)  # it is only compared
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    sent = ask.sent(molecule)
    body = {**ask.body(sent), "ao_order": ao_order, "energy_unit": energy_unit}
    body["fock"] = base64.b64encode(buffer.getvalue()).decode()
    answer = (yield Request("POST", "/v1/evaluate", payload=body)).json()
    return _read(answer, energy_unit)


def _matrix(name: str, value: Any) -> NDArray[np.float64]:
    if np.iscomplexobj(value):
        raise InvalidInputError(f"`{name}` is complex; matrices of molecules are real.")
    try:
        matrix = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"`{name}` is no matrix of real numbers.") from error
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InvalidInputError(f"`{name}` has shape {matrix.shape}; it should be one square matrix.")
    return matrix


def _read(answer: Mapping[str, Any], unit: EnergyUnit) -> Evaluation:
    try:
        meta, results, checks = answer["meta"], answer["results"], answer["checks"]
        if meta["energy_unit"] != unit:
            raise InvalidAnswerError(f"The energies came in {meta['energy_unit']!r}, not in {unit}.")
        reference = results["reference_errors"]
        errors = {name: float(value) for name, value in results["errors"].items()}
        if missing := [name for name, _, _ in ROWS if name not in errors]:
            raise InvalidAnswerError(f"The answer does not say {missing[0]!r}.")
        return Evaluation(
            errors=errors,
            reference_errors=None if reference is None else {name: float(reference[name]) for name in errors},
            predicted=dict(results["predicted"]),
            given=dict(results["given"]),
            orbital_energies=np.array(results["orbital_energies"], dtype=np.float64),
            orbital_energies_given=np.array(results["orbital_energies_given"], dtype=np.float64),
            intruder=results["intruder"] is True,
            unit=unit,
            overlap_error=checks["overlap_error"],
            xc=str(meta["xc"]),
            basis=str(meta["basis"]),
            model=str(meta["model"]),
            in_domain=checks["in_domain"] is True,
            warnings=tuple(map(str, answer["warnings"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidAnswerError("The answer is no comparison of two matrices.") from error
