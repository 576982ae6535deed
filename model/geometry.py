"""What distances say of a molecule before anything is computed: contacts in units of bond lengths, molecules cut by a box."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

BONDED = 1.3
"""Of the sum of the covalent radii; closer atoms are taken for bonded."""


def radii(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Covalent radius of each atom, Å (Cordero et al., Dalton Trans. 2008, 2832, as ASE has them)."""
    from ase.data import covalent_radii  # what only passes structures on need not load it

    return np.array(covalent_radii, dtype=np.float64)[numbers]


def contacts(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each atom the smallest distance to another, over the sum of both covalent radii: about 1 for a bond.

    Args:
        numbers: atomic numbers, (atom,).
        positions: (atom, 3), Å.

    Returns:
        (atom,); empty for a single atom.
    """
    count = len(numbers)
    if count < 2:
        return np.empty(0)
    size = radii(numbers)
    smallest = np.empty(count)
    for atom in range(count):  # row by row: no N x N x 3 array
        distances = np.linalg.norm(positions - positions[atom], axis=1) / (size + size[atom])
        distances[atom] = np.inf
        smallest[atom] = distances.min()
    return smallest


def made_whole(
    numbers: NDArray[np.int64], positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: tuple[bool, bool, bool]
) -> tuple[NDArray[np.float64], bool]:
    """Put the parts of molecules that a periodic box has cut next to each other.

    Atom after atom joins those that are placed, the nearest first, as its nearest image (Prim's algorithm); nearness is in
    units of bond lengths, so that molecules come together before their neighbours do.

    Args:
        numbers: atomic numbers, (atom,).
        positions: (atom, 3), Å.
        cell: lattice vectors as rows, Å.
        pbc: periodicity along each.

    Returns:
        positions, (atom, 3), and whether atoms are bonded across the box even so: it holds a crystal, no molecule.
    """
    count = len(numbers)
    size = radii(numbers)
    periodic = np.array(pbc)
    inverse = np.linalg.inv(cell)

    def nearest(offsets: NDArray[np.float64]) -> NDArray[np.float64]:
        fractional = offsets @ inverse
        return offsets - np.where(periodic, np.round(fractional), 0.0) @ cell

    placed = positions.copy()
    waiting = np.ones(count, dtype=bool)
    waiting[0] = False
    offsets = nearest(positions - placed[0])
    nearness = np.linalg.norm(offsets, axis=1) / (size + size[0])
    targets = placed[0] + offsets
    for _ in range(count - 1):
        atom = int(np.argmin(np.where(waiting, nearness, np.inf)))
        placed[atom], waiting[atom] = targets[atom], False
        offsets = nearest(positions - placed[atom])
        closer = np.linalg.norm(offsets, axis=1) / (size + size[atom])
        better = waiting & (closer < nearness)
        targets[better], nearness[better] = (placed[atom] + offsets)[better], closer[better]
    return placed, _bonded_across(placed, size, cell, pbc)


def _bonded_across(
    positions: NDArray[np.float64], size: NDArray[np.float64], cell: NDArray[np.float64], pbc: tuple[bool, bool, bool]
) -> bool:
    """Whether an atom is bonded to one of a neighbouring cell."""
    for shift in product(*((-1, 0, 1) if periodic else (0,) for periodic in pbc)):
        if not any(shift):
            continue
        image = positions + np.array(shift) @ cell
        for atom in range(len(positions)):
            if (np.linalg.norm(image - positions[atom], axis=1) < BONDED * (size + size[atom])).any():
                return True
    return False
