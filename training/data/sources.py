"""The door to data files: a table of formats, and frames of some splits one at a time (docs/datasets.md).

A split is named alone (``test``: of the format's first scheme, or of ``scheme``) or with its scheme (``size_ood/test``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.errors import FormatError
from model.formats.registry import entries
from model.level import Level
from training.data.frame import DatasetError, Frame, FrameSource
from training.data.readers.containers import LmdbRows, SqliteRows, is_lmdb
from training.data.readers.matrix_files import MatrixFiles
from training.data.readers.md17 import Md17
from training.data.readers.own import ProjectFile
from training.data.readers.qh9 import VARIANTS, Qh9

__all__ = [
    "AUTO",
    "FORMATS",
    "DatasetError",
    "Frame",
    "FrameSource",
    "Level",
    "composition",
    "held_out_compositions",
    "open_source",
    "read_frames",
    "read_level",
    "select",
]

FORMATS: Final[Mapping[str, Callable[[Path], FrameSource]]] = {
    "tracegrad": ProjectFile,
    "qh9_stable": lambda path: Qh9(path, "qh9_stable"),
    "qh9_dynamic_100k": lambda path: Qh9(path, "qh9_dynamic_100k"),
    "qh9_dynamic_300k": lambda path: Qh9(path, "qh9_dynamic_300k"),
    "md17": Md17,
    "deeph": lambda path: MatrixFiles(path, "deeph"),
    "deeph-legacy": lambda path: MatrixFiles(path, "deeph-legacy"),
    "abacus": lambda path: MatrixFiles(path, "abacus"),
    "siesta": lambda path: MatrixFiles(path, "siesta"),
    "crystal-h5": lambda path: MatrixFiles(path, "crystal-h5"),
}
AUTO: Final = "auto"
"""Look into the file; the two dynamic sets are told apart by their published size."""

_DYNAMIC_ROWS: Final = {99_900: "qh9_dynamic_100k", 299_800: "qh9_dynamic_300k"}


def open_source(path: Path, format: str = AUTO) -> FrameSource:
    """Open a data file.

    Args:
        path: file or folder.
        format: a key of ``FORMATS``, or ``AUTO``.

    Raises:
        DatasetError: missing, damaged, of another format, or a format that is not known.
    """
    if format != AUTO and format not in FORMATS:
        raise DatasetError(f"Data format {format!r} is not known; allowed are {', '.join(FORMATS)}.")
    return FORMATS[_guess(path) if format == AUTO else format](path)


def read_level(path: Path, format: str = AUTO) -> Level:
    """The level of theory of a data file.

    Raises:
        DatasetError: missing file or attribute.
    """
    with open_source(path, format) as source:
        return source.level


def select(
    source: FrameSource,
    split: str,
    *,
    scheme: str = "",
    frames_per_molecule: int | None = None,
    max_molecules: int | None = None,
    max_frames: int | None = None,
) -> NDArray[np.int64]:
    """Frame indices of one split, in its order.

    Args:
        source: an open file.
        split: ``name`` or ``scheme/name``.
        scheme: if the split does not say; empty for the format's first one.
        frames_per_molecule: at most so many frames of each molecule, the first ones in the split's order.
        max_molecules: at most so many molecules, spread evenly over the split's order.
        max_frames: at most so many of what is left, spread evenly.

    Raises:
        DatasetError: unknown scheme or split.
    """
    own_scheme, _, name = split.rpartition("/")
    found = source.splits(own_scheme or scheme or source.schemes[0])
    if name not in found:
        raise DatasetError(f"{source.path} has no split {name!r}; it has {', '.join(sorted(found))}.")
    indices = found[name]
    owners = source.molecules()[indices]
    keep = np.ones(len(indices), dtype=bool)
    if max_molecules is not None:
        _, first = np.unique(owners, return_index=True)
        if max_molecules < len(first):
            in_order = owners[np.sort(first)]
            keep &= np.isin(owners, in_order[np.linspace(0, len(in_order) - 1, max_molecules).astype(int)])
    if frames_per_molecule is not None:
        by_owner = np.argsort(owners, kind="stable")
        starts = np.flatnonzero(np.diff(owners[by_owner], prepend=-1))
        run = np.repeat(starts, np.diff(np.append(starts, len(owners))))
        keep[by_owner[np.arange(len(owners)) - run >= frames_per_molecule]] = False
    indices = indices[keep]
    if max_frames is not None and max_frames < len(indices):
        indices = indices[np.linspace(0, len(indices) - 1, max_frames).astype(int)]
    return np.asarray(indices)


def read_frames(
    path: Path,
    splits: Sequence[str],
    *,
    frames_per_molecule: int | None = None,
    max_molecules: int | None = None,
    max_frames: int | None = None,
    format: str = AUTO,
    scheme: str = "",
) -> Iterator[Frame]:
    """Frames of some splits, one at a time.

    Args:
        path: file or folder.
        splits: names of splits; every one must occur.
        frames_per_molecule: at most so many geometries of each molecule, the first ones.
        max_molecules: at most so many molecules of each split, spread evenly.
        max_frames: at most so many frames of each split after that, spread evenly.
        format: a key of ``FORMATS``, or ``AUTO``.
        scheme: how to split; empty for the format's first scheme.

    Raises:
        DatasetError: missing or damaged file, unknown format, scheme or split.
    """
    with open_source(path, format) as source:
        for split in splits:
            limits = {
                "frames_per_molecule": frames_per_molecule,
                "max_molecules": max_molecules,
                "max_frames": max_frames,
            }
            for index in select(source, split, scheme=scheme, **limits):
                yield source.frame(int(index), split)


def composition(numbers: NDArray[np.int64]) -> tuple[int, ...]:
    """A chemical formula as a sorted tuple of atomic numbers."""
    return tuple(sorted(int(z) for z in numbers))


def held_out_compositions(
    path: Path, train: Sequence[str], format: str = AUTO, scheme: str = ""
) -> set[tuple[int, ...]]:
    """Chemical formulas of all molecules outside the training splits."""
    with open_source(path, format) as source:
        splits = source.splits(scheme or source.schemes[0])
        molecules = source.molecules()
        found = set()
        for name, indices in splits.items():
            if name not in train:
                _, first = np.unique(molecules[indices], return_index=True)
                found |= {composition(source.frame(int(indices[i]), name).structure.numbers) for i in first}
        return found


def _guess(path: Path) -> str:
    """The format of a file by its contents."""
    matrices = _guess_matrices(path)
    if matrices:
        return matrices
    if is_lmdb(path) and path.exists():
        rows = LmdbRows(path)
        size = len(rows)
        rows.close()
        name = _DYNAMIC_ROWS.get(size, "qh9_stable" if "stable" in str(path).lower() else "")
    elif path.is_file() and _head(path) == b"SQLite format 3":
        name = _guess_sqlite(path)
    else:
        return "tracegrad"
    if not name:
        raise DatasetError(f"The format of {path} is not clear; say it: one of {', '.join(FORMATS)}.")
    return name


def _guess_matrices(path: Path) -> str:
    """The format of the first structure under a path, empty if it has none of ``model.formats``."""
    try:
        return entries(path)[0].format
    except FormatError:
        return ""


def _guess_sqlite(path: Path) -> str:
    for name in ("qh9_stable", "qh9_dynamic_100k"):
        try:
            rows = SqliteRows(path, VARIANTS[name].columns)
        except (DatasetError, sqlite3.DatabaseError):
            continue
        size = len(rows)
        rows.close()
        return name if name == "qh9_stable" else _DYNAMIC_ROWS.get(size, "")
    return "md17"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(15)
