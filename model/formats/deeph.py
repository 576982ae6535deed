"""DeepH's new folder (DeepH-pack 2025, DeepH-dock): POSCAR, info.json and one flat HDF5 file for each matrix.

    POSCAR            atoms grouped by element, Å
    info.json         atoms_quantity, orbits_quantity (without spin), orthogonal_basis, spinful, fermi_energy_eV (null:
                      unknown), elements_orbital_map {"Mo": [0, 0, 0, 1, 1, 2, 2]}, occupation (electrons; optional)
    hamiltonian.h5    atom_pairs (pair, 5) = R1 R2 R3 i j, 0-based; chunk_shapes (pair, 2); chunk_boundaries (pair + 1);
                      entries, flat, row by row: eV; complex (2 rows, 2 columns) = [[uu, ud], [du, dd]] if spinful
    overlap.h5        the same, real, without spin          density_matrix.h5  likewise

Orbitals are in the standard order, m = -l..l, no signs. Layout: kYangLi/DeepH-dock, docs/key_concepts.md; verified on its
MoTe2, MoS2, Si, H2O and Bi2Se3. The unit is taken as ``DEEPH_EV``; a folder does not say which program's eV it holds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet, Spin, Values
from model.errors import DamagedFileError, MissingFileError, OrbitalsDoNotFitError, UnsupportedContentError
from model.formats.folders import fresh_folder
from model.formats.hdf5 import open_hdf5, read_array
from model.formats.matrices import Matrices, Outline
from model.formats.poscar import read_poscar, write_poscar
from model.formats.rearrange import blocks_of_pairs, grouped_by_element, structure_of, union_of_pairs
from model.formats.text import flag, number, read_json
from model.formats.units import DEEPH_EV, HARTREE, EnergyUnit
from model.orbitals.space import OrbitalSpace
from model.structure import SYMBOLS

HAMILTONIAN: Final = "hamiltonian.h5"
PREDICTED: Final = "hamiltonian_pred.h5"
"""What DeepH-pack writes for its own predictions; read where there is no ``hamiltonian.h5``."""
OVERLAP: Final = "overlap.h5"
DENSITY: Final = "density_matrix.h5"


def is_deeph(path: Path) -> bool:
    """Whether a folder is of this layout."""
    return (path / "info.json").is_file() and (path / "POSCAR").is_file()


def outline_deeph(folder: Path) -> Outline:
    """Atoms and orbitals of a folder, from its POSCAR and info.json.

    Raises:
        FormatError: one of its leaves.
    """
    where = str(folder / "info.json")
    info = read_json(folder / "info.json")
    numbers, _, _ = read_poscar(folder / "POSCAR")
    has = any((folder / name).is_file() for name in (HAMILTONIAN, PREDICTED))
    return Outline(
        numbers, _space(info, numbers, where), "spinor" if flag(info, "spinful", where) else "restricted", has
    )


def read_deeph(folder: Path, unit: EnergyUnit = HARTREE) -> Matrices:
    """Read a folder.

    Args:
        folder: of the layout above; a folder without Hamiltonian gives ``hamiltonian = None``.
        unit: of the result; ``DEEPH_EV`` keeps the file's own numbers.

    Raises:
        FormatError: one of its leaves, with the file and the reason.
    """
    where = str(folder / "info.json")
    info = read_json(folder / "info.json")
    numbers, positions, cell = read_poscar(folder / "POSCAR")
    space = _space(info, numbers, where)
    spinful = flag(info, "spinful", where)
    files = {
        "hamiltonian": folder / (HAMILTONIAN if (folder / HAMILTONIAN).is_file() else PREDICTED),
        "overlap": folder / OVERLAP,
        "density": folder / DENSITY,
    }
    listed = {name: _read_listed(path) for name, path in files.items() if path.is_file()}
    if not listed:
        raise MissingFileError(f"{folder} has none of {HAMILTONIAN}, {OVERLAP} and {DENSITY}.")
    structure = structure_of(numbers, positions, cell, np.concatenate([keys[:, 2:] for keys, _, _ in listed.values()]))
    made: dict[str, BlockSet] = {}
    notes = []
    for name, (keys, shapes, entries) in listed.items():
        spin: Spin = "spinor" if spinful and name != "overlap" else "restricted"
        blocks = _cut(entries, shapes, spin, str(files[name]))
        made[name], filled = blocks_of_pairs(space, structure, keys, blocks, spin, str(files[name]))
        if filled:
            notes.append(f"{filled} blocks of {files[name].name} were made from their reverse pair")
    if files["hamiltonian"].name == PREDICTED and "hamiltonian" in made:
        notes.append(f"the Hamiltonian is a prediction ({PREDICTED})")
    if "overlap" not in made and not flag(info, "orthogonal_basis", where):
        notes.append("no overlap, although the basis is not called orthogonal")
    return Matrices(
        structure,
        made.get("hamiltonian"),
        made.get("overlap"),
        made.get("density"),
        number(info, "fermi_energy_eV", where),
        number(info, "occupation", where),
        "DeepH folder",
        DEEPH_EV,
        tuple(notes),
    ).in_unit(unit)


def write_deeph(matrices: Matrices, folder: Path) -> None:
    """Write a new folder; atoms are grouped by element, all files list the same pairs.

    Raises:
        UnsupportedContentError: two collinear spins, which the layout has no place for, or a folder that is there already.
    """
    refuse_collinear(matrices)
    matrices = grouped_by_element(matrices).in_order("e3nn").in_unit(DEEPH_EV)
    fresh_folder(folder)
    structure, space = matrices.structure, matrices.space
    write_poscar(structure, folder / "POSCAR")
    stored = matrices.stored
    pairs = union_of_pairs(structure, list(stored.values()))
    names = {"hamiltonian": HAMILTONIAN, "overlap": OVERLAP, "density": DENSITY}
    for name, blocks in stored.items():
        same = np.array_equal(blocks.pairs.keys, pairs.keys)
        _write_listed(blocks if same else blocks.on_pairs(pairs), folder / names[name])
    info: dict[str, Any] = {
        "atoms_quantity": len(structure),
        "orbits_quantity": space.count_orbitals(structure.numbers),
        "orthogonal_basis": False,
        "spinful": matrices.spin == "spinor",
        "fermi_energy_eV": matrices.fermi_energy,
        "elements_orbital_map": {
            SYMBOLS[z]: list(space.shells_of(z)) for z in dict.fromkeys(structure.numbers.tolist())
        },
    }
    if matrices.n_electrons is not None:
        electrons = matrices.n_electrons
        info["occupation"] = int(electrons) if electrons == int(electrons) else electrons
    (folder / "info.json").write_text(json.dumps(info) + "\n")


def _space(info: dict[str, Any], numbers: NDArray[np.int64], where: str) -> OrbitalSpace:
    table = info.get("elements_orbital_map")
    if not isinstance(table, dict) or not table:
        raise DamagedFileError(f"{where} has no elements_orbital_map; expected shells such as {{'Mo': [0, 0, 1, 2]}}.")
    shells = {}
    for symbol, angs in table.items():
        if symbol not in SYMBOLS[1:] or not isinstance(angs, list) or not angs:
            raise DamagedFileError(f"{where}: elements_orbital_map names {str(symbol)[:12]!r}: {str(angs)[:40]}.")
        if any(isinstance(ang, bool) or not isinstance(ang, int) or not 0 <= ang <= 9 for ang in angs):
            raise DamagedFileError(f"{where}: shells of {symbol} are {str(angs)[:60]}; expected l from 0 to 9.")
        shells[SYMBOLS.index(symbol)] = tuple(angs)
    missing = sorted({SYMBOLS[z] for z in numbers.tolist() if z not in shells})
    if missing:
        raise OrbitalsDoNotFitError(f"{where}: elements_orbital_map lacks {', '.join(missing)}, which the POSCAR has.")
    space = OrbitalSpace("as the folder says", shells, order="e3nn")
    expected = {"atoms_quantity": len(numbers), "orbits_quantity": space.count_orbitals(numbers)}
    for key, count in expected.items():
        if key in info and info[key] != count:
            raise OrbitalsDoNotFitError(
                f"{where}: {key} is {str(info[key])[:20]}, but POSCAR and elements_orbital_map make it {count}."
            )
    return space


def _read_listed(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """Keys (i, j, R) (pair, 5), shapes (pair, 2) and flat entries of one file, checked against each other."""
    where = str(path)
    with open_hdf5(path) as file:
        listed = read_array(file, "atom_pairs", "iu", 2, where).astype(np.int64)
        boundaries = read_array(file, "chunk_boundaries", "iu", 1, where).astype(np.int64)
        shapes = read_array(file, "chunk_shapes", "iu", 2, where).astype(np.int64)
        entries = read_array(file, "entries", "fc", 1, where)
    n_pairs = len(listed)
    if (
        listed.shape != (n_pairs, 5)
        or shapes.shape != (n_pairs, 2)
        or boundaries.shape != (n_pairs + 1,)
        or not n_pairs
    ):
        raise DamagedFileError(
            f"{where}: atom_pairs {listed.shape}, chunk_shapes {shapes.shape} and chunk_boundaries {boundaries.shape} do not "
            "belong together; expected (N, 5), (N, 2) and (N + 1,)."
        )
    if shapes.min() < 1 or boundaries[0] != 0 or boundaries[-1] != len(entries):
        raise DamagedFileError(f"{where}: chunk_boundaries do not run from 0 to the {len(entries)} entries.")
    if not np.array_equal(np.diff(boundaries), shapes.prod(axis=1)):
        raise DamagedFileError(f"{where}: chunk_boundaries and chunk_shapes disagree.")
    return listed[:, [3, 4, 0, 1, 2]], shapes, entries


def _cut(entries: NDArray[Any], shapes: NDArray[np.int64], spin: Spin, where: str) -> list[Values]:
    """Blocks (spin part, row, column) of flat entries."""
    if spin != "spinor" and entries.dtype.kind == "c":
        raise DamagedFileError(f"{where} is complex, but info.json does not say spinful.", hint='Set "spinful": true.')
    wide = entries.astype(np.complex128 if spin == "spinor" else np.float64, copy=False)
    blocks: list[Values] = []
    start = 0
    for rows, columns in shapes.tolist():
        block = wide[start : start + rows * columns].reshape(rows, columns)
        start += rows * columns
        blocks.append(spinor_parts(block, where) if spin == "spinor" else block[None])
    return blocks


def spinor_parts(block: Values, where: str) -> Values:
    """(2 n, 2 m) with spin outermost -> (4, n, m): uu, ud, du, dd.

    Raises:
        OrbitalsDoNotFitError: an odd number of rows or columns.
    """
    rows, columns = block.shape
    if rows % 2 or columns % 2:
        raise OrbitalsDoNotFitError(
            f"{where}: a spinor block is {rows} x {columns}; expected twice the orbitals each way."
        )
    return block.reshape(2, rows // 2, 2, columns // 2).transpose(0, 2, 1, 3).reshape(4, rows // 2, columns // 2)


def refuse_collinear(matrices: Matrices) -> None:
    """Refuse to write two collinear spins, which neither of DeepH's layouts has a place for.

    Raises:
        UnsupportedContentError: there are two.
    """
    if matrices.spin == "unrestricted":
        raise UnsupportedContentError(
            "DeepH's folders hold one matrix or spinors, not two collinear spins.",
            hint="Write the abacus or siesta format, which have a place for them.",
        )


def joined_spinor(parts: Values) -> Values:
    """Inverse of :func:`spinor_parts`."""
    _, rows, columns = parts.shape
    return parts.reshape(2, 2, rows, columns).transpose(0, 2, 1, 3).reshape(2 * rows, 2 * columns)


def _write_listed(blocks: BlockSet, path: Path) -> None:
    pairs = blocks.pairs
    order = np.lexsort(np.column_stack([pairs.first, pairs.second, pairs.shift])[:, [1, 0, 4, 3, 2]].T)
    made = [joined_spinor(blocks.block(k)) if blocks.spin == "spinor" else blocks.block(k)[0] for k in order.tolist()]
    shapes = np.array([block.shape for block in made], dtype=np.int64)
    with h5py.File(path, "w") as file:
        file["atom_pairs"] = np.column_stack([pairs.shift, pairs.first, pairs.second])[order]
        file["chunk_shapes"] = shapes
        file["chunk_boundaries"] = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))]).astype(np.int64)
        file["entries"] = np.concatenate([block.ravel() for block in made])
