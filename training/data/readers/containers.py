"""Containers of QH9's rows: an sqlite file or an LMDB folder. What the blobs mean is known to ``training.data.readers.qh9``.

Both are opened read-only and read one row at a time; the number of atoms of every row is known without reading a matrix.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from training.data.frame import DatasetError
from training.data.readers import plain_pickle

PEEK_BYTES: Final = 256
"""The beginning of an LMDB value, with ``id``, ``geo_id`` and ``num_nodes``."""


@dataclass(frozen=True)
class Row:
    """One row as stored: blobs, not yet arrays.

    Attributes:
        molecule, geometry: numbers in the set; geometry is 0 in the stable set.
        n_atoms: number of atoms.
        numbers, positions, fock: blobs, as ``training.data.readers.qh9`` describes them.
        energy: hartree, or None.
    """

    molecule: int
    geometry: int
    n_atoms: int
    numbers: bytes
    positions: bytes
    fock: bytes
    energy: float | None


class Rows(ABC):
    """Rows by number, whatever the container."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def atom_counts(self) -> NDArray[np.int64]: ...

    @abstractmethod
    def read(self, index: int) -> Row: ...

    @abstractmethod
    def close(self) -> None: ...


class SqliteRows(Rows):
    """The raw file.

    Args:
        path: sqlite file; opened read-only.
        columns: that its table ``data`` must have, in this order.
    """

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path = path
        self.columns = columns
        self._connection = open_sqlite(path)
        found = tuple(table_columns(self._connection, path, "data"))
        if found != columns:
            self._connection.close()
            raise DatasetError(
                f"{path}: table 'data' has columns {', '.join(found) or '(no such table)'}; expected "
                f"{', '.join(columns)}. Is it another set, or a damaged file?"
            )

    @cached_property
    def _index(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        # both columns stand before the blobs, so sqlite reads no matrix here
        pairs = self._fetch("SELECT rowid, N FROM data ORDER BY rowid").fetchall()
        try:
            table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        except (TypeError, ValueError) as error:
            raise DatasetError(f"{self.path}: column N is not a number everywhere; the file is damaged.") from error
        return table[:, 0].copy(), table[:, 1].copy()

    def __len__(self) -> int:
        return len(self._index[0])

    @property
    def atom_counts(self) -> NDArray[np.int64]:
        return self._index[1]

    def read(self, index: int) -> Row:
        rowid = int(self._index[0][index])
        names = ", ".join(f'"{name}"' for name in self.columns)
        stored = self._fetch(f"SELECT {names} FROM data WHERE rowid = ?", rowid).fetchone()
        values = dict(zip(self.columns, stored, strict=True))
        identity = values["id"]
        # NumPy integers were bound as they are, and sqlite keeps them as 8 bytes
        molecule = int.from_bytes(identity, "little") if isinstance(identity, bytes) else int(identity)
        energy = values.get("epot")
        return Row(
            molecule=molecule,
            geometry=number(values.get("geo_id", 0)),
            n_atoms=number(values["N"]),
            numbers=values["Z"],
            positions=values["pos"],
            fock=values["Ham"],
            energy=float(energy) if isinstance(energy, float | int) else None,
        )

    def _fetch(self, query: str, *values: int) -> sqlite3.Cursor:
        try:
            return self._connection.execute(query, values)
        except sqlite3.DatabaseError as error:
            raise DatasetError(f"{self.path} cannot be read: {error}. Fetch the file again.") from error

    def close(self) -> None:
        self._connection.close()


class LmdbRows(Rows):
    """The processed folder.

    Args:
        path: the folder, or the ``data.mdb`` in it; opened read-only and without locks.
    """

    def __init__(self, path: Path) -> None:
        try:
            import lmdb
        except ImportError as error:
            raise DatasetError(
                f"{path} is an LMDB; reading one needs the package lmdb: pip install -e '.[benchmarks-data]' "
                "-c constraints.txt. The raw .db file needs nothing."
            ) from error
        self.path = path
        try:
            self._environment = lmdb.open(
                str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False, create=False
            )
        except lmdb.Error as error:
            raise DatasetError(f"{path} cannot be opened as an LMDB: {error}") from error
        self._size = int(self._environment.stat()["entries"])

    def __len__(self) -> int:
        return self._size

    @cached_property
    def atom_counts(self) -> NDArray[np.int64]:
        counts = np.empty(len(self), dtype=np.int64)
        with self._environment.begin(buffers=True) as transaction:
            for index in range(len(self)):
                value = transaction.get(index.to_bytes(4, "big"))
                if value is None:
                    raise self._missing(index)
                try:
                    counts[index] = plain_pickle.peek_int(bytes(value[:PEEK_BYTES]), "num_nodes")
                except plain_pickle.UnsafePickleError as error:
                    raise DatasetError(f"{self.path}, row {index}: {error}.") from error
        return counts

    def read(self, index: int) -> Row:
        with self._environment.begin() as transaction:
            data = transaction.get(index.to_bytes(4, "big"))
        if data is None:
            raise self._missing(index)
        try:
            values = plain_pickle.loads(data)
        except plain_pickle.UnsafePickleError as error:
            raise DatasetError(
                f"{self.path}, row {index}: {error}. QH9's rows are plain numbers and bytes; do not trust this file."
            ) from error
        try:
            return Row(
                molecule=number(values["id"]),
                geometry=number(values.get("geo_id", 0)),
                n_atoms=number(values["num_nodes"]),
                numbers=values["atoms"],
                positions=values["pos"],
                fock=values["Ham"],
                energy=None,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DatasetError(
                f"{self.path}, row {index}: not a dict with id, num_nodes, atoms, pos and Ham ({error!r})."
            ) from error

    def _missing(self, index: int) -> DatasetError:
        return DatasetError(f"{self.path} has {len(self)} entries but none with key {index}; it is not complete.")

    def close(self) -> None:
        self._environment.close()


def is_lmdb(path: Path) -> bool:
    """True for an LMDB folder or its data file."""
    return path.is_dir() or path.suffix == ".mdb"


def open_sqlite(path: Path) -> sqlite3.Connection:
    """A read-only connection.

    Raises:
        DatasetError: no such file.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is not there; docs/datasets.md says where the files come from.")
    return sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)


def table_columns(connection: sqlite3.Connection, path: Path, table: str) -> list[str]:
    """Column names of a table, empty if there is none.

    Raises:
        DatasetError: not an sqlite file.
    """
    try:
        return [str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")]
    except sqlite3.DatabaseError as error:
        connection.close()
        raise DatasetError(f"{path} is not an sqlite file: {error}.") from error


def number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise DatasetError(f"A number was expected, not {type(value).__name__}; the row is damaged.")
