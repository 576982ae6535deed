"""Inputs of ORCA: ``* xyz charge multiplicity`` or ``%coords`` (ORCA 6 manual, "Input of coordinates")."""

from __future__ import annotations

import re
from typing import Final

from model.structure_files.fields import element, ghost, row
from model.structure_files.frame import Frame, Frames, UnreadableError
from model.structure_files.lengths import in_angstrom
from model.structure_files.stated import Stated

_OTHER_COORDINATES: Final = {
    "xyzfile": "it names another file",
    "pdbfile": "it names another file",
    "gzmtfile": "it names another file",
    "gzmt": "Z-matrices are not read",
    "int": "internal coordinates are not read",
    "internal": "internal coordinates are not read",
}
_HINT: Final = "Write '* xyz charge multiplicity', a line 'symbol x y z' for each atom, and '*'."
Lines = list[tuple[int, str]]


def read_orca(text: str, max_frames: int) -> Frames:
    """Read the first structure of an input; later jobs of it go on from there.

    Raises:
        UnreadableError: none, or one that cannot be read.
    """
    lines = [
        (number, re.sub(r"#[^#]*(#|$)", " ", line).strip()) for number, line in enumerate(text.split("\n"), start=1)
    ]
    bohr = any(line.startswith("!") and re.search(r"\bbohrs?\b", line, re.IGNORECASE) for _, line in lines)
    for index, (number, line) in enumerate(lines):
        lower = line.lower()
        if lower.startswith("*") and len(lower) > 1:
            return [_star(number, lower[1:].split(), lines[index + 1 :], bohr)]
        if re.match(r"%\s*coords\b", lower):
            return [_coords(lines[index + 1 :], bohr)]
    raise UnreadableError("There are no coordinates.", hint=_HINT)


def _star(number: int, head: list[str], rest: Lines, bohr: bool) -> Frame:
    _refuse_others(head[0], number)
    if len(head) < 3:
        raise UnreadableError("no charge and multiplicity.", line=number, hint=_HINT)
    stated = Stated(number)
    stated.say_charge(head[1])
    stated.say_multiplicity(head[2])
    rows: Lines = []
    for line, text in rest:
        if text.startswith("*"):
            return _frame(rows, stated, bohr)
        rows.append((line, text))
    raise UnreadableError("the coordinates have no end.", line=number, hint=_HINT)


def _coords(rest: Lines, bohr: bool) -> Frame:
    stated = Stated()
    rows: Lines = []
    inside = False
    for line, text in rest:
        fields = re.split(r"[\s=]+", text)
        key = fields[0].lower()
        stated.line = line
        if key == "end":
            if inside:
                return _frame(rows, stated, bohr)
            break
        if key == "coords":
            inside = True
        elif inside:
            rows.append((line, text))
        elif key == "ctyp" and len(fields) > 1:
            _refuse_others(fields[1].lower(), line)
        elif key == "charge" and len(fields) > 1:
            stated.say_charge(fields[1])
        elif key == "mult" and len(fields) > 1:
            stated.say_multiplicity(fields[1])
        elif key == "units" and len(fields) > 1:
            bohr = fields[1].lower().startswith("bohr")
    raise UnreadableError("%coords has no coordinates, or no end.", hint=_HINT)


def _refuse_others(kind: str, line: int) -> None:
    if kind in ("xyz", "cartesian", "cart"):
        return
    reason = _OTHER_COORDINATES.get(kind, "this kind of coordinates is not known")
    raise UnreadableError(f"{reason}.", line=line, hint=_HINT)


def _frame(rows: Lines, stated: Stated, bohr: bool) -> Frame:
    frame = Frame([], [])
    for line, text in rows:
        fields = text.replace("(", " (", 1).split() if "(" in text else text.split()
        if not fields:
            continue
        if fields[0].lower() == "da":
            raise ghost(line)
        coordinates = [field for field in fields[1:] if not field.startswith("(")]
        frame.numbers.append(element(fields[0], line))
        frame.positions.append(row(coordinates, line))
    in_angstrom(frame, "bohr" if bohr else None, certain=True)
    return stated.give(frame)
