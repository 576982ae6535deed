"""Tripos mol2: atoms, and the charge that formal or partial charges sum to."""

from __future__ import annotations

import re
from typing import Final

from model.structure_files.fields import element, is_element, real, row
from model.structure_files.frame import Frame, Frames, ManyFramesError, UnreadableError
from model.structure_files.stated import Stated

_NO_ELEMENTS: Final = frozenset({"du", "lp", "any", "hal", "het", "hev"})
Lines = list[tuple[int, str]]


def read_mol2(text: str, max_frames: int) -> Frames:
    """Read all molecules; one that cannot be read is an error in its place.

    Raises:
        ManyFramesError: more than ``max_frames``.
        UnreadableError: no molecule.
    """
    molecules: list[dict[str, Lines]] = []
    section: Lines = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.startswith("@<TRIPOS>"):
            name = line[len("@<TRIPOS>") :].strip().upper()
            section = []
            if name == "MOLECULE":
                molecules.append({})
            if molecules:
                molecules[-1][name] = section
        elif line.strip() and not line.startswith("#"):
            section.append((number, line))
    if not molecules:
        raise UnreadableError("There is no @<TRIPOS>MOLECULE.")
    if len(molecules) > max_frames:
        raise ManyFramesError
    frames: Frames = []
    for sections in molecules:
        try:
            frames.append(_molecule(sections))
        except UnreadableError as error:
            error.frame = len(frames) + 1 if len(molecules) > 1 else None
            frames.append(error)
    return frames


def _molecule(sections: dict[str, Lines]) -> Frame:
    frame = Frame([], [])
    charges = []
    for number, line in sections.get("ATOM", []):
        fields = line.split()
        if len(fields) < 6:
            raise UnreadableError("not 'id name x y z type'.", line=number)
        kind = fields[5].split(".", 1)[0]
        if kind.lower() in _NO_ELEMENTS or not is_element(kind):
            raise UnreadableError(
                "an atom type that is no element's.", line=number, hint="Types are SYBYL's: C.3, O.2, H."
            )
        frame.numbers.append(element(kind, number))
        frame.positions.append(row(fields[2:5], number))
        charges.append(real(fields[8], number) if len(fields) > 8 else 0.0)
    stated = Stated()
    formal = [
        int(line.split()[1])
        for _, line in sections.get("UNITY_ATOM_ATTR", [])
        if re.fullmatch(r"charge\s+[+-]?\d+", line.strip(), re.IGNORECASE)
    ]
    if formal:
        stated.say_charge(sum(formal))
    elif (note := stated.say_atoms(charges)) is not None:
        frame.notes.append(note)
    if crystal := sections.get("CRYSIN"):
        from ase.geometry import cellpar_to_cell

        number, line = crystal[0]
        frame.cell = cellpar_to_cell([real(value, number) for value in line.split()[:6]]).tolist()
        frame.pbc = (True, True, True)
    return stated.give(frame)
