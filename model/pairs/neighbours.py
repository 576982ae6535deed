"""Neighbour search by cell lists (vesin), linear in the number of atoms; the only place that imports vesin."""

from __future__ import annotations

import numpy as np
import vesin
from numpy.typing import NDArray

from model.structure import Structure

Neighbours = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def neighbours(structure: Structure, cutoff_angstrom: float) -> Neighbours:
    """All ordered pairs closer than a cutoff, without (i, i, 0).

    Args:
        structure: molecule or crystal; periodic along the directions of ``pbc``.
        cutoff_angstrom: distance at which pairs end.

    Returns:
        first atom, second atom, lattice shift of the second (pair, 3), distance in Å (pair,).
    """
    cell = np.zeros((3, 3)) if structure.cell_angstrom is None else structure.cell_angstrom
    search = vesin.NeighborList(cutoff=cutoff_angstrom, full_list=True)
    i, j, shift, distance = search.compute(
        points=structure.positions_angstrom, box=cell, periodic=list(structure.pbc), quantities="ijSd"
    )
    near = np.asarray(distance) < cutoff_angstrom
    return (
        np.asarray(i, dtype=np.int64)[near],
        np.asarray(j, dtype=np.int64)[near],
        np.asarray(shift, dtype=np.int64)[near],
        np.asarray(distance, dtype=np.float64)[near],
    )
