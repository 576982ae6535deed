"""What is wrong with a CIF, and where: ASE's reader takes the whole file before it looks, and then says no line."""

from __future__ import annotations

import re
from typing import Final

from model.structure_files.frame import UnreadableError

_CELL: Final = tuple(
    f"_cell_{kind}" for kind in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
)
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?(\(\d+\))?")
_FRACTION: Final = "_atom_site_fract_"


def check_cif(text: str) -> None:
    """Refuse fractional coordinates without all six numbers of the cell: read as they stand, they would be ångströms.

    Raises:
        UnreadableError: with the line of a number of the cell that is none.
    """
    if _FRACTION not in text.lower():
        return
    found: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words and words[0].lower() in _CELL:
            found.setdefault(words[0].lower(), (number, words[1] if len(words) > 1 else ""))
    missing = [name for name in _CELL if name not in found]
    if missing:
        raise UnreadableError(
            f"The coordinates are fractions of a cell, and the file has no {missing[0]}.",
            hint="A CIF gives the lengths of the cell in ångström and its angles in degrees.",
        )
    for name, (number, value) in found.items():
        if value and _NUMBER.fullmatch(value) is None:
            raise UnreadableError(f"{name} is no number.", hint="Write a decimal number.", line=number)


def bad_row_of_atoms(text: str) -> UnreadableError | None:
    """The first row of atoms that is too short or whose fractional coordinates are no numbers; None if there is none."""
    columns: list[str] = []
    in_head = False
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        first = words[0].lower() if words else ""
        if first == "loop_":
            columns, in_head = [], True
        elif first.startswith("_"):
            columns = [*columns, first] if in_head else []
        elif not words or first.startswith(("#", "data_", ";")):
            columns = columns if not words or first.startswith("#") else []
        elif any(column.startswith(_FRACTION) for column in columns):
            in_head = False
            if len(words) < len(columns):
                detail = f"This atom has {len(words)} values, and the loop has {len(columns)} columns."
                return UnreadableError(detail, line=number)
            for column, word in zip(columns, words, strict=False):
                if column.startswith(_FRACTION) and word not in ("?", ".") and _NUMBER.fullmatch(word) is None:
                    return UnreadableError(f"{column} of this atom is no number.", line=number)
        else:
            in_head = False
    return None
