"""ABACUS's sparse text files of H(R) and S(R), old and new layout.

    old     STEP: 0                               new     --- Ionic Step 1 ---
            Matrix Dimension of H(R): 26                  # print H matrix in real space H(R)
            Matrix number of H(R): 183                    1 # number of spin directions
            Rx Ry Rz nnz                                  1 # spin index
            values                                        26 # number of localized basis
            columns                                       183 # number of Bravais lattice vector R
            row pointers (n + 1)                          unit cell, then a box of comments with "CSR Format"
            ...                                           Rx Ry Rz nnz
                                                          # CSR values / # CSR column indices / # CSR row pointers

Rydberg; complex values as ``(re,im)``. A block with nnz = 0 has no arrays behind it. Whole matrices, R and -R. Sources:
deepmodeling/abacus-develop, docs/advanced/elec_properties/hs_matrix.md; old files of its own tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import Values
from model.errors import DamagedFileError, UnsupportedContentError
from model.formats.entries import Entries
from model.formats.text import read_text

MAXIMUM_BYTES: Final = 4 * 1024**3
OLD_HEADER: Final = re.compile(r"Matrix Dimension of (\w+)\(R\): *(\d+)")
NEW_LABEL: Final = re.compile(r"in real space (\w+)\(R\)")
MAXIMUM_HEADER_LINES: Final = 100_000
"""A new file lists its atoms before the matrices."""
COMPLEX: Final = re.compile(r"\(([^(),]+),([^(),]+)\)")


@dataclass(frozen=True, eq=False)
class CsrFile:
    """One file.

    Attributes:
        label: ``H``, ``S`` or ``DM``, as the file calls its matrix.
        dimension: rows of each matrix; with spin where the matrix has it.
        entries: one spin part: the whole matrix, spin not taken apart.
        labels, counts: species and their atoms as a new file states them; empty in an old one.
        folded: whether the file says that all cells were summed into R = 0 (a gamma-only run).
    """

    label: str
    dimension: int
    entries: Entries
    labels: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    folded: bool = False


def read_csr(path: Path) -> CsrFile:
    """Read a file of either layout.

    Raises:
        MissingFileError, DamagedFileError: not there, another kind of file, or counts that do not fit.
        UnsupportedContentError: more than one ionic step.
    """
    where = str(path)
    lines = read_text(path, MAXIMUM_BYTES).splitlines()
    label, dimension, n_cells, start = _header(lines, where)
    labels, counts = _stated_atoms(lines[:start])
    reader = _Lines(lines, start, where)
    cells: list[list[int]] = []
    rows, columns, values, cell = [], [], [], []
    for index in range(n_cells):
        *shift, stored = reader.integers(4, "Rx Ry Rz nnz").tolist()
        cells.append(shift)
        if stored == 0 and not reader.at_comment():
            continue
        if not 0 <= stored <= dimension**2:
            raise DamagedFileError(f"{where}: R = {shift} states {stored} values for a matrix of {dimension} rows.")
        values.append(reader.values(stored))
        columns.append(reader.integers(stored, "column indices"))
        pointer = reader.integers(dimension + 1, "row pointers")
        if pointer[0] != 0 or pointer[-1] != stored or (np.diff(pointer) < 0).any():
            raise DamagedFileError(f"{where}: the row pointers of R = {shift} do not run from 0 to {stored}.")
        rows.append(np.repeat(np.arange(dimension), np.diff(pointer)))
        cell.append(np.full(stored, index))
    if not reader.at_end():
        raise UnsupportedContentError(
            f"{where} goes on behind its {n_cells} matrices.", hint="Is it of several ionic steps? Keep one of them."
        )
    if not values:
        raise DamagedFileError(f"{where} has no entries.")
    entries = Entries(
        np.concatenate(rows),
        np.concatenate(columns),
        np.concatenate(cell),
        np.array(cells, dtype=np.int64).reshape(-1, 3),
        np.concatenate(values)[None],
    )
    return CsrFile(
        label, dimension, entries, labels, counts, any("gamma-only folded" in line for line in lines[:start])
    )


def write_csr(
    path: Path, label: str, dimension: int, entries: Entries, unit_cell: str | None, spin: tuple[int, int] = (1, 1)
) -> None:
    """Write a file with all digits; exact zeros are left out, as ABACUS does with what is below 1e-10.

    Args:
        path: new file.
        label: ``H`` or ``S``.
        dimension: rows of each matrix.
        entries: of one spin part, sorted by cell, row and column.
        unit_cell: lines of the new layout's unit cell; None for the old layout.
        spin: number of spin directions, and which of them this is, from 1.
    """
    values = entries.values[0]
    kept = np.flatnonzero(values)
    starts = np.searchsorted(entries.cell[kept], np.arange(len(entries.cells) + 1))
    with path.open("w") as file:
        if unit_cell is None:
            file.write(f"STEP: 0\nMatrix Dimension of {label}(R): {dimension}\n")
            file.write(f"Matrix number of {label}(R): {len(entries.cells)}\n")
        else:
            file.write(f" --- Ionic Step 1 ---\n # print {label} matrix in real space {label}(R)\n")
            file.write(f" {spin[0]} # number of spin directions\n {spin[1]} # spin index\n")
            file.write(f" {dimension} # number of localized basis\n")
            file.write(f" {len(entries.cells)} # number of Bravais lattice vector R\n\n{unit_cell}\n")
            file.write(f" #{'-' * 30}#\n #{'CSR Format':^30}#\n #{'-' * 30}#\n\n")
        for index, shift in enumerate(entries.cells.tolist()):
            own = kept[starts[index] : starts[index + 1]]
            _write_cell(
                file, shift, entries.rows[own], entries.columns[own], values[own], dimension, unit_cell is not None
            )


def _write_cell(
    file: TextIO,
    shift: list[int],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    values: Values,
    dimension: int,
    titled: bool,
) -> None:
    file.write(" ".join(map(str, [*shift, len(values)])) + "\n")
    if not len(values):
        return
    if values.dtype.kind == "c":
        text = " ".join(f"({value.real:.17g},{value.imag:.17g})" for value in values.tolist())
    else:
        text = " ".join(f"{value:.17g}" for value in values.tolist())
    pointer = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=dimension))])
    titles = ("CSR values", "CSR column indices", "CSR row pointers")
    for title, line in zip(titles, (text, " ".join(map(str, columns)), " ".join(map(str, pointer))), strict=True):
        file.write((f" # {title}\n" if titled else "") + f" {line}\n")


class _Lines:
    """Numbers of a file, line by line; blank lines are skipped, and comments with them."""

    def __init__(self, lines: list[str], start: int, where: str) -> None:
        self._lines, self._next, self._where = lines, start, where

    def at_comment(self) -> bool:
        """Whether the next line that is not blank is a comment: the arrays of an empty block follow."""
        self._skip_blank()
        return self._next < len(self._lines) and self._lines[self._next].lstrip().startswith("#")

    def at_end(self) -> bool:
        self._skip_blank()
        return self._next >= len(self._lines)

    def integers(self, count: int, what: str) -> NDArray[np.int64]:
        tokens = self._tokens(count, what, str.split)
        try:
            return np.array(tokens, dtype=np.int64)
        except (ValueError, OverflowError) as error:
            raise self._damaged(f"{what}: {error}") from error

    def values(self, count: int) -> Values:
        """Real numbers, or complex ones written as (re,im)."""
        if count == 0:
            return np.empty(0)
        self._skip(comments=True)
        is_complex = self._next < len(self._lines) and "(" in self._lines[self._next]
        found = self._tokens(count, "values", COMPLEX.findall if is_complex else str.split)
        try:
            numbers = np.array(found, dtype=np.float64)
        except ValueError as error:
            raise self._damaged(f"values: {error}") from error
        if not np.isfinite(numbers).all():
            raise self._damaged("a value is not a finite number")
        return numbers[:, 0] + 1j * numbers[:, 1] if is_complex else numbers

    def _tokens(self, count: int, what: str, split: Callable[[str], list[Any]]) -> list[Any]:
        tokens: list[Any] = []
        while len(tokens) < count:
            self._skip(comments=True)
            if self._next >= len(self._lines):
                raise self._damaged(f"the file ends within {what}: {len(tokens)} of {count}")
            tokens += split(self._lines[self._next])
            self._next += 1
        if len(tokens) != count:
            raise self._damaged(f"{what}: {len(tokens)} came, {count} belong there")
        return tokens

    def _skip_blank(self) -> None:
        self._skip(comments=False)

    def _skip(self, *, comments: bool) -> None:
        while self._next < len(self._lines):
            line = self._lines[self._next].lstrip()
            if line and not (comments and line.startswith("#")):
                return
            self._next += 1

    def _damaged(self, reason: str) -> DamagedFileError:
        return DamagedFileError(f"{self._where}, line {min(self._next + 1, len(self._lines))}: {reason}.")


def _header(lines: list[str], where: str) -> tuple[str, int, int, int]:
    """Label, rows, number of cells, and the line where the matrices begin."""
    for index, line in enumerate(lines[:5]):
        found = OLD_HEADER.search(line)
        if found is not None and index + 1 < len(lines):
            n_cells = re.search(r"Matrix number of \w+\(R\): *(\d+)", lines[index + 1])
            if n_cells is not None:
                return found[1], int(found[2]), int(n_cells[1]), index + 2
    label, counts = None, {}
    for index, line in enumerate(lines[:MAXIMUM_HEADER_LINES]):
        found = NEW_LABEL.search(line)
        label = found[1] if found else label
        for key in ("number of localized basis", "number of Bravais lattice vector"):
            if key in line and line.split()[0].isdigit():
                counts[key] = int(line.split()[0])
        if "csr format" in line.lower() and label is not None and len(counts) == 2:
            start = index
            while start < len(lines) and (not lines[start].strip() or lines[start].lstrip().startswith("#")):
                start += 1
            return label, counts["number of localized basis"], counts["number of Bravais lattice vector"], start
    raise DamagedFileError(
        f"{where} does not begin like a sparse matrix file of ABACUS.",
        hint="Expected 'Matrix Dimension of H(R): n' (old) or '# number of localized basis' and 'CSR Format' (new).",
    )


def _stated_atoms(header: list[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Species and their atoms from the unit cell of a new file: the two lines before ``Direct``."""
    for index, line in enumerate(header):
        if line.strip() == "Direct" and index >= 2:
            counts = header[index - 1].split()
            if all(count.isdigit() for count in counts):
                return tuple(header[index - 2].split()), tuple(int(count) for count in counts)
    return (), ()
