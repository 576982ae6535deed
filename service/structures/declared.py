"""What a structure file declares, against what its text can hold: looked at before any reader is.

A count in a file makes ASE's readers allocate, and a dozen digits are a count of any size. A true count is never larger
than the text that it counts, so the others are told from their text alone. So is which files will keep a reader for long.
Formats with readers of our own are not here: those count for themselves.
"""

from __future__ import annotations

import re
from typing import Final

from service.errors import ServiceError

LONG_TEXT: Final = 256 * 1024
"""Characters from which on reading any format may take seconds on a slow machine."""
MANY_SITES: Final = 40
"""Of a crystal with a space group: 60 sites took 0.7 s in one of 192 operations."""
MAX_DIGITS: Final = 18

_ATOM_COUNT: Final = re.compile(r"^\s*([0-9]+)\s+atoms\b", re.MULTILINE)
_SYMMETRY: Final = re.compile(r"_(symmetry|space_?group)", re.IGNORECASE)
_SITE: Final = re.compile(r"^\s*[A-Za-z][A-Za-z0-9]*\s", re.MULTILINE)


def refuse_impossible(file_format: str, text: str) -> None:
    """Refuse a file that declares more than it holds.

    Args:
        file_format: a name of ``formats.ACCEPTED``.
        text: the whole file.

    Raises:
        ServiceError: ``unparsable_structure``.
    """
    if file_format == "vasp":
        lines = text.split("\n")
        # the counts follow the three vectors, or the names of the elements behind them
        for line in lines[5:7]:
            words = line.split()
            if words and all(word.isascii() and word.isdigit() for word in words):
                _check_count(file_format, sum(map(_number, words)), len(lines), "atoms")
    elif file_format == "lammps-data":
        for found in _ATOM_COUNT.finditer(text):
            _check_count(file_format, _number(found[1]), text.count("\n") + 1, "atoms")


def is_dear(file_format: str, text: str) -> bool:
    """Whether a file may keep its reader for longer than others should wait.

    Args:
        file_format: a name of ``formats.ACCEPTED``.
        text: the whole file.
    """
    if len(text) > LONG_TEXT:
        return True
    # a space group makes up to 192 atoms of each site, and each is compared with all before it
    return file_format == "cif" and _SYMMETRY.search(text) is not None and len(_SITE.findall(text)) > MANY_SITES


def _number(word: str) -> int:
    """The number that Python's ``int`` reads, as the readers do; 0 where it reads none, and of many digits a huge one."""
    try:
        return int(word) if len(word) <= MAX_DIGITS else 10**MAX_DIGITS
    except ValueError:
        return 0


def _check_count(file_format: str, count: int, most: int, what: str) -> None:
    if count > most:
        raise ServiceError(
            "unparsable_structure",
            f"The text cannot be read as {file_format}: it declares {count} {what}, more than it can hold.",
            field="file",
            hint="Check the counts in the file, and that all of it was sent.",
        )
