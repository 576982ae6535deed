"""The project's HDF5 file of crystals: many structures, one group each.

    cell (3, 3), positions (atom, 3)   Å, rows; atomic_numbers (atom,)
    pairs (pair, 5)                    R1 R2 R3 i j, 0-based; of (i, j, R) and (j, i, -R) only one
    shapes, overlap_shapes (pair, 2)   rows and columns of each block; twice the orbitals in ``shapes`` if spinful
    hamiltonian_eV, overlap            blocks one after the other, row by row; float32 or complex64 ([[uu, ud], [du, dd]])
    attributes                         orbital_types (JSON: l of each shell of each atom), spinful, fermi_level_eV, split;
                                       program and level as ``code`` and ``level`` where they are known; k_points (3,),
                                       folded (H(R) was made from them), n_electrons, likewise

Orbitals are in OpenMX's order, whatever program made them; eV are CODATA's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet, Spin, Values
from model.errors import DamagedFileError, MissingFileError
from model.formats.deeph import spinor_parts
from model.formats.hdf5 import open_hdf5, read_array
from model.formats.matrices import Matrices, Outline
from model.formats.rearrange import blocks_of_pairs, shells_per_element, structure_of
from model.formats.units import CODATA_EV, HARTREE, EnergyUnit
from model.orbitals.space import OrbitalSpace

REQUIRED: Final = ("atomic_numbers", "cell", "positions", "pairs", "shapes", "hamiltonian_eV")
DEFAULT_PROGRAM: Final = "GPAW"
"""The files without the attribute ``code`` are all GPAW's."""


def is_crystal_h5(path: Path) -> bool:
    """Whether a file is of this layout, by its first group."""
    if not path.is_file() or path.suffix not in (".h5", ".hdf5"):
        return False
    try:
        with open_hdf5(path) as file:
            first = next(iter(file), None)
            return first is not None and all(name in file[first] for name in REQUIRED)
    except (DamagedFileError, TypeError, ValueError, KeyError):
        return False


def structures_of(path: Path) -> dict[str, str]:
    """Names of the structures and the split each belongs to, in name order.

    Raises:
        MissingFileError, DamagedFileError: not there, or not HDF5.
    """
    with open_hdf5(path) as file:
        return {name: str(file[name].attrs.get("split", "")) for name in sorted(file)}


def outline_crystal_h5(path: Path, name: str | None = None) -> Outline:
    """Atoms and orbitals of one structure.

    Raises:
        FormatError: one of its leaves.
    """
    with open_hdf5(path) as file:
        name = _named(file, path, name)
        where = f"{path}, {name}"
        numbers = read_array(file[name], "atomic_numbers", "iu", 1, where).astype(np.int64)
        attributes = dict(file[name].attrs)
    return Outline(numbers, _space(attributes, numbers, where), _spin(attributes), True)


