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


VACUUM_ANGSTROM: Final = 10.0
"""Empty height from which on a direction has no dispersion."""


def touching(structure: Structure) -> tuple[bool, bool, bool]:
    """Periodic directions along which images are closer than ``VACUUM_ANGSTROM``.

    Files of slabs have three cell vectors, and many formats no other word for it.

    Args:
        structure: with a cell.
    """
    cell = structure.cell_angstrom
    assert cell is not None
    inverse = np.linalg.inv(cell)
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    fractional = np.sort((structure.positions_angstrom @ inverse) % 1.0, axis=0)
    gaps = np.diff(np.vstack([fractional, fractional[:1] + 1.0]), axis=0).max(axis=0) * heights
    a, b, c = (
        bool(is_periodic and gap < VACUUM_ANGSTROM) for is_periodic, gap in zip(structure.pbc, gaps, strict=True)
    )
    return a, b, c


def default_mesh(structure: Structure, spacing: float) -> Mesh:
    """A mesh of a spacing along the periodic directions that have no vacuum, one point along the others.

    Args:
        structure: with a cell.
        spacing: 1/Å, with 2 pi.
    """
    assert structure.cell_angstrom is not None
    lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(structure.cell_angstrom), axis=0)
    counts = [
        math.ceil(length / spacing) if disperses else 1
        for length, disperses in zip(lengths, touching(structure), strict=True)
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
