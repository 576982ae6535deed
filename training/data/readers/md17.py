"""Format ``md17``: Hamiltonians along MD17 trajectories (Schütt et al., SchNOrb, Nat. Commun. 10, 5024 (2019)).

Files ``schnorb_hamiltonian_{water,ethanol_dft,malondialdehyde,uracil}.db`` from quantum-machine.org. Layout facts from
atomistic-machine-learning/SchNOrb (src/schnorb/data.py and src/scripts/extract_data.py: what is written), PhiSNet's
convert_db.py and transform_hamiltonians.py (convention ``orca_def2-SVP``) and divelab/AIRS, OpenDFT/QHNet/ori_dataset.py
(what is read). The files themselves were not at hand: not verified on them.

An ASE database: sqlite, table ``systems``, a row a frame, in id order. Per row:

    numbers    int32 (atom,), little-endian blob
    positions  float64 (atom, 3), little-endian blob, Å
    data       ASE's JSON (text or binary) with
        hamiltonian  float32 (ao, ao), hartree: entries of 20 hartree are rounded to 1e-6
        overlap      float32 (ao, ao)
        energy       hartree, less the mean of the set: left out here, ``Frame.energy`` is None
        forces       not read
      or, in older SchNetPack files, each array as base64 text beside ``_shape_NAME`` and ``_dtype_NAME``

AO order: ORCA's. Shells as in PySCF (H s s p, others s s s p p d); p as z x y, d as z2 xz yz x2-y2 xy (m = 0, +1, -1, +2,
-2); every sign is +. PySCF wants p as x y z and d as m = -2 ... 2. Since nobody says this in the file, the reader compares
the stored overlap with PySCF's for the first frame that it reads, and refuses a file that disagrees: a wrong order, length
unit or basis cannot pass.

Level: RKS PBE/def2-SVP, neutral singlets, ORCA (version, grid and resolution of the identity: not verified).
"""

from __future__ import annotations

import binascii
import json
import sqlite3
from base64 import b64decode
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.blocks.matrices import dense_matrix
from model.errors import StructureError
from model.integrals.pyscf_molecule import integrals, load_basis
from model.level import Level
from model.orbitals.space import OrbitalSpace
from model.structure import Structure
from training.data import splits
from training.data.frame import DatasetError, Frame, FrameSource, molecular_blocks
from training.data.readers.containers import open_sqlite, table_columns

MOLECULES: Final = {
    (1, 1, 8): "water",
    (1, 1, 1, 1, 1, 1, 6, 6, 8): "ethanol",
    (1, 1, 1, 1, 6, 6, 6, 8, 8): "malonaldehyde",
    (1, 1, 1, 1, 6, 6, 6, 6, 7, 7, 8, 8): "uracil",
}
"""By sorted atomic numbers."""

OVERLAP_TOLERANCE: Final = 1e-3
"""Float32, printed digits and the value of bohr give about 1e-6; a wrong order or unit gives 0.1 or more."""


