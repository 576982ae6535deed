"""Guesses in another basis than the model's: ``basis=`` with ``project=true``, which guesses of molecules have."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from service.answers.output_formats import GUESS_FORMATS, OutputFormat
from service.checkpoints.choice import Choice
from service.errors import ServiceError
from service.schemas.requests import StructureOptions

if TYPE_CHECKING:
    from model.orbitals.space import OrbitalSpace
    from model.predictor import Prediction
    from model.structure import Structure

NEED_HAMILTONIAN: Final = frozenset({"hamiltonian", "blocks"})
WITHOUT_HAMILTONIAN: Final = tuple(
    form.name for form in GUESS_FORMATS if form.name in ("json", "npz", "safetensors", "chk", "molden", "cube")
)


async def projection_of(
    options: StructureOptions, form: OutputFormat, structure: Structure, choice: Choice
) -> tuple[OrbitalSpace | None, Choice]:
    """The orbitals to project to, None where nothing is to be projected, and the choice with what is to be said of it.

    Raises:
        ServiceError: ``invalid_request``: no basis, a crystal, or what needs a Hamiltonian.
        UnsupportedBasisError, UnsupportedElementError: PySCF's library has no such basis.
    """
    if not getattr(options, "project", False):
        return None, choice
    if options.basis is None:
        raise _refused(
            "There is no basis to project to.", "basis", "Name the basis that you will run, or leave project out."
        )
    if structure.is_periodic:
        raise _refused("Only guesses of molecules are projected.", "project", "Leave it out, or say pbc=false.")
    if "basis" not in choice.differences:
        return None, choice
    if form.name not in WITHOUT_HAMILTONIAN:
        raise ServiceError(
            "invalid_request",
            f"The format {form.name} holds a Hamiltonian, and there is none in another basis than the model's.",
            field="format_out",
            allowed=list(WITHOUT_HAMILTONIAN),
            hint="Ask for another format, or leave project out.",
        )
    if NEED_HAMILTONIAN.intersection(getattr(options, "outputs", ())):
        raise _refused(
            "There is no Hamiltonian in another basis than the model's.", "outputs", "Leave out hamiltonian and blocks."
        )
    space = await asyncio.to_thread(_space, options.basis, structure)
    text = (
        f"projected: the model's basis is {choice.model.predictor.card.basis.name}; orbitals and energies in {space.name} "
        "are a start for an SCF: the functions that it adds know only atomic potentials."
    )
    kept = [warning for warning in choice.warnings if not warning.startswith("basis mismatch")]
    return space, replace(choice, warnings=(*kept, text))


def in_target(prediction: Prediction, space: OrbitalSpace | None) -> Prediction:
    """The prediction as it is to be shown: projected, if there is an other space.

    Raises:
        UnsupportedBasisError: the basis does not hold the occupied orbitals.
    """
    if space is None:
        return prediction
    from model.projection import projected

    return projected(prediction, space)


def _space(basis: str, structure: Structure) -> OrbitalSpace:
    from model.projection import target_space  # PySCF takes most of a second to import

    return target_space(basis, structure)


def _refused(detail: str, field: str, hint: str) -> ServiceError:
    return ServiceError("invalid_request", detail, field=field, hint=hint)
