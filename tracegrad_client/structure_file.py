"""A structure file as it is sent: its text and the name of its format; the server reads it."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tracegrad_client.errors import InvalidInputError

FORMAT_OF_NAME: Final[Mapping[str, str]] = {
    "poscar": "vasp",
    "contcar": "vasp",
    "coord": "turbomole",
    "geometry.in": "aims",
}
"""Of files that have no suffix, or one that says nothing."""


@dataclass(frozen=True)
class StructureFile:
    """A structure file; anywhere a molecule is asked for, its name may stand for it.

    Attributes:
        text: the content.
        format: ASE's name of the format, or a suffix.
        name: of the file, and of the frame where it was one of several.
        charge: total charge; None takes what the file states.
        multiplicity: 2S + 1, likewise.
        first_line: number of the first line of ``text`` in the file.
    """

    text: str
    format: str
    name: str = ""
    charge: int | None = None
    multiplicity: int | None = None
    first_line: int = 1

    @classmethod
    def read(cls, path: str | Path, file_format: str | None = None) -> StructureFile:
        """Read a file.

        Args:
            path: of the file.
            file_format: where the name does not tell.

        Raises:
            InvalidInputError: no such file, no text, or no format.
        """
        path = Path(path)
        try:
            return cls.decode(path.name, path.read_bytes(), file_format)
        except (OSError, ValueError) as error:  # a ValueError for a name with a null character
            reason = error.strerror if isinstance(error, OSError) else error
            raise InvalidInputError(
                f"The structure file {str(path)[:200]!r} cannot be read: {reason}.",
                hint="Give the name of a file, or the molecule itself.",
            ) from error

    @classmethod
    def decode(cls, name: str, content: bytes, file_format: str | None = None) -> StructureFile:
        """A file from its bytes.

        Raises:
            InvalidInputError: no text, or no format.
        """
        known = file_format or format_of_name(name)
        if known is None:
            raise InvalidInputError(
                f"The name {name!r} does not say which format the file has.", hint="Name it: format='xyz'."
            )
        return cls(_decoded(content), known, name)

    @property
    def electrons(self) -> None:
        """Their number is for the server to say."""
        return None

    @property
    def pbc(self) -> tuple[bool, bool, bool]:
        """Whether it is a crystal is for the server to say."""
        return (False, False, False)

    def structure(self) -> dict[str, Any]:
        """The JSON object ``structure`` of a request."""
        return {"kind": "file", "format": self.format, "text": self.text}

    def stating(self, charge: int | None, multiplicity: int | None) -> StructureFile:
        """The same file with what the caller states; the server refuses what contradicts the file."""
        if charge is None and multiplicity is None:
            return self
        return replace(
            self,
            charge=self.charge if charge is None else charge,
            multiplicity=self.multiplicity if multiplicity is None else multiplicity,
        )

    def __repr__(self) -> str:
        return f"StructureFile({self.name!r}, format={self.format!r}, {len(self.text)} characters)"


def format_of_name(name: str) -> str | None:
    """What the name of a file says of its format; None if nothing."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1].strip().lower()
    if base in FORMAT_OF_NAME:
        return FORMAT_OF_NAME[base]
    stem, dot, suffix = base.rpartition(".")
    return suffix if stem and dot and suffix else None


def _decoded(content: bytes) -> str:
    """UTF-8, UTF-16 where a mark says so, else Windows-1252, as the server reads files that are sent as such."""
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError:
        if utf_16 or any(byte < 32 and byte not in b"\t\n\r\f\x1a" for byte in content):
            raise InvalidInputError(
                "The structure file is not text.", hint="Convert it to a text format such as xyz."
            ) from None
    return content.decode("cp1252", errors="replace")
