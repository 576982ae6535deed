"""What a file says of one structure, and the error of a frame that says nothing readable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Row = list[float]
Code = Literal["unparsable_structure", "invalid_request", "unsupported_element"]


@dataclass
class Frame:
    """One structure of a file; lengths in Å.

    Attributes:
        numbers: atomic numbers; hydrogen's isotopes are hydrogen.
        positions: one row of three for each atom.
        cell: lattice vectors as rows, or None.
        pbc: periodicity along each.
        charge: total charge that the file states, or None.
        multiplicity: 2S + 1 that the file states, or None.
        notes: what was chosen or converted on the way, for the user.
        info: further entries of the comment line by their names.
    """

    numbers: list[int]
    positions: list[Row]
    cell: list[Row] | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)
    charge: int | None = None
    multiplicity: int | None = None
    notes: list[str] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)


class UnreadableError(Exception):
    """A file or frame that cannot be read, or that contradicts itself. Texts hold nothing of the file.

    Attributes:
        detail: what is wrong.
        line: of the file, from 1; None where it is not one line.
        frame: of the file, from 1; None in a file of one.
        hint: what to do.
        code: of the error; ``invalid_request`` where it can be read, and says what is not allowed (a fractional charge, a
            contradiction), ``unsupported_element`` for what is no atom.
    """

    def __init__(
        self, detail: str, *, line: int | None = None, hint: str | None = None, code: Code = "unparsable_structure"
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.line = line
        self.frame: int | None = None
        self.hint = hint
        self.code = code

    def __str__(self) -> str:
        where = " of ".join(
            f"{what} {number}" for what, number in (("line", self.line), ("frame", self.frame)) if number is not None
        )
        return f"{where[0].upper()}{where[1:]}: {self.detail}" if where else self.detail


class ManyFramesError(Exception):
    """The file holds more structures than asked for."""


Frames = list[Frame | UnreadableError]
