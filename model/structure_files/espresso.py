"""What is wrong with an input of Quantum ESPRESSO, and where: ASE's reader takes the whole file and says no line.

Cards are those of pw.x: ATOMIC_POSITIONS has ``nat`` rows "label x y z", CELL_PARAMETERS three rows of three numbers.
"""

from __future__ import annotations

import re
from typing import Final

from model.structure import SYMBOLS
from model.structure_files.frame import UnreadableError

_UNITS: Final = {
    "ATOMIC_POSITIONS": ("alat", "bohr", "angstrom", "crystal"),
    "CELL_PARAMETERS": ("alat", "bohr", "angstrom"),
}
_COUNT: Final = re.compile(r"(?<![\w])nat\s*=\s*([^\s,!]+)", re.IGNORECASE)
_NUMBER: Final = re.compile(r"(?=.*[0-9])[-+*/^().0-9eEdD]+")
"""Expressions too; what they mean is the reader's to say."""
_LABEL: Final = re.compile(r"([A-Za-z]{1,2})([0-9_-].*)?")
_COMMENT: Final = ("!", "#")
_CARD: Final = re.compile(r"[A-Z]+_[A-Z_]+|OCCUPATIONS|CONSTRAINTS|HUBBARD", re.IGNORECASE)

Row = tuple[int, list[str]]
"""A line's number, from 1, and its words."""


def bad_card(text: str) -> UnreadableError | None:
    """The first mistake in the cards of atoms and cell; None if there is none that this looks for."""
    lines = list(enumerate(text.splitlines(), 1))
    rows: list[Row] = [(number, line.split()) for number, line in lines]
    counts = [(number, found[1]) for number, line in lines if (found := _COUNT.search(line))]
    if not counts:
        return UnreadableError("There is no nat.", hint="&SYSTEM gives the number of atoms: nat = 2.")
    number, count = counts[-1]
    if not count.isdecimal():
        return UnreadableError("nat is no whole number.", line=number)
    for place, (line, words) in enumerate(rows):
        card = words[0].upper() if words else ""
        if card in _UNITS:
            n_rows = int(count) if card == "ATOMIC_POSITIONS" else 3
            below = _rows_below(rows[place + 1 :], n_rows)
            wrong = _wrong_unit(card, line, words) or _wrong_row(card, line, below, n_rows)
            if wrong is not None:
                return wrong
    return None


def _rows_below(rows: list[Row], most: int) -> list[Row]:
    """Those of a card, as many as it should have at most: they end where the next card begins."""
    found: list[Row] = []
    for row in rows:
        if row[1] and not row[1][0].startswith(_COMMENT):
            if _CARD.fullmatch(row[1][0]) or len(found) == most:
                break
            found.append(row)
    return found


def _wrong_unit(card: str, line: int, words: list[str]) -> UnreadableError | None:
    unit = words[1].strip("(){}").lower() if len(words) > 1 else "alat"
    if unit in _UNITS[card]:
        return None
    return UnreadableError(f"{card} has a unit that is not read.", line=line, hint=f"Use {', '.join(_UNITS[card])}.")


def _wrong_row(card: str, line: int, below: list[Row], n_rows: int) -> UnreadableError | None:
    """Of a card in ``line``, the first of its rows that is none."""
    is_atom = card == "ATOMIC_POSITIONS"
    what = "an atom and three numbers" if is_atom else "three numbers"
    for number, words in below:
        numbers = words[1:4] if is_atom else words
        if is_atom and not _is_element(words[0]):
            return UnreadableError("This label is of no element.", line=number, code="unsupported_element")
        if len(numbers) < 3 or (len(numbers) > 3 and not is_atom) or not all(map(_NUMBER.fullmatch, numbers)):
            return UnreadableError(f"{card} has {what} in each row; this is not so here.", line=number)
    if len(below) < n_rows:
        return UnreadableError(f"{card} needs {n_rows} rows and has {len(below)}.", line=line)
    return None


def _is_element(label: str) -> bool:
    """Of a label such as C, C1 or Fe_up."""
    found = _LABEL.fullmatch(label)
    return found is not None and found[1].capitalize() in SYMBOLS[1:]
