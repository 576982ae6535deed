"""How a BlockSet turns: rotations and reflections, permutations, lattice shifts of atoms, supercells, time reversal.

What happens to the atoms happens to the matrix and nothing else: H(moved) is the BlockSet that these functions make of H.
Laws, self-tests and checks of files compare with it. Orbitals turn by Wigner matrices in the BlockSet's own order and signs,
and a spinor's spin by SU(2):

    H'_ij(R) = (D_i x U) H_ij(R) (D_j x U)^dagger,    D = (-1)^l D^l(proper part) if the motion is improper

An inversion does nothing to spin. Time reversal is sigma_y H* sigma_y in real orbitals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import block_diag
from scipy.spatial.transform import Rotation

from model.blocks.block_set import BlockSet, Values
from model.errors import StructureError
from model.nn.frames import wigner_matrices
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList

ORTHOGONALITY_TOLERANCE: Final = 1e-6
"""Largest |M M^T - 1| of a matrix that is still taken for orthogonal; errors of H follow it."""


def orbital_representations(
    space: OrbitalSpace, matrix: NDArray[np.float64], elements: Sequence[int] | None = None
) -> dict[int, NDArray[np.float64]]:
    """How the orbitals of each element transform under x -> matrix @ x, in the space's order and signs.

    Args:
        space: gives shells and order.
        matrix: orthogonal, (3, 3), Cartesian (x, y, z); proper or not.
        elements: atomic numbers; all of the space's if None.

    Returns:
        atomic number -> D, orthogonal, (ao, ao).

    Raises:
        StructureError: a matrix that is not orthogonal.
        UnsupportedElementError: an element that the space does not list.
    """
    proper, sign = _proper_part(matrix)
    elements = space.elements if elements is None else elements
    highest = max(max(space.shells_of(number)) for number in elements)
    wigner = wigner_matrices(torch.from_numpy(np.ascontiguousarray(proper))[None], highest)
    of_ang = [sign**ang * wigner[ang][0].numpy() for ang in range(highest + 1)]
    found = {}
    for number in elements:
        standard = block_diag(*(of_ang[ang] for ang in space.shells_of(number)))
        back = space.to_standard(number).inverse()
        signs = back.sign[:, None] * back.sign
        found[int(number)] = np.asarray(signs * standard[np.ix_(back.index, back.index)])
    return found


def orbital_representation(
    space: OrbitalSpace, numbers: Sequence[int] | NDArray[np.int64], matrix: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The same for all orbitals of a molecule: U, (ao, ao), with S(moved) = U S U^T. Arguments and errors as above."""
    kinds = sorted({int(number) for number in numbers})
    of_element = orbital_representations(space, matrix, kinds)
    return np.asarray(block_diag(*(of_element[int(number)] for number in numbers)))


def spin_representation(matrix: NDArray[np.float64]) -> NDArray[np.complex128]:
    """How a spinor (up, down) transforms: the SU(2) matrix of the proper part, (2, 2); its overall sign is free.

    Raises:
        StructureError: a matrix that is not orthogonal.
    """
    proper, _ = _proper_part(matrix)
    x, y, z, w = Rotation.from_matrix(proper).as_quat()
    return np.array([[w - 1j * z, -1j * x - y], [-1j * x + y, w + 1j * z]])


def turn(blocks: BlockSet, matrix: NDArray[np.float64]) -> BlockSet:
    """The blocks after x -> matrix @ x of all atoms, the lattice and the spins.

    Args:
        matrix: orthogonal, (3, 3), Cartesian (x, y, z); proper or not.

    Raises:
        StructureError: a matrix that is not orthogonal.
    """
    of_element = orbital_representations(blocks.space, matrix, sorted({int(number) for number in blocks.numbers}))
    values = np.empty_like(blocks.values)
    for group in blocks.groups:
        turned = of_element[group.rows] @ blocks.values[:, group.entries] @ of_element[group.columns].T
        values[:, group.entries] = turned
    if blocks.spin == "spinor":
        spin = spin_representation(matrix)
        values = np.kron(spin, spin.conj()) @ values
    pairs = replace(blocks.pairs, vectors_angstrom=blocks.pairs.vectors_angstrom @ np.asarray(matrix).T)
    return replace(blocks, pairs=pairs, values=values)


def permute(blocks: BlockSet, order: Sequence[int] | NDArray[np.int64]) -> BlockSet:
    """The blocks after the atoms are put in another order.

    Args:
        order: atom ``order[k]`` becomes atom k; each atom once.

    Raises:
        StructureError: an order that leaves out an atom or names one twice.
    """
    order = np.asarray(order, dtype=np.int64)
    n_atoms = blocks.pairs.n_atoms
    if not np.array_equal(np.sort(order), np.arange(n_atoms)):
        raise StructureError(f"An order of {n_atoms} atoms names each of 0 to {n_atoms - 1} once.")
    place = np.argsort(order)
    pairs = blocks.pairs
    keys = np.column_stack([place[pairs.first], place[pairs.second], pairs.shift])
    return _relabelled(blocks, blocks.numbers[order], keys, np.arange(len(pairs)))


