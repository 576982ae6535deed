"""xyz and extended xyz, frame by frame: a bad frame is one error, and those after it are read.

Rows are ``symbol x y z`` and more columns, which are ignored; comments may state charge, multiplicity and bohr. Frames that
declare columns (``Properties=``) or a lattice are ASE's to read, after their symbols have been made ones that it knows.
QM9's files (https://doi.org/10.6084/m9.figshare.c.978904) have three lines after each molecule, which are passed over.
"""

from __future__ import annotations

import io
import re
from typing import Any, Final

from model.structure import SYMBOLS
from model.structure_files.fields import element, is_element, is_real, real, row
from model.structure_files.frame import Frame, Frames, ManyFramesError, UnreadableError
from model.structure_files.lengths import in_angstrom, said_unit
from model.structure_files.stated import Stated

_PROPERTIES: Final = re.compile(r"(?<!\w)Properties\s*=\s*[\"']?((?:\w+:[SRILsril]:\d+)(?::\w+:[SRILsril]:\d+)*)")
_LATTICE: Final = re.compile(r"(?<!\w)Lattice\s*=\s*[\"'{\[]", re.IGNORECASE)
_COUNT: Final = re.compile(r"\s*(\d+)\s*(?:(bohrs?|au|a\.u\.|ang|angs|angstroms?)\s*)?", re.IGNORECASE)
_HEADER: Final = (
    "Line 1 is the number of atoms, line 2 a comment; then comes one line 'symbol x y z' for each atom, in Å."
)


def read_xyz(text: str, max_frames: int) -> Frames:
    """Read all frames; a frame that cannot be read is an error in its place.

    Raises:
        ManyFramesError: more than ``max_frames``.
    """
    lines = text.rstrip().split("\n")
    frames: Frames = []
    at = 0
    while True:
        while at < len(lines) and (not lines[at].strip() or lines[at].lstrip().startswith("#")):
            at += 1
        if at >= len(lines):
            return frames
        if len(frames) == max_frames:
            if max_frames == 1 and isinstance(frames[0], UnreadableError):
                return frames  # where such a frame ends is a guess, and its error says more
            raise ManyFramesError
        begin = at
        try:
            frame, at = _frame(lines, at)
            frames.append(frame)
        except UnreadableError as error:
            error.frame = len(frames) + 1
            frames.append(error)
            at = _next_count(lines, max(begin, (error.line or 0) - 1), begin)


def _frame(lines: list[str], at: int) -> tuple[Frame, int]:
    """The frame whose count is at a line, and the line after it."""
    count_line = _COUNT.fullmatch(lines[at])
    if count_line is None:
        what = "an atom" if is_row(_fields(lines[at])) else "no whole number"
        raise UnreadableError(f"{what} where the number of atoms belongs.", line=at + 1, hint=_HEADER)
    count = int(count_line[1])
    comment = lines[at + 1] if at + 1 < len(lines) else ""
    first = at + 2
    if count > max(0, len(lines) - first):
        if count == len(lines) - first + 1 and is_row(_fields(comment)):
            raise UnreadableError("an atom where the comment belongs.", line=at + 2, hint=_HEADER)
        raise UnreadableError(
            f"{count} atoms are announced, and {max(0, len(lines) - first)} lines follow the comment.", line=at + 1
        )
    rows = [_fields(lines[number]) for number in range(first, first + count)]
    end = first + count
    # A comment without a key is no declaration, whatever word it begins with.
    if (properties := _PROPERTIES.search(comment)) is not None or _LATTICE.search(comment):
        return _extended(lines[at + 1], properties and properties[1], rows, first), end
    _refuse_other_columns(rows, first)
    numbers, positions = [], []
    for number, fields in enumerate(rows, start=first + 1):
        if len(fields) == 1 and fields[0].isdigit():
            raise UnreadableError(f"another frame begins before {count} atoms have come.", line=number)
        if len(fields) < 4:
            raise UnreadableError("not 'symbol x y z'.", line=number, hint=_HEADER)
        numbers.append(element(fields[0], number))
        positions.append(row(fields[1:4], number))
    stated = Stated(at + 2)
    frame = Frame(numbers, positions, info=_keys(comment))
    if comment.split()[:1] == ["gdb"]:
        end = _next_count(lines, end, end)
    else:
        stated.say_text(comment)
    in_angstrom(frame, count_line[2] or said_unit(comment), certain=count_line[2] is not None)
    if end < len(lines) and is_row(_fields(lines[end])):
        raise UnreadableError(f"one more atom than the {count} announced in line {at + 1}.", line=end + 1)
    return stated.give(frame), end


