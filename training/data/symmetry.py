"""Does a Hamiltonian turn with its structure? Rotated copies of one structure, and the symmetries of one crystal.

A wrong order of orbitals, a wrong sign or atoms in another sequence than their matrix show here and nowhere else: such a
matrix is still hermitian and has the right eigenvalues.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.blocks.motions import turn
from model.pairs.pair_list import PairList
from model.structure import Structure

POSITION_TOLERANCE_ANGSTROM: Final = 2e-3
"""Atoms of a structure and of its image this close are the same; printed coordinates have four digits or more."""
LATTICE_TOLERANCE: Final = 1e-4
"""Relative difference of lattice metrics that counts as none."""
MAXIMUM_ATOMS: Final = 64
"""Larger cells are not searched for symmetries."""


@dataclass(frozen=True)
class Comparison:
    """A matrix against the one that a motion makes of another, or of itself.

    Attributes:
        operations: how many motions were compared.
        largest, mean: absolute difference, in the blocks' unit; of the largest motion.
    """

    operations: int
    largest: float
    mean: float


@dataclass(frozen=True, eq=False)
class Operation:
    """A symmetry of a crystal: atom i goes to atom ``target[i]`` in cell ``cells[i]``.

    Attributes:
        matrix: orthogonal, Cartesian, (3, 3).
        lattice: what it does to lattice vectors, W with W A = A R^T, (3, 3).
        target: (atom,).
        cells: (atom, 3).
    """

    matrix: NDArray[np.float64]
    lattice: NDArray[np.int64]
    target: NDArray[np.int64]
    cells: NDArray[np.int64]


def compare_copies(frames: Sequence[BlockSet]) -> Comparison | None:
    """Compare each frame with the first one that it is a rotated copy of; None if there are no such copies."""
    firsts: dict[bytes, BlockSet] = {}
    found = []
    for blocks in frames:
        key = blocks.numbers.tobytes() + blocks.pairs.keys.tobytes() + blocks.spin.encode()
        first = firsts.setdefault(key, blocks)
        rotation = None if first is blocks else rotation_between(first.pairs, blocks.pairs)
        if rotation is not None:
            found.append(np.abs(turn(first, rotation).values - blocks.values))
    return _summary(found)


def compare_symmetries(structure: Structure, blocks: BlockSet) -> Comparison | None:
    """Compare a crystal's matrix with its images under the crystal's symmetries; None if it has none but identity."""
    place = {tuple(key): pair for pair, key in enumerate(blocks.pairs.keys.tolist())}
    found = []
    for operation in symmetries(structure):
        turned = turn(blocks, operation.matrix)
        pairs = blocks.pairs
        shift = pairs.shift @ operation.lattice + operation.cells[pairs.second] - operation.cells[pairs.first]
        keys = np.column_stack([operation.target[pairs.first], operation.target[pairs.second], shift])
        difference = np.empty_like(turned.values)
        for pair, key in enumerate(keys.tolist()):
            own = slice(turned.starts[pair], turned.starts[pair + 1])
            image = place.get(tuple(key))
            other = 0.0 if image is None else blocks.values[:, blocks.starts[image] : blocks.starts[image + 1]]
            difference[:, own] = turned.values[:, own] - other
        found.append(np.abs(difference))
    return _summary(found)


def rotation_between(first: PairList, second: PairList) -> NDArray[np.float64] | None:
    """Rotation that turns the vectors of one list into those of another with the same pairs; None if there is none, or
    the two are alike already."""
    before, after = first.vectors_angstrom, second.vectors_angstrom
    u, _, vt = np.linalg.svd(before.T @ after)
    sign = np.sign(np.linalg.det(vt.T @ u.T)) or 1.0
    matrix = np.asarray(vt.T @ np.diag([1.0, 1.0, sign]) @ u.T)
    if np.abs(before @ matrix.T - after).max(initial=0.0) > POSITION_TOLERANCE_ANGSTROM:
        return None
    return None if np.abs(before - after).max(initial=0.0) < POSITION_TOLERANCE_ANGSTROM else matrix


def symmetries(structure: Structure) -> Iterator[Operation]:
    """Symmetries of a crystal but for identity: rotations, reflections and fractional translations.

    Lattice maps with entries -1, 0 and 1 are tried, which is all of them in a reduced cell.
    """
    cell = structure.cell_angstrom
    if cell is None or not structure.is_periodic or len(structure) > MAXIMUM_ATOMS:
        return
    inverse = np.linalg.inv(cell)
    fractional = structure.positions_angstrom @ inverse
    periodic = np.array(structure.pbc)
    for lattice in _lattice_maps(cell, periodic):
        matrix = np.asarray((inverse @ lattice @ cell).T)
        matrix = _orthogonal(matrix)
        moved = fractional @ lattice
        for image in np.flatnonzero(structure.numbers == structure.numbers[0]):
            found = _atoms_of(structure, fractional, moved + fractional[image] - moved[0], periodic)
            if found is None:
                continue
            target, cells = found
            if not (np.array_equal(lattice, np.eye(3)) and np.array_equal(target, np.arange(len(target)))):
                yield Operation(matrix, lattice, target, cells)


def _lattice_maps(cell: NDArray[np.float64], periodic: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Integer matrices that keep all lengths and angles of the lattice, and directions of vacuum apart, (map, 3, 3)."""
    metric = cell @ cell.T
    candidates = np.array(list(product((-1, 0, 1), repeat=9)), dtype=np.int64).reshape(-1, 3, 3)
    mixes = candidates[:, periodic[:, None] != periodic[None, :]]
    candidates = candidates[~mixes.any(axis=1)]
    images = candidates @ metric @ candidates.transpose(0, 2, 1)
    scale = np.sqrt(np.outer(np.diag(metric), np.diag(metric)))
    return np.asarray(candidates[(np.abs(images - metric) < LATTICE_TOLERANCE * scale).all(axis=(1, 2))])


def _atoms_of(
    structure: Structure, fractional: NDArray[np.float64], moved: NDArray[np.float64], periodic: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Which atom, in which cell, each moved atom lies on; None unless all lie on atoms of their element."""
    assert structure.cell_angstrom is not None
    away = moved[:, None] - fractional[None]
    cells = np.where(periodic, np.rint(away), 0.0)
    distance = np.linalg.norm((away - cells) @ structure.cell_angstrom, axis=-1)
    distance[structure.numbers[:, None] != structure.numbers[None]] = np.inf
    target = distance.argmin(axis=1)
    rows = np.arange(len(target))
    if distance[rows, target].max() > POSITION_TOLERANCE_ANGSTROM or len(set(target.tolist())) < len(target):
        return None
    return target, cells[rows, target].astype(np.int64)


def _orthogonal(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest orthogonal matrix: a lattice in printed digits gives one to a few of them."""
    u, _, vt = np.linalg.svd(matrix)
    return np.asarray(u @ vt)


def _summary(differences: list[NDArray[np.float64]]) -> Comparison | None:
    if not differences:
        return None
    worst = max(differences, key=lambda difference: float(difference.max(initial=0.0)))
    return Comparison(len(differences), float(worst.max(initial=0.0)), float(worst.mean()))
