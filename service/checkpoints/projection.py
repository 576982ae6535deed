"""Guesses of molecules at another level than the model's: shifted to the functional that was asked for where the checkpoint
has a shift, and with ``project=true`` in another basis."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from service.answers.output_formats import GUESS_FORMATS, OutputFormat
from service.checkpoints.choice import Choice
from service.errors import ServiceError
from service.schemas.requests import GuessOptions, StructureOptions

if TYPE_CHECKING:
    from model.orbitals.space import OrbitalSpace
    from model.predictor import Prediction
    from model.reference.shift import FunctionalShift
    from model.structure import Structure

NEED_HAMILTONIAN: Final = frozenset({"hamiltonian", "blocks"})
WITHOUT_HAMILTONIAN: Final = tuple(
    form.name for form in GUESS_FORMATS if form.name in ("json", "npz", "safetensors", "chk", "molden", "cube")
)


@dataclass(frozen=True, eq=False)
class Target:
    """What a guess is made for, where that is not the model's own level.

    Attributes:
        space: another basis, or None.
        shift: to another functional, or None.
    """

    space: OrbitalSpace | None = None
    shift: FunctionalShift | None = None

    def count_orbitals(self, structure: Structure) -> int:
        """Of the other basis; 0 without one."""
        return 0 if self.space is None else self.space.count_orbitals(structure.numbers)


async def target_of(
    options: StructureOptions, form: OutputFormat, structure: Structure, choice: Choice
) -> tuple[Target, Choice]:
    """What the guess is to be made for, and the choice with what is to be said of it.

    Raises:
        ServiceError: ``invalid_request``: ``project`` without a basis, for a crystal, or with what needs a Hamiltonian.
        UnsupportedBasisError, UnsupportedElementError: PySCF's library has no such basis.
    """
    if not isinstance(options, GuessOptions):
        return Target(), choice
    space, choice = await _other_basis(options, form, structure, choice)
    shift, choice = _other_functional(options, form, structure, choice)
    return Target(space, shift), choice


def _other_functional(
    options: GuessOptions, form: OutputFormat, structure: Structure, choice: Choice
) -> tuple[FunctionalShift | None, Choice]:
    """A shift to the functional that was asked for, if there is one and nothing is asked for that needs a Hamiltonian."""
    shifts = choice.model.predictor.checkpoint.shifts
    if shifts is None or options.xc is None or "xc" not in choice.differences or structure.is_periodic:
        return None, choice
    shift = shifts.find(options.xc)
    if shift is None or form.name not in WITHOUT_HAMILTONIAN or NEED_HAMILTONIAN.intersection(options.outputs):
        return None, choice
    text = (
        f"xc shifted: the model was trained on {choice.model.predictor.card.level.xc}; the guess was shifted to the "
        "functional that was asked for, by a difference that was fitted to other molecules."
    )
    kept = [warning for warning in choice.warnings if not warning.startswith("xc mismatch")]
    return shift, replace(choice, warnings=(*kept, text))


async def _other_basis(
    options: GuessOptions, form: OutputFormat, structure: Structure, choice: Choice
) -> tuple[OrbitalSpace | None, Choice]:
    if not options.project:
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
    if NEED_HAMILTONIAN.intersection(options.outputs):
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


def in_target(prediction: Prediction, target: Target) -> Prediction:
    """The prediction as it is to be shown: shifted, projected, or as it is.

    Raises:
        UnsupportedBasisError: the basis does not hold the occupied orbitals.
    """
    if target.shift is None and target.space is None:
        return prediction
    from model.projection import projected, shifted  # PySCF takes most of a second to import

    if target.shift is not None:
        prediction = shifted(prediction, target.shift)
    return prediction if target.space is None else projected(prediction, target.space)


def _space(basis: str, structure: Structure) -> OrbitalSpace:
    from model.projection import target_space  # PySCF takes most of a second to import

    return target_space(basis, structure)


def _refused(detail: str, field: str, hint: str) -> ServiceError:
    return ServiceError("invalid_request", detail, field=field, hint=hint)
