"""Structures that laws are tried on: none has a symmetry of its own, and crystals have pairs of every kind.

Small cells: several images of one pair of atoms, and atoms whose own image is a neighbour, lie within the cutoffs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.build import molecule as ase_molecule
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from model.structure import Structure

SHAKE_ANGSTROM = 0.05


def shaken(name: str) -> Structure:
    """A molecule of ASE's g2 collection, shaken out of any symmetry of its own."""
    atoms = ase_molecule(name)
    shake = np.random.default_rng(len(name)).normal(scale=SHAKE_ANGSTROM, size=atoms.positions.shape)
    return Structure(atoms.numbers, atoms.positions + shake)


def crystal(
    numbers: Sequence[int],
    fractional: Sequence[Sequence[float]],
    cell: NDArray[np.float64],
    pbc: tuple[bool, bool, bool],
) -> Structure:
    """A crystal; the multiplicity is the lowest that fits."""
    return Structure(
        np.array(numbers),
        np.array(fractional) @ cell,
        multiplicity=1 + sum(numbers) % 2,
        cell_angstrom=cell,
        pbc=pbc,
    )


def bulk() -> Structure:
    """Three atoms in a triclinic cell."""
    cell = np.array([[2.7, 0.1, -0.2], [0.9, 2.8, 0.3], [-0.4, 0.7, 3.1]])
    return crystal([6, 7, 1], [[0.02, 0.05, -0.03], [0.48, 0.41, 0.45], [0.71, 0.13, 0.38]], cell, (True, True, True))


def layer() -> Structure:
    """A buckled layer of two carbon atoms and one of hydrogen, periodic in two directions."""
    cell = np.array([[2.46, 0.0, 0.0], [-1.2, 2.15, 0.1], [0.0, 0.0, 20.0]])
    return crystal([6, 6, 1], [[0.01, 0.0, 0.0], [0.35, 0.66, 0.02], [0.0, 0.03, 0.055]], cell, (True, True, False))


def chain() -> Structure:
    """Hydrogen fluoride, periodic in one direction."""
    cell = np.array([[15.0, 0.0, 0.0], [0.0, 15.0, 0.0], [0.3, 0.1, 2.5]])
    return crystal([9, 1], [[0.0, 0.01, 0.0], [0.03, -0.01, 0.39]], cell, (False, False, True))


def systems(kind: str) -> list[Structure]:
    """What a kind of subject is tried on."""
    if kind == "crystal":
        return [bulk(), layer(), chain()]
    return [shaken(name) for name in ("H2O", "CH3CN", "HCOOH")]


def between_neighbours(x: float, kind: str) -> Structure:
    """A nitrogen atom nearer to one oxygen atom by 2x than to the other; for crystals, in a chain of such."""
    positions = np.array([[x, 0.1, 0.0], [-1.3, 0.0, 0.1], [1.3, 0.0, -0.1], [0.0, 1.1, 0.4]])
    numbers = np.array([7, 8, 8, 1])
    if kind == "molecule":
        return Structure(numbers, positions)
    return Structure(numbers, positions, 0, 1, np.diag([4.4, 12.0, 12.0]), (True, False, False))


MOTIONS = {
    "rotation": Rotation.random(random_state=1).as_matrix(),
    "rotation onto the axes": Rotation.from_euler("z", 90, degrees=True).as_matrix(),
    "mirror": np.diag([1.0, 1.0, -1.0]),
    "inversion": -np.eye(3),
    "rotoreflection": Rotation.random(random_state=2).as_matrix() @ np.diag([-1.0, 1.0, 1.0]),
}


def moved(structure: Structure, matrix: NDArray[np.float64], shift: NDArray[np.float64] | None = None) -> Structure:
    """The structure after x -> matrix @ x + shift, lattice included."""
    cell = structure.cell_angstrom
    return Structure(
        structure.numbers,
        structure.positions_angstrom @ matrix.T + (0.0 if shift is None else shift),
        structure.charge,
        structure.multiplicity,
        None if cell is None else cell @ matrix.T,
        structure.pbc,
    )


def with_positions(structure: Structure, positions: NDArray[np.float64]) -> Structure:
    """The same atoms elsewhere."""
    return Structure(
        structure.numbers, positions, structure.charge, structure.multiplicity, structure.cell_angstrom, structure.pbc
    )


def repeated(structure: Structure, repeats: tuple[int, int, int]) -> Structure:
    """A supercell, atoms in the order of ``ase.Atoms.repeat``."""
    cell = structure.cell_angstrom
    assert cell is not None
    shifts = (
        np.stack(np.meshgrid(*(np.arange(count) for count in repeats), indexing="ij"), axis=-1).reshape(-1, 3) @ cell
    )
    numbers = np.tile(structure.numbers, len(shifts))
    positions = (shifts[:, None] + structure.positions_angstrom).reshape(-1, 3)
    return Structure(
        numbers, positions, 0, 1 + int(numbers.sum()) % 2, cell * np.array(repeats)[:, None], structure.pbc
    )


def with_fragment(structure: Structure, away_angstrom: NDArray[np.float64]) -> Structure:
    """A water molecule added at a distance, behind the other atoms."""
    water = shaken("H2O")
    return Structure(
        np.concatenate([structure.numbers, water.numbers]),
        np.concatenate([structure.positions_angstrom, water.positions_angstrom + away_angstrom]),
        structure.charge,
        structure.multiplicity,
        structure.cell_angstrom,
        structure.pbc,
    )
