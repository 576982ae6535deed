"""A chunk's structures, or what is wrong with each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from model.errors import ModelError, StructureError
from model.geometry import CHECK, is_absurd, made_whole
from model.structure import Structure
from model.structure_files.encoding import decode_text
from model.structure_files.frame import Frame, UnreadableError
from model.structure_files.read import FORMAT_OF_SUFFIX, read_structures
from model.structure_files.stated import Stated
from training.predict.pieces import Chunk, Piece


@dataclass(frozen=True)
class Place:
    """Where a structure stands.

    Attributes:
        file: name of its file.
        frame: its number there, from 0.
    """

    file: str
    frame: int


@dataclass(frozen=True, eq=False)
class Found:
    """A structure of a file.

    Attributes:
        place: where it stands.
        structure: the structure, or what is wrong with it.
    """

    place: Place
    structure: Structure | str


def structures_of(chunk: Chunk, *, molecules: bool = False) -> Iterator[Found]:
    """All structures of a chunk, in their order.

    Args:
        chunk: where they are.
        molecules: a cell is a box around a molecule and is left out; what it had cut is put together.
    """
    for piece in chunk.pieces:
        if piece.problem:
            yield Found(Place(piece.path.name, piece.first), piece.problem)
            continue
        try:
            frames = _rows(piece) if piece.kind == "database" else _frames(piece)
        except Exception as error:  # readers raise whatever they stumble over
            yield Found(Place(piece.path.name, piece.first), f"The file cannot be read: {error}")
            continue
        for index, frame in enumerate(frames):
            yield Found(Place(piece.path.name, piece.first + index), _structure(frame, molecules))


def _frames(piece: Piece) -> list[Frame | UnreadableError]:
    with piece.path.open("rb") as file:
        file.seek(piece.start)
        data = file.read() if piece.end < 0 else file.read(piece.end - piece.start)
    text = decode_text(data)
    if text is None:
        raise UnreadableError("It is not text.")
    return read_structures(FORMAT_OF_SUFFIX[_suffix(piece.path)], text, sys.maxsize)


def _rows(piece: Piece) -> list[Frame | UnreadableError]:
    import ase.db

    rows = ase.db.connect(piece.path).select(offset=piece.start, limit=piece.end - piece.start, sort="id")
    return [_row(row) for row in rows]


def _row(row: Any) -> Frame | UnreadableError:
    """A row; its charge is a key like ``total_charge``, or the sum of initial charges: ASE writes over a key ``charge``."""
    stated = Stated()
    frame = Frame(
        numbers=row.numbers.tolist(),
        positions=row.positions.tolist(),
        cell=np.asarray(row.cell).tolist() if np.any(row.pbc) else None,
        pbc=cast(tuple[bool, bool, bool], tuple(bool(value) for value in row.pbc)),
    )
    charges, moments = (row.get(name) for name in ("initial_charges", "initial_magmoms"))
    try:
        stated.say_keys({name: value for name, value in row.key_value_pairs.items() if name != "charge"})
        if stated.charge is None and charges is not None:
            stated.say_atoms(charges.tolist())
        if stated.multiplicity is None and moments is not None:
            stated.say_atoms([], moments.tolist())
        return stated.give(frame)
    except UnreadableError as error:
        return error


def _structure(frame: Frame | UnreadableError, molecules: bool) -> Structure | str:
    if isinstance(frame, UnreadableError):
        return frame.detail if frame.line is None else f"{frame.detail} (line {frame.line} of the frame)"
    try:
        numbers, positions = np.array(frame.numbers, dtype=np.int64), np.array(frame.positions, dtype=np.float64)
        cell = None if frame.cell is None else np.array(frame.cell, dtype=np.float64)
        pbc = frame.pbc
        if molecules and any(pbc) and cell is not None and len(numbers) and abs(np.linalg.det(cell)) > 1e-6:
            positions, is_crystal = made_whole(numbers, positions, cell, pbc)
            if is_crystal:
                return "Atoms are bonded across the cell: it holds a crystal, not a molecule (--molecules)."
            pbc = (False, False, False)
        structure = Structure(
            numbers,
            positions,
            charge=frame.charge or 0,
            multiplicity=frame.multiplicity or 1,
            cell_angstrom=cell if any(pbc) else None,
            pbc=pbc,
        )
    except StructureError as error:
        return said(error)
    except (ValueError, TypeError) as error:
        return f"The numbers do not make a structure: {error}"
    if not structure.is_periodic and is_absurd(structure.numbers, structure.positions_angstrom):
        return f"The distances are those of no molecule: {CHECK}"
    return structure


def said(error: ModelError) -> str:
    """What came, and what to do next, in one line."""
    return f"{error.code}: {error}"


def _suffix(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")