def read_crystal_h5(path: Path, name: str | None = None, unit: EnergyUnit = HARTREE) -> Matrices:
    """Read one structure.

    Args:
        path: the file.
        name: of its group; the first if not given.
        unit: of the result; ``CODATA_EV`` keeps the file's own numbers.

    Raises:
        FormatError: one of its leaves, with the file and the reason.
    """
    with open_hdf5(path) as file:
        name = _named(file, path, name)
        group, where = file[name], f"{path}, {name}"
        numbers = read_array(group, "atomic_numbers", "iu", 1, where).astype(np.int64)
        positions = read_array(group, "positions", "f", 2, where).astype(np.float64)
        cell = read_array(group, "cell", "f", 2, where).astype(np.float64)
        keys = read_array(group, "pairs", "iu", 2, where).astype(np.int64)
        shapes = read_array(group, "shapes", "iu", 2, where).astype(np.int64)
        hamiltonian = read_array(group, "hamiltonian_eV", "fc", 1, where)
        has_overlap = "overlap" in group
        overlap = read_array(group, "overlap", "f", 1, where) if has_overlap else np.empty(0)
        overlap_shapes = read_array(group, "overlap_shapes", "iu", 2, where).astype(np.int64) if has_overlap else shapes
        attributes = dict(group.attrs)
    if keys.shape[1:] != (5,) or shapes.shape != (len(keys), 2) or overlap_shapes.shape != (len(keys), 2):
        raise DamagedFileError(f"{where}: pairs {keys.shape} and shapes {shapes.shape} do not belong together.")
    keys = keys[:, [3, 4, 0, 1, 2]]
    spin, space = _spin(attributes), _space(attributes, numbers, where)
    structure = structure_of(numbers, positions, cell, keys[:, 2:])
    made, _ = blocks_of_pairs(space, structure, keys, _cut(hamiltonian, shapes, spin, where), spin, where)
    other: BlockSet | None = None
    if has_overlap:
        own = _cut(overlap, overlap_shapes, "restricted", where)
        other, _ = blocks_of_pairs(space, structure, keys, own, "restricted", where)
    fermi = attributes.get("fermi_level_eV")
    return Matrices(
        structure,
        made,
        other,
        fermi_energy=None if fermi is None else float(fermi),
        program=str(attributes.get("code", DEFAULT_PROGRAM)),
        unit=CODATA_EV,
        n_electrons=None if "n_electrons" not in attributes else float(attributes["n_electrons"]),
        k_points=_mesh(attributes, where),
        is_folded=bool(attributes.get("folded", False)),
        notes=tuple(str(attributes[key]) for key in ("level",) if key in attributes),
    ).in_unit(unit)


def _named(file: Any, path: Path, name: str | None) -> str:
    """A structure that is in the file; the first if none is named."""
    found = next(iter(sorted(file)), "") if name is None else name
    if found not in file:
        raise MissingFileError(f"{path} has no structure {found!r}; it has {', '.join(sorted(file)[:5])}, ...")
    return found


def _mesh(attributes: dict[str, Any], where: str) -> tuple[int, int, int] | None:
    if "k_points" not in attributes:
        return None
    counts = np.asarray(attributes["k_points"])
    if counts.shape != (3,) or counts.dtype.kind not in "iu" or counts.min() < 1:
        raise DamagedFileError(f"{where}: k_points are {counts.tolist()}, not three counts from 1.")
    return int(counts[0]), int(counts[1]), int(counts[2])


def _spin(attributes: dict[str, Any]) -> Spin:
    return "spinor" if bool(attributes.get("spinful", False)) else "restricted"


def _space(attributes: dict[str, Any], numbers: NDArray[np.int64], where: str) -> OrbitalSpace:
    return OrbitalSpace("as the file says", _shells(attributes, numbers, where), order="openmx")


def _shells(attributes: dict[str, Any], numbers: NDArray[np.int64], where: str) -> dict[int, tuple[int, ...]]:
    try:
        table = json.loads(str(attributes["orbital_types"]))
    except (KeyError, json.JSONDecodeError) as error:
        raise DamagedFileError(f"{where} has no attribute orbital_types with the l of each shell.") from error
    if not isinstance(table, list) or len(table) != len(numbers):
        raise DamagedFileError(f"{where}: orbital_types is not a list of {len(numbers)} lists.")
    if not all(isinstance(row, list) and all(ang in range(10) for ang in row) for row in table):
        raise DamagedFileError(f"{where}: orbital_types holds something else than l from 0 to 9.")
    return shells_per_element(numbers.tolist(), table)


def _cut(entries: NDArray[Any], shapes: NDArray[np.int64], spin: Spin, where: str) -> list[Values]:
    """Blocks (spin part, row, column) of flat entries."""
    sizes = shapes.prod(axis=1)
    if (shapes < 1).any() or int(sizes.sum()) != len(entries):
        raise DamagedFileError(f"{where}: {len(entries)} entries came for blocks that need {int(sizes.sum())}.")
    if spin != "spinor" and entries.dtype.kind == "c":
        raise DamagedFileError(f"{where} is complex, but not called spinful.")
    wide = entries.astype(np.complex128 if spin == "spinor" else np.float64)
    blocks = [
        part.reshape(rows, columns)
        for part, (rows, columns) in zip(np.split(wide, np.cumsum(sizes)[:-1]), shapes.tolist(), strict=True)
    ]
    return [spinor_parts(block, where) if spin == "spinor" else block[None] for block in blocks]