class Md17(FrameSource):
    """A file of MD17 Hamiltonians: one molecule, many frames.

    Args:
        path: sqlite file; opened read-only.

    Raises:
        DatasetError: missing, or not an ASE database of one of ``MOLECULES``.
    """

    schemes = ("random",)
    level = Level("pbe", "def2-svp", program="ORCA")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = open_sqlite(path)
        missing = {"id", "numbers", "positions", "data"} - set(table_columns(self._connection, path, "systems"))
        if missing:
            self._connection.close()
            raise DatasetError(
                f"{path} is not an ASE database: table 'systems' lacks {', '.join(sorted(missing))}. "
                "docs/datasets.md says where the MD17 files come from."
            )
        self._verified = False

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @cached_property
    def _ids(self) -> list[int]:
        return [int(row[0]) for row in self._fetch("SELECT id FROM systems ORDER BY id")]

    @cached_property
    def molecule(self) -> str:
        """Which molecule the file is of, from its first row."""
        if not self._ids:
            raise DatasetError(f"{self.path} has no frames.")
        numbers = self._read(0)[0]
        name = MOLECULES.get(tuple(sorted(numbers.tolist())))
        if name is None:
            raise DatasetError(
                f"{self.path}: atomic numbers {numbers.tolist()} are none of {', '.join(MOLECULES.values())}."
            )
        return name

    def __len__(self) -> int:
        return len(self._ids)

    def splits(self, scheme: str) -> splits.Splits:
        self.check_scheme(scheme)
        n_train, n_validation = splits.MD17_SIZES[self.molecule]
        if len(self) <= n_train + n_validation:
            raise DatasetError(
                f"{self.path} has {len(self)} frames; the published split of {self.molecule} takes {n_train} for training "
                f"and {n_validation} for validation. The file is not complete."
            )
        return splits.md17_random(len(self), n_train, n_validation)

    def molecules(self) -> NDArray[np.int64]:
        return np.zeros(len(self), dtype=np.int64)

    def atom_counts(self) -> NDArray[np.int64]:
        return np.full(len(self), len(self._read(0)[0]), dtype=np.int64)

    def frame(self, index: int, split: str) -> Frame:
        where = f"{self.path}, frame {int(index)}"
        name = self.molecule
        numbers, positions, data = self._read(int(index))
        if MOLECULES.get(tuple(sorted(numbers.tolist()))) != name:
            raise DatasetError(f"{where}: atomic numbers {numbers.tolist()} are not those of {name}.")
        try:
            structure = Structure(
                numbers, positions, charge=0, multiplicity=1
            )  # all four molecules are neutral singlets
        except StructureError as error:
            raise DatasetError(f"{where}: {error}") from error
        hamiltonian = _blocks(data, "hamiltonian", structure, where)
        if not self._verified:
            _compare_overlap(dense_matrix(_blocks(data, "overlap", structure, where)), structure, where)
            self._verified = True
        return Frame(
            molecule=name,
            index=int(index),
            structure=structure,
            # the stored overlap is PySCF's own rounded to float32, so the frame has none
            hamiltonian=hamiltonian,
            split=split,
        )

    def _read(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.float64], dict[str, Any]]:
        query = "SELECT numbers, positions, data FROM systems WHERE id = ?"
        numbers, positions, data = self._fetch(query, self._ids[index])[0]
        where = f"{self.path}, frame {index}"
        try:
            z = np.frombuffer(numbers, "<i4").astype(np.int64)
            x = np.frombuffer(positions, "<f8").reshape(len(z), 3).copy()
            return z, x, _decode(data)
        except (TypeError, ValueError, KeyError, AssertionError, IndexError) as error:
            raise DatasetError(f"{where} is damaged: {error}.") from error

    def _fetch(self, query: str, *values: int) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise DatasetError(f"{self.path} cannot be read: {error}. Fetch the file again.") from error

    def close(self) -> None:
        self._connection.close()


@cache
def _space() -> OrbitalSpace:
    """def2-SVP in ORCA's order."""
    return replace(load_basis(Md17.level.basis, sorted({z for numbers in MOLECULES for z in numbers})), order="orca")


def _blocks(data: dict[str, Any], name: str, structure: Structure, where: str) -> BlockSet:
    """A stored matrix, made symmetric, in PySCF's order."""
    matrix = _matrix(data, name, _space().count_orbitals(structure.numbers), where)
    return molecular_blocks(_space(), structure, 0.5 * (matrix + matrix.T)).in_order("pyscf")


def _decode(data: str | bytes) -> dict[str, Any]:
    """ASE's row data; its JSON dialects hold numbers and arrays only, no pickles."""
    from ase.db.core import bytes_to_object
    from ase.io import jsonio

    try:
        values = jsonio.decode(data) if isinstance(data, str) else bytes_to_object(data)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"column data is not ASE's JSON ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"column data holds a {type(values).__name__}, not a dict")
    return values


def _matrix(data: dict[str, Any], name: str, n_ao: int, where: str) -> NDArray[np.float64]:
    value = data.get(name)
    try:
        if isinstance(value, str | bytes):
            value = np.frombuffer(b64decode(value, validate=True), dtype=str(data[f"_dtype_{name}"]))
        matrix = np.asarray(value, dtype=np.float64).reshape(n_ao, n_ao)
    except (binascii.Error, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{where}: {name!r} is not a matrix of {n_ao} x {n_ao} numbers ({error}).") from error
    if not np.isfinite(matrix).all():
        raise DatasetError(f"{where}: {name!r} holds values that are not finite.")
    return matrix


def _compare_overlap(stored: NDArray[np.float64], structure: Structure, where: str) -> None:
    error = float(np.abs(stored - integrals(structure, Md17.level.basis).overlap).max())
    if error > OVERLAP_TOLERANCE:
        raise DatasetError(
            f"{where}: the stored overlap differs from PySCF's by {error:.2g} (allowed {OVERLAP_TOLERANCE:g}), so the AO "
            "order, the unit of length or the basis is not what this reader expects (training/readers/md17.py)."
        )
