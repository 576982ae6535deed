"""Fields of a line: element symbols and numbers as people and Fortran write them."""

from __future__ import annotations

import re
from typing import Final

from model.structure import MAXIMUM_ATOMIC_NUMBER, SYMBOLS
from model.structure_files.frame import UnreadableError

_NUMBER_OF_SYMBOL: Final = {symbol.lower(): number for number, symbol in enumerate(SYMBOLS) if number > 0} | {
    "d": 1,
    "t": 1,
}
"""Deuterium and tritium have hydrogen's electrons."""

_LABEL: Final = re.compile(r"(?:[1-9][0-9]{0,2})?([A-Za-z]{1,2})(?:[0-9]+[A-Za-z']?|_[A-Za-z0-9]+|\([^()]*\))?")
"""A symbol with an isotope before it ("2H") or a label after it ("C1", "H12a", "C_a", "C(iso=13)")."""

_GHOST: Final = re.compile(
    r"(@.*|.*[-:]bq|bq.*|gh.*|ghost.*|x|xx|xx[0-9]*|q|du|dummy|lp|ep|\*|[a-z]{1,2}:)", re.IGNORECASE
)
_FORTRAN: Final = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[dDqQ]|\*\^)?([+-]?\d+)")
_WITHOUT_LETTER: Final = re.compile(r"([+-]?\d*\.\d+|[+-]?\d+\.)([+-]\d{3})")


def ghost(line: int | None = None) -> UnreadableError:
    """The error of a ghost or dummy atom."""
    hint = "Only real atoms are read; leave it out."
    return UnreadableError("a ghost or dummy atom.", line=line, hint=hint, code="unsupported_element")


def element(text: str, line: int | None = None) -> int:
    """Atomic number of a symbol, in any case, with a label or not, or of an atomic number.

    Raises:
        UnreadableError: neither, or a ghost or dummy atom.
    """
    lower = text.strip().lower()
    if lower in _NUMBER_OF_SYMBOL:
        return _NUMBER_OF_SYMBOL[lower]
    if re.fullmatch(r"[0-9]{1,3}(\.0*)?", lower) and 1 <= (number := int(float(lower))) <= MAXIMUM_ATOMIC_NUMBER:
        return number
    if _GHOST.fullmatch(lower) or lower in ("0", "0.0"):
        raise ghost(line)
    label = _LABEL.fullmatch(lower)
    if label is not None and label[1] in _NUMBER_OF_SYMBOL:
        return _NUMBER_OF_SYMBOL[label[1]]
    raise UnreadableError(
        "no element symbol and no atomic number where one belongs.",
        line=line,
        hint="Write symbols such as C, N and O, or atomic numbers.",
    )


def is_element(text: str) -> bool:
    """Whether ``element`` reads it."""
    try:
        return element(text) > 0
    except UnreadableError:
        return False


def real(text: str, line: int | None = None) -> float:
    """A number: also with Fortran's exponents (1.0D-03, 1.0-003), Mathematica's (1.0*^-3), or a typographic minus.

    Raises:
        UnreadableError: none.
    """
    plain = text.strip().replace("\u2212", "-")
    if "_" not in plain:
        try:
            return float(plain)
        except ValueError:
            pass
    found = _WITHOUT_LETTER.fullmatch(plain)
    if found is None and re.search(r"[dDqQ^]", plain):
        found = _FORTRAN.fullmatch(plain)
    if found is not None:
        return float(f"{found[1]}e{found[2]}")
    if "***" in plain:
        raise UnreadableError("stars where a number belongs: it did not fit its column.", line=line)
    if re.fullmatch(r"[+-]?\d+,\d+", plain):
        raise UnreadableError("a decimal comma.", line=line, hint="Write decimal points.")
    raise UnreadableError("no number where a coordinate belongs.", line=line)


def is_real(text: str) -> bool:
    """Whether ``real`` reads it."""
    try:
        real(text)
    except UnreadableError:
        return False
    return True


def row(texts: list[str], line: int | None = None) -> list[float]:
    """Three coordinates.

    Raises:
        UnreadableError: fewer, or no numbers.
    """
    if len(texts) < 3:
        raise UnreadableError("fewer than three coordinates.", line=line)
    return [real(text, line) for text in texts[:3]]
