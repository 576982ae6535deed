"""TURBOMOLE's coord files, as xtb, CREST and Avogadro write them too: units, periodicity, charge.

``$coord`` is in bohr unless it says ``angs`` (``ang``, ``angstrom``) or ``frac``; ``$periodic N`` with ``$cell`` or
``$lattice`` makes a crystal of it; ``$eht``, ``$chrg``, ``$uhf`` and their like state charge and unpaired electrons.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from model.structure_files.fields import element, real, row
from model.structure_files.frame import Frame, Frames, Row, UnreadableError
from model.structure_files.stated import Stated
from model.units import ANGSTROM_PER_BOHR

_ANGSTROM: Final = frozenset({"ang", "angs", "angst", "angstrom", "angstroms"})
_CHARGES: Final = frozenset({"$chrg", "$charge"})
_UNPAIRED: Final = frozenset({"$uhf", "$spin"})
Section = tuple[int, list[str], list[tuple[int, list[str]]]]
"""Line of its head, words of the head, and its lines."""


def read_turbomole(text: str, max_frames: int) -> Frames:
    """Read the structure of a coord file.

    Raises:
        UnreadableError: no ``$coord``, or lines that cannot be read.
    """
    sections = _sections(text)
    coord = next((section for section in sections if section[1][0] == "$coord"), None)
    if coord is None:
        raise UnreadableError("There is no $coord.", hint="A coord file has a group '$coord' of lines 'x y z symbol'.")
    numbers, positions = [], []
    for number, fields in coord[2]:
        if len(fields) < 4:
            raise UnreadableError("not 'x y z symbol'.", line=number)
        positions.append(row(fields, number))
        numbers.append(element(fields[3], number))
    cell, periodic = _lattice(sections)
    words = set(coord[1][1:])
    if words & _ANGSTROM:
        scale = np.eye(3)
    elif any(word.startswith("frac") for word in words):
        if cell is None or periodic != 3:
            raise UnreadableError(
                "fractional coordinates without three lattice vectors.",
                line=coord[0],
                hint="Write Cartesian coordinates, or $periodic 3 with $cell or $lattice.",
            )
        scale = np.array(cell)
    else:
        scale = ANGSTROM_PER_BOHR * np.eye(3)
    stated = Stated()
    for line, head, body in sections:
        stated.line = line
        values = [*head[1:], *(field for _, fields in body for field in fields)]
        if head[0] in _CHARGES and values:
            stated.say_charge(values[0])
        elif head[0] in _UNPAIRED and values:
            stated.say_multiplicity(int(real(values[0], line)) + 1)
        elif head[0] == "$eht":
            stated.say_text(" ".join(values))
    positions = (np.array(positions).reshape(-1, 3) @ scale).tolist()
    return [stated.give(Frame(numbers, positions, cell, (periodic > 0, periodic > 1, periodic > 2)))]


def _sections(text: str) -> list[Section]:
    sections: list[Section] = []
    for number, line in enumerate(text.split("\n"), start=1):
        words = re.sub(r"#.*", "", line).lower().split()
        if words and words[0].startswith("$"):
            sections.append((number, words, []))
        elif words and sections:
            sections[-1][2].append((number, words))
    return sections


def _lattice(sections: list[Section]) -> tuple[list[Row] | None, int]:
    """Lattice vectors in Å, zero where it is not periodic, and the number of periodic directions."""
    periodic, vectors = 0, None
    for line, head, body in sections:
        unit = 1.0 if set(head[1:]) & _ANGSTROM else ANGSTROM_PER_BOHR
        if head[0] == "$periodic":
            periodic = int(real(head[1], line)) if len(head) > 1 else 3
        elif head[0] == "$lattice":
            vectors = np.zeros((3, 3))
            for index, (number, fields) in enumerate(body[:3]):
                values = [real(field, number) * unit for field in fields[:3]]
                vectors[index, : len(values)] = values
        elif head[0] == "$cell" and body:
            from ase.geometry import cellpar_to_cell

            number, fields = body[0]
            values = [real(field, number) for field in fields]
            if len(values) >= 6:
                vectors = cellpar_to_cell([*(unit * value for value in values[:3]), *values[3:6]])
            elif len(values) == 3:  # two directions and their angle
                vectors = cellpar_to_cell([unit * values[0], unit * values[1], 1.0, 90.0, 90.0, values[2]])
                vectors[2] = 0.0
            elif len(values) == 1:
                vectors = np.diag([unit * values[0], 0.0, 0.0])
    if vectors is not None and periodic == 0:
        periodic = int((np.linalg.norm(vectors, axis=1) > 0).sum())
    return (None if vectors is None else vectors.tolist()), periodic
