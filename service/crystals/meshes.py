"""Meshes of k-points: those of the caller, and what a cell gets where nobody chose one."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from model.structure import Structure
from service.errors import ServiceError

Mesh = tuple[int, int, int]

MESH_SPACING: Final = 0.25
"""Largest distance between k-points of a mesh that nobody chose, 1/Å (with 2 pi): 12 x 12 for graphene."""

DOS_SPACING: Final = 0.12
"""The same for a density of states."""

COARSE: Final = 3
"""Counts above 1 are multiples of this, so that K of hexagonal cells is on the mesh, where semimetals close."""


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


def chosen_mesh(given: str | None, structure: Structure, spacing: float) -> Mesh:
    """The caller's mesh, or the default one.

    Args:
        given: "6x6x1", or None.
        structure, spacing: as of ``default_mesh``.

    Raises:
        ServiceError: ``invalid_request`` for several points along a direction that is not periodic.
    """
    if given is None:
        return default_mesh(structure, spacing)
    a, b, c = map(int, given.split("x"))
    if any(count > 1 and not is_periodic for count, is_periodic in zip((a, b, c), structure.pbc, strict=True)):
        raise ServiceError(
            "invalid_request",
            "The kmesh has several points along a direction that is not periodic.",
            field="kmesh",
            hint="Count 1 along that direction, or say with pbc that it is periodic.",
        )
    return a, b, c
