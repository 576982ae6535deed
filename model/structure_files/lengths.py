"""Units of length where a file says them in words, judged by the distances that would follow."""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from model.geometry import contacts
from model.structure_files.frame import Frame
from model.units import ANGSTROM_PER_BOHR

_BOHR: Final = re.compile(r"(?<![\w/^])(bohrs?|a\.u\.|au|atomic units)(?!\w)", re.IGNORECASE)
_LENGTHS: Final = re.compile(r"(coord|geom|pos|unit|length|distance|xyz|structure)", re.IGNORECASE)


def said_unit(comment: str) -> str | None:
    """The word of a comment that may name bohr as the unit of lengths."""
    found = _BOHR.search(comment)
    if found is None or (found[1].lower()[0] == "a" and not _LENGTHS.search(comment)):
        return None
    return found[1]


def in_angstrom(frame: Frame, unit: str | None, *, certain: bool) -> None:
    """Convert a frame whose file says bohr.

    Args:
        frame: its positions are changed.
        unit: the word for it, or None.
        certain: whether it stands where a unit is declared; a word of a comment may speak of something else, and is followed
            only where atoms are too far apart in Å to be bonded.
    """
    if unit is None or not _BOHR.fullmatch(unit):
        return
    if not certain:
        ratios = contacts(np.array(frame.numbers), np.array(frame.positions))
        if len(ratios) == 0 or float(np.median(ratios)) < 1.4:
            frame.notes.append(
                "The comment names bohr or atomic units, but the distances are those of bonds in Å: read in Å."
            )
            return
    frame.positions = [[value * ANGSTROM_PER_BOHR for value in position] for position in frame.positions]
    frame.notes.append("The file states coordinates in bohr; they were converted to Å.")
