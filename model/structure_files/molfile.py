"""MDL molfiles and SD files, V2000 and V3000 (BIOVIA, CTfile Formats, 2020): atoms, formal charges, radicals.

Bonds are read only to see what the file leaves out: hydrogens without coordinates, and the third dimension.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from model.structure_files.fields import element, row
from model.structure_files.frame import Frame, Frames, ManyFramesError, UnreadableError
from model.structure_files.stated import Stated

SEPARATOR: Final = "$$$$"
_CHARGE_OF_CODE: Final = {"1": 3, "2": 2, "3": 1, "5": -1, "6": -2, "7": -3}
_DOUBLET: Final = "4"
_UNPAIRED: Final = {1: 0, 2: 1, 3: 2}
"""Unpaired electrons by the code of a radical: singlet, doublet, triplet."""

_VALENCES: Final = {
    1: (1,),
    5: (3,),
    6: (4,),
    7: (3, 5),
    8: (2,),
    9: (1,),
    14: (4,),
    15: (3, 5),
    16: (2, 4, 6),
    17: (1,),
}
_AROMATIC: Final = 4
_PLACEHOLDERS: Final = frozenset({"A", "Q", "*", "L", "LP", "R", "X", "M", "Pol", "Mod"})
_DRAWING_HINT: Final = "Generate 3D coordinates, with hydrogens, for example with RDKit or Open Babel."


@dataclass
class _Table:
    """A connection table."""

    numbers: list[int] = field(default_factory=list)
    positions: list[list[float]] = field(default_factory=list)
    charges: dict[int, int] = field(default_factory=dict)
    radicals: dict[int, int] = field(default_factory=dict)
    bonds: list[tuple[int, int, int]] = field(default_factory=list)
    says_charges: bool = False


def read_molfiles(text: str, max_frames: int) -> Frames:
    """Read all records; one that cannot be read is an error in its place.

    Raises:
        ManyFramesError: more than ``max_frames``.
    """
    records: list[tuple[int, list[str]]] = []
    begin = 0
    lines = text.split("\n")
    for number, line in enumerate([*lines, SEPARATOR]):
        if line.startswith(SEPARATOR):
            if any(each.strip() for each in lines[begin:number]):
                records.append((begin, lines[begin:number]))
            begin = number + 1
    if len(records) > max_frames:
        raise ManyFramesError
    frames: Frames = []
    for first, record in records:
        try:
            frames.append(_record(record, first))
        except UnreadableError as error:
            error.frame = len(frames) + 1 if len(records) > 1 else None
            frames.append(error)
    return frames


def _record(lines: list[str], first: int) -> Frame:
    if len(lines) < 4:
        raise UnreadableError("a molfile has three lines of header and one of counts.", line=first + len(lines))
    counts = lines[3]
    v3000 = "V3000" in counts.upper()
    table = _v3000(lines, first) if v3000 else _v2000(lines, first)
    stated = Stated()
    if table.says_charges:
        stated.say_charge(sum(table.charges.values()))
    if unpaired := sum(_UNPAIRED.get(code, 0) for code in table.radicals.values()):
        stated.say_multiplicity(unpaired + 1)
    for name, value in _data(lines):
        stated.say_key(name, value)
    _refuse_drawing(lines[1], table, first)
    frame = Frame(table.numbers, table.positions)
    _hydrogens_left_out(frame, table)
    return stated.give(frame)


def _v2000(lines: list[str], first: int) -> _Table:
    counts = lines[3]
    try:
        n_atoms, n_bonds = int(counts[0:3]), int(counts[3:6] or 0)
    except ValueError:
        raise UnreadableError(
            "no numbers of atoms and bonds, which line 4 of a molfile holds.", line=first + 4
        ) from None
    table = _Table()
    if len(lines) < 4 + n_atoms:
        raise UnreadableError(f"{n_atoms} atoms are announced, and fewer lines follow.", line=first + 4)
    for index, line in enumerate(lines[4 : 4 + n_atoms]):
        number = first + 5 + index
        texts, symbol, code = [line[0:10], line[10:20], line[20:30]], line[31:34], line[36:39].strip()
        if len(fields := line.split()) >= 4 and (
            not symbol.strip() or " " in symbol.strip() or fields[3] != symbol.strip()
        ):
            texts, symbol = fields[:3], fields[3]  # columns that are not where they belong
            code = fields[5] if len(fields) > 5 else ""
        table.positions.append(row(texts, number))
        table.numbers.append(_atom(symbol, number))
        if code in _CHARGE_OF_CODE:
            table.charges[index + 1] = _CHARGE_OF_CODE[code]
            table.says_charges = True
        elif code == _DOUBLET:
            table.radicals[index + 1] = 2
    for line in lines[4 + n_atoms : 4 + n_atoms + n_bonds]:
        columns = [line[begin : begin + 3].strip() for begin in (0, 3, 6)]
        if all(column.isdigit() for column in columns):
            table.bonds.append((int(columns[0]), int(columns[1]), int(columns[2])))
    properties = [line for line in lines[4 + n_atoms + n_bonds :] if line.startswith(("M  CHG", "M  RAD"))]
    if properties:  # they replace all codes of the atom block
        table.charges, table.radicals = {}, {}
    for line in properties:
        values = [int(value) for value in line[9:].split() if re.fullmatch(r"[+-]?\d+", value)]
        for atom, value in zip(values[::2], values[1::2], strict=False):
            (table.charges if line.startswith("M  CHG") else table.radicals)[atom] = value
        table.says_charges |= line.startswith("M  CHG")
    return table


def _v3000(lines: list[str], first: int) -> _Table:
    table = _Table()
    block, held = "", ""
    index_of: dict[str, int] = {}
    for number, line in enumerate(lines[4:], start=first + 5):
        if not line.startswith("M  V30"):
            continue
        content = held + line[6:].strip()
        if content.endswith("-"):
            held = content[:-1] + " "
            continue
        held = ""
        fields = content.split()
        if fields[:1] in (["BEGIN"], ["END"]):
            block = fields[1] if fields[0] == "BEGIN" and len(fields) > 1 else ""
        elif block == "ATOM" and len(fields) >= 5:
            index_of[fields[0]] = len(table.numbers) + 1
            table.numbers.append(_atom(fields[1], number))
            table.positions.append(row(fields[2:5], number))
            for name, value in re.findall(r"\b(CHG|RAD)=([+-]?\d+)", content):
                (table.charges if name == "CHG" else table.radicals)[len(table.numbers)] = int(value)
                table.says_charges |= name == "CHG"
        elif block == "ATOM":
            raise UnreadableError("not 'index symbol x y z'.", line=number)
        elif block == "BOND" and len(fields) >= 4 and fields[1].isdigit():
            ends = [index_of.get(end, 0) for end in fields[2:4]]
            if all(ends):
                table.bonds.append((ends[0], ends[1], int(fields[1])))
    return table


def _atom(symbol: str, line: int) -> int:
    if symbol.strip() in _PLACEHOLDERS or symbol.strip().startswith(("[", "NOT", "R#")):
        raise UnreadableError("an atom of a query or a placeholder.", line=line, hint="Write a real element there.")
    return element(symbol, line)


def _data(lines: list[str]) -> list[tuple[str, str]]:
    """Data items of an SD record: name and first line of value."""
    found = []
    for line, value in pairwise(lines):
        if line.startswith(">") and (name := re.search(r"<([^<>]+)>", line)) is not None:
            found.append((name[1], value))
    return found


def _refuse_drawing(second: str, table: _Table, first: int) -> None:
    """Refuse a drawing: coordinates in a plane that the file itself, or four bonds of an atom, say is none."""
    if len(table.numbers) < 3 and second[20:22] != "2D":
        return
    if any(abs(position[2]) > 1e-6 for position in table.positions):
        return
    degree = [0] * (len(table.numbers) + 1)
    for a, b, _ in table.bonds:
        for end in (a, b):
            if end < len(degree):
                degree[end] += 1
    four = any(degree[index] >= 4 and z in (6, 7, 14) for index, z in enumerate(table.numbers, start=1))
    if second[20:22] == "2D" or four:
        raise UnreadableError("The file holds a 2D drawing.", line=first + 2 if not four else None, hint=_DRAWING_HINT)


def _hydrogens_left_out(frame: Frame, table: _Table) -> None:
    """Hydrogens that the bonds imply and that have no coordinates: refused where there is none at all, else said."""
    if not table.bonds:
        return
    orders = [0.0] * (len(table.numbers) + 1)
    for a, b, order in table.bonds:
        for end in (a, b):
            if end < len(orders):
                orders[end] += 1.5 if order == _AROMATIC else float(order)
    missing = 0
    for index, z in enumerate(table.numbers, start=1):
        if z in _VALENCES and index not in table.radicals:
            charge = table.charges.get(index, 0)
            shift = -abs(charge) if z in (5, 6, 14) and (z != 5 or charge > 0) else charge
            bonds = int(orders[index] + 0.5)
            missing += min((v + shift - bonds for v in _VALENCES[z] if v + shift >= bonds), default=0)
    if missing and 1 not in table.numbers:
        raise UnreadableError(
            f"The file leaves out its hydrogens: its bonds imply {missing}, and none has coordinates.",
            hint="Add hydrogens with coordinates. If there are none, state charges (M  CHG) and bond orders.",
        )
    if missing:
        frame.notes.append(
            f"The bonds of the file imply {missing} more hydrogens than it has coordinates for; check that none is missing."
        )
