"""What distances say of a molecule before anything is computed: wrong units, drawings, molecules cut by a box."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

BONDED = 1.3
"""Of the sum of the covalent radii; closer atoms are taken for bonded."""

DRAWN = 1.45
"""The same for a hydrogen in a drawing, where its bond is as long as any."""


def radii(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Covalent radius of each atom, Å (Cordero et al., Dalton Trans. 2008, 2832, as ASE has them)."""
    from ase.data import covalent_radii  # what only passes structures on need not load it

    return np.array(covalent_radii, dtype=np.float64)[numbers]


LOOSE = 1.6
"""Of the sum of the covalent radii: an atom without a closer one is bonded to none. In bohr taken for Å bonds come at 1.9."""

CLOSE = 0.7
"""Bonds of Å taken for bohr come at 0.5."""

FLAT = 0.05
"""Thickness over width of a centre's neighbours; four bonds in a plane are drawn, not measured."""

CHECK = "check the unit (positions are in Å), that no hydrogen is missing, and that the structure is a three-dimensional one."


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


def doubts(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> tuple[str, ...]:
    """What makes the distances of a molecule improbable, in words; empty for sound ones.

    Args:
        numbers: atomic numbers, (atom,).
        positions: (atom, 3), Å.
    """
    ratios = contacts(numbers, positions)
    found = []
    if len(ratios) and ratios.min() < CLOSE:
        found.append(f"Atom {int(ratios.argmin())} is nearer to another than {CLOSE:g} of a bond between them: {CHECK}")
    if len(ratios) and ratios.max() > LOOSE:
        found.append(f"Atom {int(ratios.argmax())} has no other within {LOOSE:g} times the length of a bond: {CHECK}")
    if (flat := _flat_centre(numbers, positions)) is not None:
        found.append(f"The four neighbours of atom {flat} lie in a plane with it, as in a drawing: {CHECK}")
    return tuple(found)


def is_absurd(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> bool:
    """Whether no atom of at least three has another at a bond's distance, or all have one at half of it: a wrong unit."""
    ratios = contacts(numbers, positions)
    return len(ratios) > 2 and bool(ratios.min() > LOOSE or ratios.max() < CLOSE)


def _flat_centre(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> int | None:
    """An atom of carbon or silicon with four neighbours in one plane with it."""
    size = radii(numbers)
    for atom in np.flatnonzero(np.isin(numbers, (6, 14))):
        offsets = positions - positions[atom]
        distances = np.linalg.norm(offsets, axis=1)
        reach = np.where(numbers == 1, DRAWN, BONDED) * (size + size[atom])
        bonded = (distances < reach) & (np.arange(len(numbers)) != atom)
        if bonded.sum() == 4:
            directions = offsets[bonded] / distances[bonded][:, None]
            width = np.linalg.svd(directions, compute_uv=False)
            if width[2] < FLAT * width[0]:
                return int(atom)
    return None


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
