"""Structures of two-dimensional honeycomb crystals: a monolayer, two layers shifted against each other, two layers turned.

Lattice vectors are rows: a1 = a (1, 0, 0), a2 = a (-1/2, sqrt(3)/2, 0), c along z. The two sites of a layer are at 0 and at
(a1 + 2 a2)/3, that is a/sqrt(3) along y. Layers lie about z = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.structure import Structure

SITES: Final = np.array([[0.0, 0.0], [1 / 3, 2 / 3]])
"""Fractional coordinates in the plane."""
TWO_DIMENSIONAL: Final = (True, True, False)
POSITION_DECIMALS: Final = 6
"""Of positions and lattice vectors in Å: exactly these are labelled and stored."""

Grid = NDArray[np.float64]


def hexagonal(a: float, height: float) -> Grid:
    """Lattice vectors as rows, Å."""
    return np.array([[a, 0.0, 0.0], [-a / 2, a * np.sqrt(3) / 2, 0.0], [0.0, 0.0, height]])


def monolayer(a: float, height: float, repeat: int, numbers: Sequence[int]) -> Structure:
    """One flat layer of ``repeat`` x ``repeat`` cells.

    Args:
        a: lattice constant, Å.
        height: of the cell, Å.
        repeat: cells along each lattice vector.
        numbers: atomic number of each site: sites of a cell next to each other, cells row by row.
    """
    return _flat(hexagonal(a, height), repeat, [(np.zeros(2), 0.0)], numbers)


def bilayer(a: float, height: float, repeat: int, distance: float, shift: Sequence[float], number: int) -> Structure:
    """Two flat layers, the upper one shifted.

    Args:
        a, height, repeat: as of a monolayer.
        distance: between the layers, Å.
        shift: of the upper layer in lattice vectors of the small cell: (0, 0) is AA, (1/3, 2/3) AB.
        number: atomic number of all atoms.
    """
    layers = [(np.zeros(2), -distance / 2), (np.asarray(shift, dtype=np.float64), distance / 2)]
    return _flat(hexagonal(a, height), repeat, layers, [number] * (4 * repeat**2))


def _flat(cell: Grid, repeat: int, layers: Sequence[tuple[Grid, float]], numbers: Sequence[int]) -> Structure:
    cells = np.array([[i, j] for i in range(repeat) for j in range(repeat)], dtype=np.float64)
    positions = []
    for shift, z in layers:
        plane = (cells[:, None] + SITES[None] + shift).reshape(-1, 2) @ cell[:2]
        plane[:, 2] = z
        positions.append(plane)
    large = cell * np.array([repeat, repeat, 1])[:, None]
    return Structure(np.array(numbers), np.concatenate(positions), cell_angstrom=large, pbc=TWO_DIMENSIONAL)


def twisted_bilayer(a: float, height: float, m: int, n: int, distance: float, number: int) -> Structure:
    """Two flat layers turned against each other about a common atom into a commensurate cell.

    The lower layer's superlattice vector m a1 + n a2 and the upper layer's n a1 + m a2 have the same length; turned onto
    each other they make one cell of 4 (m^2 + m n + n^2) atoms (with a1, a2 at 60 degrees) and the twist angle

        cos(theta) = (m^2 + 4 m n + n^2) / (2 (m^2 + m n + n^2))

    (Lopes dos Santos, Peres, Castro Neto, Phys. Rev. Lett. 99, 256802 (2007)): (2, 1) is 21.8 degrees and 28 atoms, (3, 2)
    13.2 degrees and 76, (4, 3) 9.4 degrees and 148.

    Args:
        a, height, distance, number: as of a bilayer.
        m, n: different positive numbers without common divisor.
    """
    layer = hexagonal(a, height)[:2, :2]
    sites = []
    for first, second in ((m, n), (n, m)):
        # with vectors at 60 degrees, a2' = a1 + a2: m a1 + n a2' = (m + n) a1 + n a2, and its image turned by 60 degrees
        matrix = np.array([[first + second, second], [-second, first]], dtype=np.float64)
        own = matrix @ layer
        angle = np.arctan2(own[0, 1], own[0, 0])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        sites.append((own @ turn, _inside(matrix)))
    large = sites[0][0]  # its first vector along x; both layers' are the same
    positions = []
    for (_, fractional), z in zip(sites, (-distance / 2, distance / 2), strict=True):
        plane = fractional @ large
        positions.append(np.column_stack([plane, np.full(len(plane), z)]))
    cell = np.zeros((3, 3))
    cell[:2, :2], cell[2, 2] = large, height
    everything = np.concatenate(positions)
    return Structure(np.full(len(everything), number), everything, cell_angstrom=cell, pbc=TWO_DIMENSIONAL)


def twist_angle_degrees(m: int, n: int) -> float:
    """Angle between the layers of ``twisted_bilayer``."""
    return float(np.degrees(np.arccos((m * m + 4 * m * n + n * n) / (2 * (m * m + m * n + n * n)))))


def _inside(matrix: Grid) -> Grid:
    """Fractional coordinates of a layer's sites in a supercell whose rows are ``matrix`` times the small cell's."""
    reach = int(np.abs(matrix).sum()) + 1
    steps = np.arange(-reach, reach + 1)
    grid = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    fractional = (grid + SITES[None]).reshape(-1, 2) @ np.linalg.inv(matrix)
    fractional = np.round(fractional, 9)
    return np.asarray(fractional[((fractional >= 0) & (fractional < 1)).all(axis=1)])


def strained(structure: Structure, largest: float, rng: np.random.Generator) -> Structure:
    """The same under a random strain in the plane, atoms moving along.

    Args:
        largest: of each of the strain's components xx, yy, xy; each is uniform between minus this and this.
    """
    assert structure.cell_angstrom is not None
    xx, yy, xy = rng.uniform(-largest, largest, size=3)
    deformation = np.eye(3) + np.array([[xx, xy, 0.0], [xy, yy, 0.0], [0.0, 0.0, 0.0]])
    return replace(
        structure,
        positions_angstrom=structure.positions_angstrom @ deformation,
        cell_angstrom=structure.cell_angstrom @ deformation,
    )


def rattled(structure: Structure, deviation: float, rng: np.random.Generator) -> Structure:
    """The same with normal displacements of every coordinate, Å."""
    moves = rng.normal(scale=deviation, size=(len(structure), 3))
    return replace(structure, positions_angstrom=structure.positions_angstrom + moves)


def rounded(structure: Structure) -> Structure:
    """The same with the digits that are stored."""
    assert structure.cell_angstrom is not None
    return replace(
        structure,
        positions_angstrom=np.round(structure.positions_angstrom, POSITION_DECIMALS),
        cell_angstrom=np.round(structure.cell_angstrom, POSITION_DECIMALS),
    )
