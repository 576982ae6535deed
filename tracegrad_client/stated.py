"""Charge and multiplicity as an ``ase.Atoms`` states them: in ``info``, and as sums over its atoms.

The rules are those of the server's readers of structure files, so that an Atoms and the file that ASE writes of it are one
and the same molecule (``tests/client/test_stated.py`` holds the two together).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tracegrad_client.errors import InvalidInputError, TraceGradWarning

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
_SUM_TOLERANCE: Final = 0.05


class Stated:
    """What was found to be said so far; None for what nothing says.

    Attributes:
        charge: total charge in units of e.
        multiplicity: 2S + 1.
        spin: 2S or 2S + 1, which the electrons decide.
    """

    def __init__(self) -> None:
        self.charge: int | None = None
        self.multiplicity: int | None = None
        self.spin: int | None = None

    def say_keys(self, info: Mapping[Any, Any]) -> None:
        """Take the entries of ``atoms.info`` that name a charge or a multiplicity, in any case.

        Raises:
            InvalidInputError: fractional, no number, or two different ones.
        """
        for name, value in info.items():
            if not isinstance(name, str) or isinstance(value, bool):
                continue
            if not isinstance(value, (int, float, str)) and not hasattr(value, "__float__"):
                continue
            key = re.sub(r"[\s-]+", "_", name.strip().lower())
            words = key.split("_")
            if len(words) > 1 and words[-2] in _OF_ATOMS:
                continue
            keys = {key, words[-1]} if " " in name else {key}
            where = f"atoms.info[{name!r}]"
            if keys & _CHARGE_KEYS:
                self._say("charge", _whole(where, value))
            elif keys & _MULTIPLICITY_KEYS:
                self._say("multiplicity", _whole(where, value))
            elif keys & _UNPAIRED_KEYS:
                self._say("multiplicity", _whole(where, value) + 1)
            elif key == _SPIN_KEY:
                self.spin = _whole(where, value)

    def say_atoms(self, charges: Sequence[float], moments: Sequence[float]) -> None:
        """Take the sums over atoms of initial charges and magnetic moments, where any is not zero.

        Raises:
            InvalidInputError: another one than ``info`` says.
        """
        if any(moments) and math.isfinite(total := abs(sum(moments))):
            self._say("multiplicity", round(total) + 1)
        if not any(charges) or not math.isfinite(total := sum(charges)):
            return
        if abs(total - round(total)) > _SUM_TOLERANCE:
            warnings.warn(
                f"The initial charges of the atoms sum to {total:.2f}; no total charge was taken from them.",
                TraceGradWarning,
                stacklevel=2,
            )
        elif round(total):
            self._say("charge", round(total))

    def settle(self, electrons_if_neutral: int, *, periodic: bool) -> None:
        """Decide what ``spin`` meant, and of a charge without a multiplicity the lowest one that fits."""
        electrons = electrons_if_neutral - (self.charge or 0)
        if self.multiplicity is None and self.spin is not None and self.spin >= 0:
            meant = self.spin if self.spin > 0 and (electrons - self.spin) % 2 else self.spin + 1
            self._say("multiplicity", meant)
        if self.multiplicity is None and self.charge and not periodic:
            self.multiplicity = 1 + electrons % 2

    def _say(self, what: str, now: int) -> None:
        before: int | None = getattr(self, what)
        if before is not None and before != now:
            raise InvalidInputError(f"The atoms state two different values of the {what}: {before} and {now}.")
        setattr(self, what, now)


def _whole(where: str, value: Any) -> int:
    """A whole number, also of a text such as "-2", "2-" or "+"."""
    text = str(value).strip().strip("\"'")
    if text in ("+", "-"):
        text += "1"
    elif text[-1:] in ("+", "-"):
        text = text[-1] + text[:-1]
    try:
        number = float(text)
    except ValueError:
        raise InvalidInputError(f"{where} is {value!r}, which is no number.") from None
    if not number.is_integer():
        raise InvalidInputError(f"{where} is {value}, which is no whole number.")
    return int(number)
