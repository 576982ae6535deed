"""Plan: which k-points an answer about a crystal needs, settled and paid for before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from model.errors import UnsupportedPeriodicityError
from model.structure import Structure
from service.answers.output_formats import OutputFormat, refuse_other_systems
from service.errors import ServiceError
from service.schemas.requests import (
    CRYSTAL_OUTPUTS,
    DEFAULT_CRYSTAL_OUTPUTS,
    MOLECULE_OUTPUTS,
    GuessOptions,
    PredictOptions,
    StructureOptions,
)
from service.structures.build import SizeLimits

MESH_SPACING: Final = 0.25
"""Largest distance between k-points of a mesh that nobody chose, 1/Å (with 2 pi): 12 x 12 for graphene."""

COARSE: Final = 3
"""Counts above 1 are multiples of this, so that K of hexagonal cells is on the mesh, where semimetals close."""

Mesh = tuple[int, int, int]


@dataclass(frozen=True)
class Plan:
    """What is to be solved.

    Attributes:
        outputs: names of the arrays to send.
        mesh: on which levels are filled; None if nobody needs the Fermi level.
        density: whether D(R) is wanted.
        defaults: what the caller left open.
    """

    outputs: tuple[str, ...]
    mesh: Mesh | None
    density: bool
    defaults: tuple[str, ...]


def plan_crystal(
    options: StructureOptions, form: OutputFormat, structure: Structure, n_orbitals: int, limits: SizeLimits
) -> Plan:
    """Settle what a request about a crystal asks for.

    Args:
        options: as validated.
        form: of the answer.
        structure: periodic.
        n_orbitals: rows of H(k).
        limits: caps.

    Raises:
        ServiceError: ``invalid_request`` for what crystals do not have, ``too_many_k_points``.
        UnsupportedPeriodicityError: a guess is asked for.
    """
    if isinstance(options, GuessOptions):
        raise UnsupportedPeriodicityError(
            "This route makes guesses for molecules; the structure is periodic.",
            hint="POST /v1/predict gives the Hamiltonian of a crystal, also as the folder of another program.",
            field="pbc",
        )
    refuse_other_systems(form, is_periodic=True)
    asked: tuple[str, ...] = ()
    defaults = []
    if isinstance(options, PredictOptions):
        asked = options.outputs
        if "outputs" not in options.model_fields_set:
            asked = DEFAULT_CRYSTAL_OUTPUTS if form.holds_arrays else ()
            defaults = [f"outputs={','.join(asked)}"] if asked else []
        _refuse_outputs(asked, CRYSTAL_OUTPUTS, "A crystal")
    if form.holds_arrays and not {"fermi_energy", "density_blocks"} & set(asked):
        return Plan(asked, None, False, tuple(defaults))
    mesh = _mesh(options.kmesh, structure)
    if options.kmesh is None:
        defaults.append(f"kmesh={'x'.join(map(str, mesh))}")
    density = "density_blocks" in asked
    limits.check_k_points((math.prod(mesh) // 2 + 1) * (2 if density else 1), n_orbitals)
    return Plan(asked, mesh, density, tuple(defaults))


def refuse_crystal_options(options: StructureOptions, form: OutputFormat) -> None:
    """Refuse what molecules do not have.

    Raises:
        ServiceError: ``invalid_request``.
    """
    refuse_other_systems(form, is_periodic=False)
    if options.kmesh is not None:
        raise ServiceError(
            "invalid_request",
            "A kmesh is for crystals; the structure has no periodic direction.",
            field="kmesh",
            hint="Leave it out, or send the lattice vectors and pbc.",
        )
    _refuse_outputs(getattr(options, "outputs", ()), MOLECULE_OUTPUTS, "A molecule")


def default_mesh(structure: Structure, spacing: float) -> Mesh:
    """A mesh of a spacing along the periodic directions, one point along the others.

    Args:
        structure: with a cell.
        spacing: 1/Å, with 2 pi.
    """
    assert structure.cell_angstrom is not None
    lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(structure.cell_angstrom), axis=0)
    counts = [
        math.ceil(length / spacing) if is_periodic else 1
        for length, is_periodic in zip(lengths, structure.pbc, strict=True)
    ]
    a, b, c = (count if count == 1 else COARSE * math.ceil(count / COARSE) for count in counts)
    return a, b, c


def _mesh(given: str | None, structure: Structure) -> Mesh:
    if given is None:
        return default_mesh(structure, MESH_SPACING)
    a, b, c = map(int, given.split("x"))
    if any(count > 1 and not is_periodic for count, is_periodic in zip((a, b, c), structure.pbc, strict=True)):
        raise ServiceError(
            "invalid_request",
            "The kmesh has several points along a direction that is not periodic.",
            field="kmesh",
            hint="Count 1 along that direction, or say with pbc that it is periodic.",
        )
    return a, b, c


def _refuse_outputs(asked: Sequence[str], allowed: Sequence[str], what: str) -> None:
    if not set(asked) <= set(allowed):
        raise ServiceError(
            "invalid_request",
            f"{what} does not have all of the asked outputs.",
            field="outputs",
            allowed=list(allowed),
            hint="Ask for those that are allowed; the structure's pbc says whether it is a crystal.",
        )