def shift_atoms(blocks: BlockSet, shifts: NDArray[np.int64]) -> BlockSet:
    """The blocks after single atoms are moved by lattice vectors: the same crystal, R -> R + n_i - n_j.

    Args:
        shifts: lattice vectors n of each atom, (atom, 3); zero along directions that are not periodic.

    Raises:
        StructureError: not one shift an atom.
    """
    shifts = np.asarray(shifts, dtype=np.int64)
    pairs = blocks.pairs
    if shifts.shape != (pairs.n_atoms, 3):
        raise StructureError(f"{pairs.n_atoms} atoms need shifts of shape ({pairs.n_atoms}, 3), not {shifts.shape}.")
    moved = pairs.shift + shifts[pairs.first] - shifts[pairs.second]
    keys = np.column_stack([pairs.first, pairs.second, moved])
    return _relabelled(blocks, blocks.numbers, keys, np.arange(len(pairs)))


def unfold(blocks: BlockSet, repeats: Sequence[int]) -> BlockSet:
    """The blocks of a supercell of the same crystal.

    Args:
        repeats: how often the cell stands along each lattice vector, three numbers from 1.

    Returns:
        blocks of ``repeats`` times as many atoms, ordered as ``ase.Atoms.repeat`` does: cell by cell, the last lattice
        vector running fastest, inside a cell as before. R counts lattice vectors of the supercell.

    Raises:
        StructureError: a repeat below 1.
    """
    counts = np.asarray(repeats, dtype=np.int64)
    if counts.shape != (3,) or counts.min() < 1:
        raise StructureError(f"A supercell needs three repeats from 1, not {tuple(repeats)}.")
    pairs, n_atoms = blocks.pairs, blocks.pairs.n_atoms
    cells = np.stack(np.meshgrid(*(np.arange(count) for count in counts), indexing="ij"), axis=-1).reshape(-1, 3)
    shift, inside = np.divmod(cells[:, None] + pairs.shift, counts)
    image = (inside[..., 0] * counts[1] + inside[..., 1]) * counts[2] + inside[..., 2]
    first = np.arange(len(cells))[:, None] * n_atoms + pairs.first
    second = image * n_atoms + pairs.second
    keys = np.concatenate([first[..., None], second[..., None], shift], axis=-1).reshape(-1, 5)
    numbers = np.tile(blocks.numbers, len(cells))
    return _relabelled(blocks, numbers, keys, np.tile(np.arange(len(pairs)), len(cells)))


def reverse_time(blocks: BlockSet) -> BlockSet:
    """Theta H Theta^-1: of spinors sigma_y H* sigma_y; alpha and beta exchanged; restricted blocks as they are."""
    return blocks.with_values(_time_reversed(blocks))


def time_reversal_error(blocks: BlockSet) -> float:
    """Largest entry of the part of H that time reversal turns round, |H - Theta H Theta^-1| / 2, in the blocks' unit.

    Zero to the precision of the program where there is no magnetisation. Compare it with the spin-orbit coupling (the
    largest entry of uu - dd, ud and du), not with H as a whole.
    """
    return float(0.5 * np.abs(blocks.values - _time_reversed(blocks)).max(initial=0.0))


def _time_reversed(blocks: BlockSet) -> Values:
    if blocks.spin == "restricted":
        return blocks.values
    if blocks.spin == "unrestricted":
        return blocks.values[::-1]
    return blocks.values[::-1].conj() * np.array([1.0, -1.0, -1.0, 1.0])[:, None]


def _proper_part(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The rotation in an orthogonal matrix, and +1, or -1 if an inversion follows it."""
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape != (3, 3) or not np.abs(matrix @ matrix.T - np.eye(3)).max() < ORTHOGONALITY_TOLERANCE:
        raise StructureError("A motion needs an orthogonal matrix of shape (3, 3).")
    sign = float(np.sign(np.linalg.det(matrix)))
    return sign * matrix, sign


def _relabelled(
    blocks: BlockSet, numbers: NDArray[np.int64], keys: NDArray[np.int64], source: NDArray[np.int64]
) -> BlockSet:
    """Blocks under new labels, sorted as a PairList is.

    Args:
        numbers: of the new atoms.
        keys: new (i, j, R1, R2, R3) of each block, (block, 5).
        source: which pair each block was, (block,).
    """
    off_site = (keys[:, 0] != keys[:, 1]) | keys[:, 2:].any(axis=1)
    order = np.lexsort([*keys.T[::-1], off_site])
    keys, source = keys[order], source[order]
    vectors = blocks.pairs.vectors_angstrom[source]
    pairs = PairList(len(numbers), keys[:, 0], keys[:, 1], keys[:, 2:], vectors)
    sizes = np.diff(blocks.starts)[source]
    ends = np.cumsum(sizes)
    entries = np.repeat(blocks.starts[source] - ends + sizes, sizes) + np.arange(ends[-1])
    return replace(blocks, numbers=numbers, pairs=pairs, values=blocks.values[:, entries])
