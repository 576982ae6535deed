"""Protein Data Bank files (wwPDB, format 3.3): one of the alternate locations; elements from their columns or the names.

A CRYST1 record of a unit cube or of zeros says "no crystal", as the format has it for NMR and EM.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from model.structure import SYMBOLS
from model.structure_files.fields import element, is_element, real
from model.structure_files.frame import Frame, Frames, ManyFramesError, UnreadableError
from model.structure_files.stated import Stated

_LINE_HINT: Final = "Coordinates stand in columns 31-54, the element in columns 77-78."
_ALWAYS_TWO_LETTERS: Final = frozenset({"CL", "BR", "SI", "LI", "NA", "MG", "AL", "ZN", "FE", "MN", "SE"})


@dataclass(frozen=True)
class _Atom:
    """A line ATOM or HETATM."""

    number: int
    position: list[float]
    location: str
    occupancy: float
    charge: str


def read_pdb(text: str, max_frames: int) -> Frames:
    """Read all models; one that cannot be read is an error in its place.

    Raises:
        ManyFramesError: more than ``max_frames``.
    """
    models: list[list[tuple[int, str]]] = [[]]
    cell_line: tuple[int, str] | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        record = line[:6].strip().upper()
        if record in ("MODEL", "ENDMDL", "END"):
            if models[-1]:
                models.append([])
        elif record in ("ATOM", "HETATM"):
            models[-1].append((number, line))
        elif record == "CRYST1":
            cell_line = (number, line)
    models = [model for model in models if model]
    if len(models) > max_frames:
        raise ManyFramesError
    frames: Frames = []
    for model in models:
        try:
            frames.append(_model(model, cell_line))
        except UnreadableError as error:
            error.frame = len(frames) + 1 if len(models) > 1 else None
            frames.append(error)
    return frames


def _model(lines: list[tuple[int, str]], cell_line: tuple[int, str] | None) -> Frame:
    atoms = [_atom(number, line) for number, line in lines]
    notes: list[str] = []
    weights: dict[str, float] = {}
    for atom in atoms:
        if atom.location:
            weights[atom.location] = weights.get(atom.location, 0.0) + atom.occupancy
    if len(weights) > 1:
        chosen = max(weights, key=lambda location: weights[location])  # the first of equals
        atoms = [atom for atom in atoms if atom.location in ("", chosen)]
        notes.append(
            f"Of {len(weights)} alternate locations {chosen if chosen.isalnum() else 'one'} was taken, the most occupied."
        )
    stated = Stated()
    charges = [atom.charge for atom in atoms if atom.charge]
    if charges:
        stated.say_charge(sum(int(text[::-1] if text[-1] in "+-" else text) for text in charges))
    frame = Frame([atom.number for atom in atoms], [atom.position for atom in atoms], notes=notes)
    if cell_line is not None:
        _cell(frame, *cell_line)
    return stated.give(frame)


def _atom(number: int, line: str) -> _Atom:
    line = line.replace("\t", " ")
    try:
        position = [real(line[begin : begin + 8], number) for begin in (30, 38, 46)]
    except UnreadableError as error:
        error.hint = _LINE_HINT
        raise
    occupancy = line[54:60].strip()
    charge = line[78:80].strip()
    return _Atom(
        _element(line, number),
        position,
        line[16:17].strip(),
        real(occupancy, number) if occupancy else 1.0,
        charge if re.fullmatch(r"\d[+-]|[+-]\d|[1-9]", charge) else "",
    )


def _element(line: str, number: int) -> int:
    """From columns 77-78, else from the name: elements of two letters begin in column 13, those of one in column 14."""
    stated = line[76:78].strip()
    if is_element(stated):
        return element(stated)
    name, residue = line[12:16], line[17:20].strip().upper()
    first, second = name[0:1], name[1:2]
    if first in (" ", "") or first.isdigit():
        return element(second, number)
    pair = name[:2].strip().upper()
    label = name.strip().upper()
    two = len(pair) == 2 and pair.isalpha() and pair.capitalize() in SYMBOLS
    if two and (pair in _ALWAYS_TWO_LETTERS or re.fullmatch(pair + r"[0-9+-]*", residue)):
        return element(pair, number)
    if first.upper() == "H" or not two:
        return element(first, number)  # HE21, HG and the like have no room for the blank
    if len(label) == 4:
        return element(first, number)
    raise UnreadableError(
        "the element columns 77-78 are empty, and the atom's name may stand for two elements.",
        line=number,
        hint="Write the element in columns 77-78, right-justified.",
    )


def _cell(frame: Frame, number: int, line: str) -> None:
    from ase.geometry import cellpar_to_cell

    texts = [line[6:15], line[15:24], line[24:33], line[33:40], line[40:47], line[47:54]]
    values = [real(text, number) if text.strip() else 0.0 for text in texts]
    lengths = values[:3]
    if all(length in (0.0, 1.0) for length in lengths) or min(lengths) <= 0.0:
        return
    try:
        frame.cell = cellpar_to_cell(values).tolist()
    except (ValueError, AssertionError, ZeroDivisionError):
        raise UnreadableError("no cell has these lengths and angles.", line=number) from None
    frame.pbc = (True, True, True)
