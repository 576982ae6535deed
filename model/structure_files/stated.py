"""Charge and multiplicity as files state them: in comments, in keys, as sums over atoms."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from model.structure_files.frame import Frame, UnreadableError

_CHARGE_KEYS: Final = frozenset(
    {"charge", "total_charge", "totalcharge", "molecular_charge", "net_charge", "netcharge", "tot_charge", "q", "chrg"}
)
_MULTIPLICITY_KEYS: Final = frozenset(
    {"multiplicity", "spin_multiplicity", "molecular_multiplicity", "totalspinmultiplicity", "spinmultiplicity", "mult"}
)
_UNPAIRED_KEYS: Final = frozenset({"uhf", "unpaired", "unpaired_electrons", "n_unpaired", "nunpaired"})
_SPIN_KEY: Final = "spin"
_OF_ATOMS: Final = frozenset(
    {"mulliken", "partial", "lowdin", "hirshfeld", "atomic", "nuclear", "point", "bader", "esp", "resp", "core", "atom"}
)
"""Before "charge" they speak of an atom's."""

_PAIR: Final = re.compile(r"\s*([+-]?\d{1,2})[\s,]+(\d{1,2})\s*")
_KEY: Final = re.compile(
    r"(?<![\w-])([A-Za-z][A-Za-z _]{0,24}?)\s*[=:]\s*[\"']?"
    r"(\d+[+-]|[+-]?\d+(?:\.\d*)?|[+-]?\.\d+|[+-](?=[\s\"';,]|$))(?![\w.])"
)
_WORDS: Final = re.compile(
    r"(?<![\w-])(charge|multiplicity)\s+(?:of\s+|is\s+)?([+-]?\d+(?:\.\d+)?|\d+[+-])(?![\w.])", re.IGNORECASE
)
_SUM_TOLERANCE: Final = 0.05
"""Partial charges are printed with few digits."""


class Stated:
    """What a frame was found to say so far."""

    def __init__(self, line: int | None = None) -> None:
        self.charge: int | None = None
        self.multiplicity: int | None = None
        self.spin: int | None = None
        self.line = line

    def say_charge(self, value: Any) -> None:
        """Take a charge: a number, or a text such as "-2", "2-" or "+".

        Raises:
            UnreadableError: fractional, or another one than before.
        """
        self.charge = self._agreed("charge", self.charge, self._whole("charge", value))

    def say_multiplicity(self, value: Any) -> None:
        """Take 2S + 1.

        Raises:
            UnreadableError: no positive whole number, or another one than before.
        """
        number = self._whole("multiplicity", value)
        if number < 1:
            raise UnreadableError("The stated multiplicity is not positive.", line=self.line, code="invalid_request")
        self.multiplicity = self._agreed("multiplicity", self.multiplicity, number)

    def say_text(self, comment: str) -> None:
        """Take what a comment says: ``charge=-2 multiplicity=1``, ``Charge: 1``, ``q=1 mult=2``, or ``-2 1`` alone."""
        if (pair := _PAIR.fullmatch(comment)) is not None and int(pair[2]) > 0:
            self.say_charge(pair[1])
            self.say_multiplicity(pair[2])
            return
        for name, value in (*_KEY.findall(comment), *_WORDS.findall(comment)):
            self.say_key(str(name).strip(), value)

    def say_keys(self, values: Mapping[Any, Any]) -> None:
        """Take those of a mapping that name one of both, in any case."""
        for name, value in values.items():
            if isinstance(name, str):
                self.say_key(name, value)

    def say_key(self, name: str, value: Any) -> None:
        """Take a value if its name means one of both; the last word counts ("total charge")."""
        key = re.sub(r"[\s-]+", "_", name.strip().lower())
        words = key.split("_")
        if len(words) > 1 and words[-2] in _OF_ATOMS:
            return
        keys = {key, words[-1]} if " " in name else {key}
        if not isinstance(value, (int, float, str)) and not hasattr(value, "__float__"):
            return
        if keys & _CHARGE_KEYS:
            self.say_charge(value)
        elif keys & _MULTIPLICITY_KEYS:
            self.say_multiplicity(value)
        elif keys & _UNPAIRED_KEYS:
            self.say_multiplicity(self._whole("number of unpaired electrons", value) + 1)
        elif key == _SPIN_KEY:
            self.spin = self._whole("spin", value)

    def say_atoms(self, charges: Sequence[float], moments: Sequence[float] = ()) -> str | None:
        """Take sums over atoms, where any is not zero.

        Returns:
            a note for the user if the charges sum to no whole number, so that nothing was taken.
        """
        if any(moments) and math.isfinite(total := abs(sum(moments))):
            self.say_multiplicity(round(total) + 1)
        if not any(charges) or not math.isfinite(total := sum(charges)):
            return None
        if abs(total - round(total)) > _SUM_TOLERANCE:
            return f"The charges of the atoms sum to {total:.2f}; no total charge was taken from them."
        if round(total):
            self.say_charge(round(total))
        return None

    def give(self, frame: Frame) -> Frame:
        """The frame with charge and multiplicity filled in.

        ``spin`` is 2S + 1 in some programs' files and the number of unpaired electrons in others': the electrons decide. Of a
        stated charge without a multiplicity the lowest that fits is meant.
        """
        frame.charge = self.charge
        electrons = sum(frame.numbers) - (self.charge or 0)
        if self.multiplicity is None and self.spin is not None and self.spin >= 0:
            meant = self.spin if self.spin > 0 and (electrons - self.spin) % 2 else self.spin + 1
            self.say_multiplicity(meant)
        if self.multiplicity is None and self.charge and not any(frame.pbc):
            self.multiplicity = 1 + electrons % 2
        frame.multiplicity = self.multiplicity
        return frame

    def _whole(self, what: str, value: Any) -> int:
        text = str(value).strip().strip("\"'")
        if text in ("+", "-"):
            text += "1"
        elif text[-1:] in ("+", "-"):
            text = text[-1] + text[:-1]
        try:
            number = float(text)
        except ValueError:
            raise UnreadableError(f"The stated {what} is no number.", line=self.line, code="invalid_request") from None
        if not number.is_integer() or abs(number) > 100:
            raise UnreadableError(
                f"The stated {what} is fractional or huge, which is not supported.",
                line=self.line,
                hint="State a small whole number.",
                code="invalid_request",
            )
        return int(number)

    def _agreed(self, what: str, before: int | None, now: int) -> int:
        if before is not None and before != now:
            raise UnreadableError(
                f"The file states two different values of the {what}: {before} and {now}.",
                line=self.line,
                hint="Leave only one in the file.",
                code="invalid_request",
            )
        return now
