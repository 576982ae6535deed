"""From blocks as files list them to a BlockSet, and to other sequences of atoms or shells. No entry is ever recomputed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import SPIN_PARTS, BlockSet, Spin, Values
from model.errors import DamagedFileError, OrbitalsDoNotFitError, StructureError
from model.formats.matrices import Matrices
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import SYMBOLS, Structure

SPINOR_TRANSPOSE = (0, 2, 1, 3)
"""uu, ud, du, dd of a block whose rows and columns change places."""
FRACTIONAL_TOLERANCE = 1e-12
"""A fractional coordinate so little below 0 is 0."""


def structure_of(
    numbers: Sequence[int] | NDArray[np.int64],
    positions_angstrom: NDArray[np.float64],
    cell_angstrom: NDArray[np.float64] | None,
    shifts: NDArray[np.int64] | None = None,
) -> Structure:
    """Atoms of a file of matrices: neutral, of the lowest multiplicity, since no such file states either.

    Args:
        numbers: atomic numbers, (atom,).
        positions_angstrom: (atom, 3).
        cell_angstrom: rows are lattice vectors, or None.
        shifts: lattice shifts of all pairs, (pair, 3): the structure is periodic where one is not zero. A direction along
            which nothing reaches into the next cell is one of vacuum, whatever the cell says.
    """
    counts = np.asarray(numbers, dtype=np.int64)
    periodic = (False, False, False)
    if shifts is not None and cell_angstrom is not None and len(shifts):
        periodic = (bool(shifts[:, 0].any()), bool(shifts[:, 1].any()), bool(shifts[:, 2].any()))
    return Structure(
        counts,
        positions_angstrom,
        multiplicity=1 + int(counts.sum()) % 2,
        cell_angstrom=cell_angstrom,
        pbc=periodic,
    )


def shells_per_element(numbers: Sequence[int], shells_of_atoms: Sequence[Sequence[int]]) -> dict[int, tuple[int, ...]]:
    """Shells of each element from those of each atom.

    Raises:
        OrbitalsDoNotFitError: two atoms of one element with different shells.
    """
    found: dict[int, tuple[int, ...]] = {}
    for number, shells in zip(numbers, shells_of_atoms, strict=True):
        own = tuple(int(ang) for ang in shells)
        if found.setdefault(int(number), own) != own:
            raise OrbitalsDoNotFitError(
                f"Two atoms of {SYMBOLS[int(number)]} have different shells, {found[int(number)]} and {own}.",
                hint="A space has one set of shells for each element; write one file for each kind of atom.",
            )
    return found


def blocks_of_pairs(
    space: OrbitalSpace,
    structure: Structure,
    keys: NDArray[np.int64],
    blocks: Sequence[Values],
    spin: Spin,
    where: str,
) -> tuple[BlockSet, int]:
    """Blocks as a file lists them.

    Args:
        space, structure: whose orbitals and atoms.
        keys: (i, j, R1, R2, R3) of each block, (pair, 5), in any sequence; of (i, j, R) and (j, i, -R) one is enough.
        blocks: (spin part, orbital of i, orbital of j) for each pair.
        spin: spin treatment.
        where: the file, for errors.

    Returns:
        the set, closed under reversal, and how many blocks were made from their reverse.

    Raises:
        DamagedFileError: a pair twice or beyond the atoms, or an atom without its on-site block.
        OrbitalsDoNotFitError: a block of another shape than its atoms' orbitals have.
    """
    keys = np.asarray(keys, dtype=np.int64).reshape(-1, 5)
    try:
        pairs = PairList.of(structure, keys[:, 0], keys[:, 1], keys[:, 2:])
    except StructureError as error:
        raise DamagedFileError(f"{where}: {error.detail}") from error
    sizes = np.diff(space.atom_offsets(structure.numbers))
    parts = SPIN_PARTS[spin]
    listed: dict[tuple[int, ...], int] = {}
    for index, (key, block) in enumerate(zip(keys.tolist(), blocks, strict=True)):
        expected = (parts, int(sizes[key[0]]), int(sizes[key[1]]))
        if block.shape != expected:
            raise OrbitalsDoNotFitError(
                f"{where}: the block of atoms {key[0]} and {key[1]} at R = {key[2:]} is {block.shape}, the stated shells "
                f"make it {expected} (spin part, row, column).",
                hint="Check the list of shells against the basis of the calculation, and whether spin is stated rightly.",
            )
        listed[tuple(key)] = index
    made = BlockSet.zeros(space, structure.numbers, pairs, spin)
    values, filled = made.values, 0
    for pair, (i, j, *shift) in enumerate(pairs.keys.tolist()):
        source = listed.get((i, j, *shift))
        if source is not None:
            block = blocks[source]
        else:
            source = listed.get((j, i, *(-r for r in shift)))
            if source is None:
                raise DamagedFileError(f"{where}: atom {i} has no on-site block.", hint="Write the pair (i, i, 0) too.")
            block = blocks[source].conj().swapaxes(1, 2)
            block = block[list(SPINOR_TRANSPOSE)] if spin == "spinor" else block
            filled += 1
        values[:, made.starts[pair] : made.starts[pair + 1]] = block.reshape(parts, -1)
    return made.with_values(values), filled


def union_of_pairs(structure: Structure, sets: Sequence[BlockSet]) -> PairList:
    """The pairs that any of some BlockSets of a structure has."""
    keys = np.unique(np.concatenate([blocks.pairs.keys for blocks in sets]), axis=0)
    return PairList.of(structure, keys[:, 0], keys[:, 1], keys[:, 2:])


def grouped_by_element(matrices: Matrices) -> Matrices:
    """The same with atoms of one element next to each other, elements in the sequence of their first atom."""
    numbers = matrices.structure.numbers
    elements = list(dict.fromkeys(numbers.tolist()))
    order = np.array([atom for z in elements for atom in np.flatnonzero(numbers == z)], dtype=np.int64)
    return matrices if np.array_equal(order, np.arange(len(numbers))) else with_atoms(matrices, order)


def with_atoms(matrices: Matrices, order: NDArray[np.int64]) -> Matrices:
    """The same with atom ``order[k]`` as atom k."""
    old = matrices.structure
    structure = replace(old, numbers=old.numbers[order], positions_angstrom=old.positions_angstrom[order])
    place = np.argsort(order)
    return _rekeyed(matrices, structure, place, np.zeros((len(order), 3), dtype=np.int64))


def wrapped(matrices: Matrices) -> Matrices:
    """The same with all atoms inside the cell, fractional coordinates in [0, 1)."""
    structure = matrices.structure
    return matrices if structure.cell_angstrom is None else moved(matrices, cells_of(structure))


def cells_of(structure: Structure) -> NDArray[np.int64]:
    """The cell that each atom of a structure with a cell lies in, (atom, 3); 0 for fractional coordinates in [0, 1)."""
    assert structure.cell_angstrom is not None
    fractional = structure.positions_angstrom @ np.linalg.inv(structure.cell_angstrom)
    return np.floor(fractional + FRACTIONAL_TOLERANCE).astype(np.int64)


def moved(
    matrices: Matrices, cells: NDArray[np.int64], positions_angstrom: NDArray[np.float64] | None = None
) -> Matrices:
    """The same with each atom moved by -``cells`` lattice vectors, (atom, 3); the shifts of its pairs follow.

    ``positions_angstrom`` are where the atoms are then, if they are known better than by moving them back and forth.
    """
    old = matrices.structure
    if old.cell_angstrom is None or not cells.any():
        return matrices
    if positions_angstrom is None:
        positions_angstrom = old.positions_angstrom - cells @ old.cell_angstrom
    structure = replace(old, positions_angstrom=positions_angstrom)
    return _rekeyed(matrices, structure, np.arange(len(old)), cells)


def _rekeyed(matrices: Matrices, structure: Structure, place: NDArray[np.int64], cells: NDArray[np.int64]) -> Matrices:
    """Atom a becomes atom ``place[a]`` and moves by -``cells[a]`` lattice vectors."""
    made: dict[str, BlockSet] = {}
    for name, blocks in matrices.stored.items():
        pairs = blocks.pairs
        shift = pairs.shift + cells[pairs.second] - cells[pairs.first]
        keys = np.column_stack([place[pairs.first], place[pairs.second], shift])
        made[name], _ = blocks_of_pairs(blocks.space, structure, keys, list(blocks), blocks.spin, name)
    return replace(matrices, structure=structure, **made)  # type: ignore[arg-type]


def with_shells(matrices: Matrices, shells: Mapping[int, Sequence[int]]) -> Matrices:
    """The same with each element's shells in another sequence; the k-th shell of each l stays the k-th of that l.

    Raises:
        OrbitalsDoNotFitError: other shells than the matrices have.
    """
    old = matrices.space
    numbers = sorted(set(matrices.structure.numbers.tolist()))
    for z in numbers:
        if Counter(shells[z]) != Counter(old.shells_of(z)):
            raise OrbitalsDoNotFitError(
                f"{SYMBOLS[z]} has the shells {old.shells_of(z)}; {tuple(shells[z])} are other ones."
            )
    if all(tuple(shells[z]) == old.shells_of(z) for z in numbers):
        return matrices
    space = replace(old, shells={z: tuple(shells[z]) for z in numbers})
    take = {z: _shell_permutation(old.shells_of(z), tuple(shells[z])) for z in numbers}
    made = {}
    for name, blocks in matrices.stored.items():
        values = np.empty_like(blocks.values)
        for group in blocks.groups:
            source = group.entries[:, take[group.rows][:, None], take[group.columns][None, :]]
            values[:, group.entries] = blocks.values[:, source]
        made[name] = BlockSet(space, blocks.numbers, blocks.pairs, values, blocks.spin)
    return replace(matrices, **made)  # type: ignore[arg-type]


def ascending_shells(matrices: Matrices) -> Matrices:
    """The same with all s first, then all p, and so on: ABACUS's and PySCF's sequence."""
    return with_shells(matrices, {z: sorted(ls) for z, ls in matrices.space.shells.items()})


def _shell_permutation(old: tuple[int, ...], new: tuple[int, ...]) -> NDArray[np.int64]:
    """Position in the old sequence of each orbital of the new one."""
    starts = np.concatenate([[0], np.cumsum([2 * ang + 1 for ang in old])])
    seen: Counter[int] = Counter()
    found = []
    for ang in new:
        shell = [k for k, own in enumerate(old) if own == ang][seen[ang]]
        seen[ang] += 1
        found.append(starts[shell] + np.arange(2 * ang + 1))
    return np.concatenate(found)
