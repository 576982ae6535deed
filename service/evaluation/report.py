"""A prediction and the caller's matrix: every figure of the comparison as one answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from model.units import EV_PER_HARTREE
from service.answers.arrays import Result, make_meta
from service.evaluation.agreement import agreed_fock
from service.evaluation.given import Given
from service.schemas.evaluation import EvaluateChecks, EvaluateOptions

if TYPE_CHECKING:
    from model.checkpoint.card import Card
    from model.electronic.comparison import MatrixErrors
    from model.electronic.solve import Orbitals
    from model.predictor import Prediction

NO_OVERLAP: Final = (
    "No overlap came with the matrix: the order was judged by the prediction, and the basis was not checked. "
    "Send it beside fock."
)


def evaluation_result(
    prediction: Prediction,
    card: Card,
    options: EvaluateOptions,
    given: Given,
    about: Mapping[str, Any],
    warnings: Sequence[str],
    defaults_applied: Sequence[str],
) -> Result:
    """Compare, and put the answer together.

    Args:
        prediction: with orbitals and guess.
        card: of the model that gave it.
        options: the caller's order and unit.
        given: the caller's matrices.
        about, warnings, defaults_applied: as of ``service.answers.arrays.make_result``.

    Raises:
        ServiceError: the matrix does not fit.
        ModelError: it has no finite orbitals.
    """
    from model.electronic.comparison import compare  # these load torch, which the app starts without
    from model.electronic.solve import solve

    factor = EV_PER_HARTREE if options.energy_unit == "eV" else 1.0
    shells = [ang for symbol in prediction.structure.symbols for ang in card.basis.shells[symbol]]
    fock, overlap_error = agreed_fock(
        given, shells, options.ao_order, factor, prediction.hamiltonian, prediction.overlap, card.basis.name
    )
    assert prediction.orbitals is not None, "predicted with orbitals"
    electrons = prediction.structure.n_electrons
    label = solve(fock, prediction.overlap, electrons)
    protected = prediction.guess is not None and prediction.guess.has_intruder
    served = prediction.orbitals
    # as in docs/metrics.md: energies and orbitals are of the matrix itself, the density is the one that is served
    predicted = solve(prediction.hamiltonian, prediction.overlap, electrons) if protected else served
    same = (prediction.overlap, prediction.atom_offsets)
    errors = compare(fock, prediction.hamiltonian, *same, label=label, predicted=predicted, served=served)
    reference: dict[str, float] | None = None
    if prediction.reference.any():
        of_h0 = solve(prediction.reference, prediction.overlap, electrons)
        reference = _scaled(
            compare(fock, prediction.reference, *same, label=label, predicted=of_h0, served=of_h0), factor
        )
    checks = prediction.checks
    gap = None if checks is None or checks.gap is None else checks.gap * factor
    return Result(
        arrays={"orbital_energies": predicted.energies * factor, "orbital_energies_given": label.energies * factor},
        scalars={
            "errors": _scaled(errors, factor),
            "reference_errors": reference,
            "predicted": _frontier(predicted, factor),
            "given": _frontier(label, factor),
            "intruder": errors.intruder,
        },
        blocks=None,
        meta=make_meta(prediction, card, "pyscf", options.energy_unit, prediction.ao_labels, about),
        checks=EvaluateChecks(
            trace_error=None if checks is None else checks.trace_error,
            idempotency_error=None if checks is None else checks.idempotency_error,
            symmetry_error=None if checks is None else checks.symmetry_error,
            gap=gap,
            in_domain=prediction.in_domain,
            overlap_error=overlap_error,
        ),
        warnings=[*prediction.warnings, *warnings, *([NO_OVERLAP] if overlap_error is None else [])],
        defaults_applied=list(defaults_applied),
    )


def _scaled(errors: MatrixErrors, factor: float) -> dict[str, float]:
    """The figures, energies in the asked unit."""
    from model.electronic.comparison import ENERGIES

    found = {field.name: getattr(errors, field.name) for field in fields(errors)}
    return {name: value * factor if name in ENERGIES else value for name, value in found.items()}


def _frontier(orbitals: Orbitals, factor: float) -> dict[str, float | None]:
    values = {name: getattr(orbitals, name) for name in ("homo", "lumo", "gap")}
    return {name: None if value is None else value * factor for name, value in values.items()}
