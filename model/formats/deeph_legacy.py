"""DeepH's legacy folder (DeepH-pack before 2025, DeepH-E3): text files, and one HDF5 dataset for each block.

    lat.dat               3 x 3, columns are lattice vectors, Å          rlat.dat   2 pi times the inverse, columns
    site_positions.dat    3 x atoms, columns are atoms, Cartesian, Å     element.dat   atomic numbers, one a line
    orbital_types.dat     a line an atom: l of each shell, "0 0 1 1 2"
    info.json             isspinful; fermi_level (eV), nsites, norbits, isorthogonal may be there
    hamiltonians.h5       dataset "[R1, R2, R3, i, j]" with i, j 1-based: rows are orbitals of i at home, columns of j in
                          cell R; eV; complex (2 rows, 2 columns) = [[uu, ud], [du, dd]] if spinful
    overlaps.h5, density_matrixs.h5 (also density_matrices.h5)   likewise; overlaps are real, without spin

Orbitals are in OpenMX's order. Layout: mzjb/DeepH-pack and Xiaoxun-Gong/DeepH-E3; verified on DeepH-dock's MoTe2.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet, Spin, Values
from model.errors import DamagedFileError, MissingFileError, UnsupportedContentError
from model.formats.deeph import joined_spinor, refuse_collinear, spinor_parts
from model.formats.folders import fresh_folder
from model.formats.hdf5 import open_hdf5, read_array
from model.formats.matrices import Matrices, Outline
from model.formats.rearrange import blocks_of_pairs, shells_per_element, structure_of
from model.formats.text import flag, number, read_json, read_numbers, read_text
from model.formats.units import DEEPH_EV, HARTREE, EnergyUnit
from model.orbitals.space import OrbitalSpace

FILES: Final = {
    "hamiltonian": ("hamiltonians.h5", "hamiltonians_pred.h5"),
    "overlap": ("overlaps.h5",),
    "density": ("density_matrixs.h5", "density_matrices.h5"),
}
"""Names that occur in the field, the usual one first."""
KEY: Final = re.compile(r"\[ *(-?\d{1,6}), *(-?\d{1,6}), *(-?\d{1,6}), *(\d{1,7}), *(\d{1,7}) *\]")


def is_deeph_legacy(path: Path) -> bool:
    """Whether a folder is of this layout."""
    return all((path / name).is_file() for name in ("lat.dat", "element.dat", "orbital_types.dat"))


def outline_deeph_legacy(folder: Path) -> Outline:
    """Atoms and orbitals of a folder, from its text files.

    Raises:
        FormatError: one of its leaves.
    """
    numbers = _numbers(folder / "element.dat")
    spinful = flag(read_json(folder / "info.json"), "isspinful", str(folder / "info.json"))
    has = any((folder / name).is_file() for name in FILES["hamiltonian"])
    return Outline(numbers, _space(folder / "orbital_types.dat", numbers), "spinor" if spinful else "restricted", has)


def read_deeph_legacy(folder: Path, unit: EnergyUnit = HARTREE) -> Matrices:
    """Read a folder.

    Args:
        folder: of the layout above; a folder without Hamiltonian gives ``hamiltonian = None``.
        unit: of the result; ``DEEPH_EV`` keeps the file's own numbers.

    Raises:
        FormatError: one of its leaves, with the file and the reason.
    """
    where = str(folder / "info.json")
    info = read_json(folder / "info.json")
    numbers = _numbers(folder / "element.dat")
    cell = _table(folder / "lat.dat", (3, 3)).T.copy()
    positions = _table(folder / "site_positions.dat", (3, len(numbers))).T.copy()
    space = _space(folder / "orbital_types.dat", numbers)
    if "nsites" in info and info["nsites"] != len(numbers):
        raise DamagedFileError(f"{where}: nsites is {str(info['nsites'])[:20]}, element.dat has {len(numbers)} atoms.")
    spinful = flag(info, "isspinful", where)
    paths = {
        name: next((folder / one for one in names if (folder / one).is_file()), None) for name, names in FILES.items()
    }
    listed = {
        name: _read_listed(path, spinful and name != "overlap") for name, path in paths.items() if path is not None
    }
    if not listed:
        raise MissingFileError(f"{folder} has none of {', '.join(names[0] for names in FILES.values())}.")
    structure = structure_of(numbers, positions, cell, np.concatenate([keys[:, 2:] for keys, _ in listed.values()]))
    made: dict[str, BlockSet] = {}
    notes = []
    for name, (keys, blocks) in listed.items():
        spin: Spin = "spinor" if spinful and name != "overlap" else "restricted"
        made[name], filled = blocks_of_pairs(space, structure, keys, blocks, spin, str(paths[name]))
        if filled:
            notes.append(f"{filled} blocks of the {name} were made from their reverse pair")
    return Matrices(
        structure,
        made.get("hamiltonian"),
        made.get("overlap"),
        made.get("density"),
        number(info, "fermi_level", where),
        None,
        "DeepH legacy folder",
        DEEPH_EV,
        tuple(notes),
    ).in_unit(unit)


def write_deeph_legacy(matrices: Matrices, folder: Path) -> None:
    """Write a new folder; atoms stay in their sequence. The electron count has no place in it.

    Raises:
        UnsupportedContentError: two collinear spins, no cell, or a folder that is there already.
    """
    refuse_collinear(matrices)
    matrices = matrices.in_order("openmx").in_unit(DEEPH_EV)
    structure = matrices.structure
    if structure.cell_angstrom is None:
        raise UnsupportedContentError("A structure without a cell has no lat.dat.", hint="Write the deeph format.")
    fresh_folder(folder)
    cell = structure.cell_angstrom
    _write_table(folder / "lat.dat", cell.T)
    _write_table(folder / "rlat.dat", np.asarray(2 * np.pi * np.linalg.inv(cell), dtype=np.float64))
    _write_table(folder / "site_positions.dat", structure.positions_angstrom.T)
    (folder / "element.dat").write_text("".join(f"{z}\n" for z in structure.numbers.tolist()))
    shells = [matrices.space.shells_of(z) for z in structure.numbers.tolist()]
    (folder / "orbital_types.dat").write_text("".join("  ".join(map(str, ls)) + "\n" for ls in shells))
    for name, blocks in matrices.stored.items():
        with h5py.File(folder / FILES[name][0], "w") as file:
            for pair, (i, j, *shift) in enumerate(blocks.pairs.keys.tolist()):
                block = blocks.block(pair)
                file[str([*shift, i + 1, j + 1])] = joined_spinor(block) if blocks.spin == "spinor" else block[0]
    info: dict[str, Any] = {
        "nsites": len(structure),
        "isorthogonal": False,
        "isspinful": matrices.spin == "spinor",
        "norbits": matrices.space.count_orbitals(structure.numbers) * (2 if matrices.spin == "spinor" else 1),
    }
    if matrices.fermi_energy is not None:
        info["fermi_level"] = matrices.fermi_energy
    (folder / "info.json").write_text(json.dumps(info) + "\n")


def _numbers(path: Path) -> NDArray[np.int64]:
    values = read_numbers(read_text(path), str(path))
    if not len(values) or (values != values.astype(np.int64)).any():
        raise DamagedFileError(f"{path}: expected one atomic number a line.")
    return values.astype(np.int64)


def _table(path: Path, shape: tuple[int, int]) -> NDArray[np.float64]:
    values = read_numbers(read_text(path), str(path))
    if values.size != shape[0] * shape[1]:
        raise DamagedFileError(f"{path} has {values.size} numbers; expected {shape[0]} x {shape[1]}.")
    return values.reshape(shape)


def _space(path: Path, numbers: NDArray[np.int64]) -> OrbitalSpace:
    rows = [read_numbers(line, str(path)) for line in read_text(path).splitlines() if line.strip()]
    if len(rows) != len(numbers):
        raise DamagedFileError(f"{path} has {len(rows)} lines for {len(numbers)} atoms.")
    if any((row != row.astype(np.int64)).any() or row.min() < 0 or row.max() > 9 for row in rows):
        raise DamagedFileError(f"{path}: expected the l of each shell, 0 to 9.")
    shells = shells_per_element(numbers.tolist(), [row.astype(int).tolist() for row in rows])
    return OrbitalSpace("as the folder says", shells, order="openmx")


def _read_listed(path: Path, spinful: bool) -> tuple[NDArray[np.int64], list[Values]]:
    """Keys (i, j, R) (pair, 5) 0-based, and blocks (spin part, row, column)."""
    keys, blocks = [], []
    with open_hdf5(path) as file:
        for name in file:
            found = KEY.fullmatch(name)
            if found is None:
                raise DamagedFileError(f"{path}: dataset {name[:40]!r} is not named like '[0, 0, 0, 1, 1]'.")
            shift, (i, j) = [int(x) for x in found.groups()[:3]], [int(x) - 1 for x in found.groups()[3:]]
            if min(i, j) < 0:
                raise DamagedFileError(f"{path}: {name} names atom 0; this layout counts from 1.")
            block = read_array(file, name, "fc" if spinful else "f", 2, str(path))
            keys.append([i, j, *shift])
            wide = block.astype(np.complex128 if spinful else np.float64, copy=False)
            blocks.append(spinor_parts(wide, str(path)) if spinful else wide[None])
    if not keys:
        raise DamagedFileError(f"{path} has no blocks.")
    return np.array(keys, dtype=np.int64), blocks


def _write_table(path: Path, table: NDArray[np.float64]) -> None:
    path.write_text("".join(" ".join(repr(float(x)) for x in row) + "\n" for row in table))
