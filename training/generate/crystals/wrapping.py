"""Atoms inside the cell as a program wraps them, none where rounding decides on which side it is.

Programs take atoms into the cell before they count lattice vectors. An atom on the cell's edge may go either way; the whole
structure is then moved a little, which changes nothing but where the grid lies.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.errors import StructureError
from model.structure import Structure

EDGE: Final = 1e-5
"""Fractional distance from the edge of the wrapped cell at which rounding could decide."""
NUDGE: Final = 0.0137
"""Fractional step by which a structure is moved off the edge."""
STEPS: Final = 200


def wrapped(structure: Structure, start: float) -> tuple[Structure, NDArray[np.int64]]:
    """Fractional coordinates in [start, start + 1), none on the edge, and the cell each atom was taken from, (atom, 3).

    Raises:
        StructureError: atoms fill the edges whatever the origin, or there is no cell.
    """
    if structure.cell_angstrom is None:
        raise StructureError("Crystals are labelled; the structure has no cell.")
    fractional = structure.positions_angstrom @ np.linalg.inv(structure.cell_angstrom)
    origin = np.zeros(3)
    for axis in range(3):
        steps = [step for step in range(STEPS) if _off_edge(fractional[:, axis] + step * NUDGE - start)]
        if not steps:
            raise StructureError("Atoms lie too densely along a lattice vector to be told from their images.")
        origin[axis] = steps[0] * NUDGE
    cells = np.floor(fractional + origin - start).astype(np.int64)
    positions = (fractional + origin - cells) @ structure.cell_angstrom
    return replace(structure, positions_angstrom=positions), cells


def centred(structure: Structure) -> Structure:
    """The same with atoms in the middle of the cell along the directions that are not periodic."""
    assert structure.cell_angstrom is not None
    fractional = structure.positions_angstrom @ np.linalg.inv(structure.cell_angstrom)
    shift = np.where(structure.pbc, 0.0, 0.5 - (fractional.min(axis=0) + fractional.max(axis=0)) / 2)
    return replace(structure, positions_angstrom=structure.positions_angstrom + shift @ structure.cell_angstrom)


def _off_edge(coordinate: NDArray[np.float64]) -> bool:
    """Whether no coordinate is at a whole number."""
    return bool((np.abs(coordinate - np.rint(coordinate)) > EDGE).all())
