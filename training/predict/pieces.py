"""Where structures stand: files, folders and ASE data bases of any size, cut into chunks without reading them.

A chunk is what one worker takes and one file of results holds: some frames of a large file, or some small files. Chunks are
numbered in the order of the inputs, whatever the number of parts and workers, so a run can go on in any number of them. A
large xyz or sdf file is scanned for the places where frames begin, a few million lines a second, and never held in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, Literal

from model.structure_files.read import FORMAT_OF_SUFFIX
from training.data.sources import DatasetError

SCANNED_FROM: Final = 64 * 1024
"""Bytes from which on a file is cut at its frames."""
WHOLE_UP_TO: Final = 256 * 1024 * 1024
"""Bytes of the largest file of a format that is read at once."""
DATABASES: Final = frozenset({"db"})
SUFFIXES: Final = frozenset(FORMAT_OF_SUFFIX) | DATABASES

Kind = Literal["text", "database"]


@dataclass(frozen=True)
class Piece:
    """Structures that follow each other in one file.

    Attributes:
        path: the file.
        first: number of the first structure in it, from 0.
        start, end: its bytes; of a data base its rows. ``end`` is -1 for all that follows.
        kind: how it is read.
        problem: why nothing of it can be read; empty if it can.
    """

    path: Path
    first: int = 0
    start: int = 0
    end: int = -1
    kind: Kind = "text"
    problem: str = ""


@dataclass(frozen=True)
class Chunk:
    """Work of one worker.

    Attributes:
        number: in the order of the inputs, from 0.
        pieces: what is in it.
    """

    number: int
    pieces: tuple[Piece, ...]


def files_of(inputs: Sequence[Path]) -> list[Path]:
    """The files that are meant, those of a folder (not of folders in it) by name.

    Raises:
        DatasetError: something that is not there, that holds nothing, or of a format that no reader knows.
    """
    found: list[Path] = []
    for given in inputs:
        if given.is_dir():
            own = sorted(path for path in given.iterdir() if _suffix(path) in SUFFIXES)
            if not own:
                raise DatasetError(f"The folder {given} holds no file of {_known()}.")
            found += own
        elif not given.is_file():
            raise DatasetError(f"There is no file or folder {given}.")
        elif _suffix(given) not in SUFFIXES:
            raise DatasetError(f"{given.name} is of no known format; known suffixes are {_known()}.")
        else:
            found.append(given)
    return found


def chunks_of(files: Sequence[Path], size: int) -> Iterator[Chunk]:
    """All chunks, one after another.

    Args:
        files: of :func:`files_of`.
        size: structures of a large file in a chunk, or small files.
    """
    numbers = count()
    waiting: list[Piece] = []
    weight = 0
    for path in files:
        n_bytes = path.stat().st_size
        if _suffix(path) not in DATABASES and n_bytes < SCANNED_FROM:
            if waiting and (len(waiting) == size or weight + n_bytes > 16 * SCANNED_FROM):
                yield Chunk(next(numbers), tuple(waiting))
                waiting, weight = [], 0
            waiting.append(Piece(path))
            weight += n_bytes
            continue
        if waiting:
            yield Chunk(next(numbers), tuple(waiting))
            waiting, weight = [], 0
        for piece in _cut(path, n_bytes, size):
            yield Chunk(next(numbers), (piece,))
    if waiting:
        yield Chunk(next(numbers), tuple(waiting))


def _cut(path: Path, n_bytes: int, size: int) -> Iterator[Piece]:
    suffix = _suffix(path)
    if suffix in DATABASES:
        yield from _rows(path, size)
    elif suffix in ("xyz", "extxyz"):
        yield from _frames_of_xyz(path, size)
    elif suffix == "sdf":
        yield from _frames_of_sdf(path, size)
    elif n_bytes > WHOLE_UP_TO:
        yield Piece(path, problem=f"{n_bytes} bytes of .{suffix} are too many to read at once; write it as extxyz.")
    else:
        yield Piece(path)


def _rows(path: Path, size: int) -> Iterator[Piece]:
    import ase.db

    try:
        n_rows = ase.db.connect(path).count()
    except Exception as error:  # sqlite and ASE raise what they like
        yield Piece(path, kind="database", problem=f"The data base cannot be read: {error}")
        return
    for start in range(0, n_rows, size):
        yield Piece(path, start, start, min(start + size, n_rows), "database")


def _frames_of_xyz(path: Path, size: int) -> Iterator[Piece]:
    """Cut where a line says how many atoms follow; blank lines between frames are skipped."""
    frame = start = end = 0
    first = 0
    with path.open("rb") as file:
        while line := file.readline():
            words = line.split()
            if not words:
                end += len(line)
                continue
            if not words[0].isdigit():
                if frame > first:
                    yield Piece(path, first, start, end)
                yield Piece(
                    path,
                    frame,
                    end,
                    problem=f"Where the number of atoms of frame {frame + 1} should be (byte {end}) there is something else; "
                    "nothing behind it can be read.",
                )
                return
            end += len(line)
            for _ in range(int(words[0]) + 1):
                end += len(file.readline())
            frame += 1
            if frame - first == size:
                yield Piece(path, first, start, end)
                first, start = frame, end
    if frame > first:
        yield Piece(path, first, start, end)


def _frames_of_sdf(path: Path, size: int) -> Iterator[Piece]:
    frame = first = start = end = 0
    is_begun = False
    with path.open("rb") as file:
        for line in file:
            end += len(line)
            is_begun = is_begun or bool(line.strip())
            if line.startswith(b"$$$$"):
                frame, is_begun = frame + 1, False
                if frame - first == size:
                    yield Piece(path, first, start, end)
                    first, start = frame, end
    if is_begun or frame > first:
        yield Piece(path, first, start, end)


def _suffix(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


def _known() -> str:
    return ", ".join(f".{suffix}" for suffix in sorted(SUFFIXES))