def is_row(fields: list[str]) -> bool:
    """Whether they are a symbol and three numbers."""
    return len(fields) >= 4 and is_element(fields[0]) and all(is_real(field) for field in fields[1:4])


def _fields(line: str) -> list[str]:
    """Columns; a comma may follow each."""
    return [field.rstrip(",") for field in line.split()]


def _refuse_other_columns(rows: list[list[str]], first: int) -> None:
    """Refuse rows whose second column is no coordinate, as in inputs of Gaussian and GAMESS, or whose first counts."""
    if not rows or any(len(fields) < 5 for fields in rows):
        return
    seconds = [fields[1] for fields in rows]
    hint = "Leave that column out: lines are 'symbol x y z'."
    if all(is_element(fields[0]) and is_real(fields[1]) for fields in rows) and all(len(f) == 5 for f in rows):
        whole = all(re.fullmatch(r"[+-]?\d+", field) for field in seconds)
        if whole and (len(set(seconds)) == 1 or set(seconds) <= {"0", "-1"}):
            raise UnreadableError(
                "five columns, the second of whole numbers: a code of frozen atoms, or the coordinate x?",
                line=first + 1,
                hint=hint,
            )
        if all(real(fields[1]) == element(fields[0]) for fields in rows):
            raise UnreadableError(
                "five columns, the second of nuclear charges, as in GAMESS.", line=first + 1, hint=hint
            )
    if all(fields[0].isdigit() and not is_real(fields[1]) for fields in rows):
        raise UnreadableError("atoms are counted in the first column, as in Tinker's files.", line=first + 1, hint=hint)


def _extended(comment: str, properties: str | None, rows: list[list[str]], first: int) -> Frame:
    from ase.io import read

    where, n_columns, coordinates = _columns(properties)
    for number, fields in enumerate(rows, start=first + 1):
        if len(fields) < n_columns:
            raise UnreadableError(f"{len(fields)} columns, and the comment declares {n_columns}.", line=number)
        if where is not None:
            fields[where] = SYMBOLS[element(fields[where], number)]
        for column in coordinates:
            fields[column] = repr(real(fields[column], number))
    stated = Stated(first)
    body = "\n".join(" ".join(fields) for fields in rows)
    try:
        (atoms,) = read(io.StringIO(f"{len(rows)}\n{comment}\n{body}\n"), index=":", format="extxyz")
    except MemoryError:
        raise
    except Exception:  # ASE's reader raises whatever it stumbles over
        raise UnreadableError("the comment line or the columns that it declares cannot be read.", line=first) from None
    stated.say_keys(atoms.info)
    frame = from_atoms(atoms, stated)
    frame.info = dict(atoms.info)
    return frame


def _columns(properties: str | None) -> tuple[int | None, int, list[int]]:
    """Column of the species, number of columns, columns of the positions."""
    if properties is None:
        return 0, 4, [1, 2, 3]
    parts = properties.split(":")
    species: int | None = None
    positions: list[int] = []
    column = 0
    for name, size in zip(parts[::3], parts[2::3], strict=True):
        if name.lower() in ("species", "symbols"):
            species = column
        elif name.lower() in ("pos", "positions") and size == "3":
            positions = [column, column + 1, column + 2]
        column += int(size)
    return species, column, positions


def from_atoms(atoms: Any, stated: Stated) -> Frame:
    """The frame of an ``ase.Atoms``; initial charges and magnetic moments of its atoms are statements too."""
    note = stated.say_atoms(
        [float(charge) for charge in atoms.get_initial_charges()] if "initial_charges" in atoms.arrays else (),
        _moments(atoms.arrays.get("initial_magmoms")),
    )
    cell = atoms.cell.array.tolist() if atoms.cell.rank == 3 else None
    frame = Frame(
        [int(number) for number in atoms.numbers],
        atoms.positions.tolist(),
        cell,
        (bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2])),
        notes=[] if note is None else [note],
    )
    return stated.give(frame)


def _moments(values: Any) -> list[float]:
    """Magnetic moments along one axis; vectors say nothing of a multiplicity here."""
    return [] if values is None or values.ndim != 1 else [float(value) for value in values]


def _keys(comment: str) -> dict[str, Any]:
    """Entries ``name=value`` of a comment."""
    if "=" not in comment:
        return {}
    from ase.io.extxyz import key_val_str_to_dict

    try:
        return {str(name): value for name, value in key_val_str_to_dict(comment).items() if value is not True}
    except Exception:  # a comment may hold anything
        return {}


def _next_count(lines: list[str], at: int, begin: int) -> int:
    """The next line after ``begin`` that may be the count of a frame."""
    at = max(at, begin)
    while at < len(lines) and (at == begin or not lines[at].strip().isdigit()):
        at += 1
    return at
