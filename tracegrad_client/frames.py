"""Structure files of many frames, cut into files of one: so that each is a request, or an item, of its own.

The cut follows marks that a frame has whatever is wrong inside it, so a broken frame takes nothing from its neighbours: it
is sent as it is, and the server says what is wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from tracegrad_client.structure_file import StructureFile

_COUNT: Final = re.compile(r"\s*\d+(\s+(bohr|au|a\.u\.|ang|angs|angstrom))?\s*", re.IGNORECASE)
_END_OF_RECORD: Final = "$$$$"
Piece = tuple[int, str]
"""Index of the first line in the file, and the text."""


def read_frames(path: str | os.PathLike[str], file_format: str | None = None) -> list[StructureFile]:
    """The frames of a structure file, each as a file of its own; one where there is nothing to cut.

    Args:
        path: of the file: xyz, extxyz, sdf, mol2 or pdb may hold several frames.
        file_format: where the name does not tell.

    Raises:
        InvalidInputError: the file cannot be read, or has no format.
    """
    return split(StructureFile.read(Path(path), file_format))


def split(file: StructureFile) -> list[StructureFile]:
    """The frames of a file that was read; frames of several are named ``name#2``, from 1."""
    cut = _CUTS.get(file.format.lower())
    pieces = [] if cut is None else list(cut(file.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")))
    if len(pieces) < 2:
        return [file]
    return [
        replace(file, text=text, name=f"{file.name}#{number}", first_line=line + 1)
        for number, (line, text) in enumerate(pieces, start=1)
    ]


def frames_of(molecules: Sequence[Any] | str | os.PathLike[str]) -> Sequence[Any]:
    """A list of molecules as it is; the name of a file as its frames."""
    return read_frames(molecules) if isinstance(molecules, (str, os.PathLike)) else molecules


def _joined(lines: Sequence[str], starts: Sequence[int], header: Sequence[str] = ()) -> Iterator[Piece]:
    for start, stop in pairwise([*starts, len(lines)]):
        if any(line.strip() for line in lines[start:stop]):
            yield start, "\n".join([*header, *lines[start:stop]]).rstrip("\n") + "\n"


def _xyz(lines: Sequence[str]) -> Iterator[Piece]:
    """A frame begins with a line that is a count alone, which no line of an atom is; behind it comes the comment."""
    starts: list[int] = []
    for index, line in enumerate(lines):
        is_comment = bool(starts) and starts[-1] == index - 1
        if not is_comment and _COUNT.fullmatch(line):
            starts.append(index)
    if starts and any(line.strip() for line in lines[: starts[0]]):
        starts.insert(0, 0)  # what stands before the first count is a broken frame
    return _joined(lines, starts)


def _sdf(lines: Sequence[str]) -> Iterator[Piece]:
    ends = [index + 1 for index, line in enumerate(lines) if line.startswith(_END_OF_RECORD)]
    return _joined(lines, [0, *ends])


def _mol2(lines: Sequence[str]) -> Iterator[Piece]:
    return _joined(lines, [index for index, line in enumerate(lines) if line.startswith("@<TRIPOS>MOLECULE")])


def _pdb(lines: Sequence[str]) -> Iterator[Piece]:
    """Models; the cell before the first is that of all."""
    starts = [index for index, line in enumerate(lines) if line.startswith("MODEL ") or line.rstrip() == "MODEL"]
    header = [line for line in lines[: starts[0] if starts else 0] if line.startswith("CRYST1")]
    return _joined(lines, starts, header)


_CUTS: Final[Mapping[str, Callable[[Sequence[str]], Iterator[Piece]]]] = {
    "xyz": _xyz,
    "extxyz": _xyz,
    "sdf": _sdf,
    "mol2": _mol2,
    "pdb": _pdb,
    "ent": _pdb,
    "proteindatabank": _pdb,
}
