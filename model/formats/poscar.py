"""POSCAR (VASP 5): cell and atoms grouped by element; the structure file of DeepH's folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import DamagedFileError
from model.formats.text import read_numbers, read_text
from model.structure import SYMBOLS, Structure


def read_poscar(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Atomic numbers (atom,), positions (atom, 3) in Å and cell (3, 3) in Å with lattice vectors as rows.

    Raises:
        MissingFileError, DamagedFileError: not there, or not a POSCAR with element symbols.
    """
    lines = read_text(path).splitlines()
    if len(lines) < 8:
        raise DamagedFileError(f"{path} has {len(lines)} lines; a POSCAR has at least 8.")
    scale = read_numbers(lines[1], f"{path}, line 2")
    vectors = [read_numbers(" ".join(line.split()[:3]), f"{path}, cell") for line in lines[2:5]]
    if len(scale) != 1 or scale[0] == 0 or any(len(vector) != 3 for vector in vectors):
        raise DamagedFileError(f"{path}: expected one scale and three lattice vectors on lines 2 to 5.")
    cell = np.array(vectors)
    factor = float(scale[0]) if scale[0] > 0 else float((-scale[0] / abs(np.linalg.det(cell))) ** (1 / 3))
    symbols = lines[5].split()
    unknown = [symbol for symbol in symbols if symbol not in SYMBOLS[1:]]
    if unknown or not symbols:
        raise DamagedFileError(
            f"{path}: line 6 names {unknown[:1] or 'no element'}; expected element symbols.",
            hint="POSCARs of VASP 4 have none: write them on the line before the counts.",
        )
    counts = read_numbers(lines[6], f"{path}, line 7").astype(int).tolist()
    if len(counts) != len(symbols) or min(counts) < 1:
        raise DamagedFileError(f"{path}: {len(symbols)} elements came with the counts {counts}.")
    start = 8 if lines[7].strip()[:1].lower() == "s" else 7
    kind = lines[start].strip()[:1].lower() if start < len(lines) else ""
    if kind not in ("c", "k", "d"):
        raise DamagedFileError(f"{path}: line {start + 1} must say Direct or Cartesian.")
    rows = lines[start + 1 : start + 1 + sum(counts)]
    coordinates = [read_numbers(" ".join(row.split()[:3]), f"{path}, positions") for row in rows]
    if len(rows) < sum(counts) or any(len(row) != 3 for row in coordinates):
        raise DamagedFileError(f"{path}: expected {sum(counts)} rows of three coordinates.")
    numbers = np.repeat([SYMBOLS.index(symbol) for symbol in symbols], counts).astype(np.int64)
    positions = np.array(coordinates)
    if kind == "d":
        return numbers, positions @ (cell * factor), cell * factor
    return numbers, (positions if factor == 1.0 else positions * factor), (cell if factor == 1.0 else cell * factor)


def write_poscar(structure: Structure, path: Path) -> None:
    """Write a structure whose atoms stand grouped by element; positions Cartesian, all digits.

    A structure without a cell gets a box with 10 Å of vacuum; its positions stay.
    """
    cell = structure.cell_angstrom
    if cell is None:
        spread = structure.positions_angstrom.max(axis=0) - structure.positions_angstrom.min(axis=0)
        cell = np.diag(np.ceil(spread) + 10.0)
    symbols = structure.symbols
    elements = list(dict.fromkeys(symbols))
    lines = ["POSCAR", "1.0"]
    lines += ["  " + " ".join(repr(float(x)) for x in row) for row in cell]
    lines += [" ".join(elements), " ".join(str(symbols.count(element)) for element in elements), "Cartesian"]
    lines += ["  " + " ".join(repr(float(x)) for x in row) for row in structure.positions_angstrom]
    path.write_text("\n".join(lines) + "\n")
