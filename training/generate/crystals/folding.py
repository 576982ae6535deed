"""From H(k) on a mesh to H(R), for programs that keep their matrices in reciprocal space.

    H_ij(R) = 1/N sum over k of exp(-2 pi i k.R) H_ij(k)

A mesh of N points knows R only modulo its supercell. Each block is given to the shortest of its images; where several are
equally short it is shared among them, without which H(R) = H(-R)^dagger would not hold. Right where H reaches less far than
half of the supercell; ``training.data.lint`` checks that.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet, Spin
from model.errors import DamagedFileError
from model.formats.rearrange import blocks_of_pairs
from model.orbitals.space import OrbitalSpace
from model.structure import Structure

TIE_ANGSTROM: Final = 1e-3
"""Images whose distances differ by less share a block."""
SMALLEST: Final = 1e-8
"""Blocks with smaller entries (hartree) are not kept."""
LARGEST_IMAGINARY: Final = 1e-6
"""Of H(R) without spin, which is real where H(-k) is the conjugate of H(k); hartree."""
NEIGHBOURS: Final = 2
"""Supercells searched for the shortest image, in each direction, of atoms inside the cell."""


def fold_back(
    structure: Structure,
    space: OrbitalSpace,
    k_points: NDArray[np.float64],
    matrices: Sequence[NDArray[Any]],
    counts: Sequence[int],
    spin: Spin = "restricted",
) -> list[BlockSet]:
    """H(R), and other matrices of the same mesh, on the pairs of all of them.

    Args:
        structure: atoms inside the cell, as the program's phases take them.
        space: orbitals in the program's order.
        k_points: the whole Gamma-centred mesh, fractional, (k, 3).
        matrices: each (spin part, k, orbital, orbital); a matrix of one spin part is the same for all spins.
        counts: points along each reciprocal lattice vector.
        spin: of the first matrix; the others are restricted.

    Returns:
        one set for each matrix.

    Raises:
        DamagedFileError: without spin, H(R) is not real: points are missing or phases are other ones.
    """
    placed = _images(structure, counts)
    shifts = np.array(list(product(*(range(count) for count in counts))), dtype=np.int64)
    phases = np.exp(-2j * np.pi * (shifts @ k_points.T)) / len(k_points)
    offsets = space.atom_offsets(structure.numbers)
    real_space = []
    for number, matrix in enumerate(matrices):
        at_r = np.einsum("rk,skab->srab", phases, matrix, optimize=True)
        if number or spin != "spinor":
            worst = float(np.abs(at_r.imag).max())
            if worst > LARGEST_IMAGINARY:
                raise DamagedFileError(f"H(R) of the mesh {'x'.join(map(str, counts))} is not real: {worst:.1g}.")
            at_r = at_r.real
        real_space.append(at_r)
    keys: list[tuple[int, ...]] = []
    blocks: list[list[NDArray[Any]]] = [[] for _ in matrices]
    for (i, j, cell), images in placed.items():
        rows, columns = slice(offsets[i], offsets[i + 1]), slice(offsets[j], offsets[j + 1])
        own = [at_r[:, cell, rows, columns] / len(images) for at_r in real_space]
        if (i != j or cell) and max(np.abs(block).max() for block in own) < SMALLEST:
            continue
        for shift in images:
            keys.append((i, j, *shift))
            for kept, block in zip(blocks, own, strict=True):
                kept.append(block)
    table = np.array(keys, dtype=np.int64)
    spins: list[Spin] = [spin, *(["restricted"] * (len(matrices) - 1))]  # type: ignore[list-item]
    return [
        blocks_of_pairs(space, structure, table, own, kind, "H(R) of a mesh")[0].hermitised()
        for own, kind in zip(blocks, spins, strict=True)
    ]


def _images(structure: Structure, counts: Sequence[int]) -> dict[tuple[int, int, int], list[tuple[int, ...]]]:
    """The shortest images of each pair (i, j) in each cell of the supercell, by the cell's number in the mesh's order."""
    assert structure.cell_angstrom is not None
    cell, positions = structure.cell_angstrom, structure.positions_angstrom
    size = np.asarray(counts)
    far = [
        range(-NEIGHBOURS, NEIGHBOURS + 1) if count > 1 or periodic else (0,)
        for count, periodic in zip(counts, structure.pbc, strict=True)
    ]
    supercells = np.array(list(product(*far)), dtype=np.int64) * size
    cells = np.array(list(product(*(range(count) for count in counts))), dtype=np.int64)
    candidates = cells[:, None] + supercells[None]
    found = {}
    for i in range(len(structure)):
        for j in range(len(structure)):
            distances = np.linalg.norm(positions[j] - positions[i] + candidates @ cell, axis=-1)
            nearest = distances < distances.min(axis=1, keepdims=True) + TIE_ANGSTROM
            for number in range(len(cells)):
                images = candidates[number][nearest[number]]
                found[i, j, number] = [tuple(int(step) for step in image) for image in images]
    return found
