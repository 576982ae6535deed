"""Formats ``qh9_stable``, ``qh9_dynamic_100k`` and ``qh9_dynamic_300k`` (Yu et al., NeurIPS 2023, arXiv:2306.09549).

Layout facts from divelab/AIRS, OpenDFT/QHBench/QH9: dataset_generation_examples/QH9_stable.py and QH9_dynamic.py (what is
written) and datasets.py (what is read); the published files themselves were not at hand: not verified on them.

Raw: one sqlite file, table ``data``, a row a geometry, in rowid order. Blobs are little-endian, C order.

    stable   id INTEGER PRIMARY KEY (0 ... 130,830), N INTEGER, Z BLOB, pos BLOB, Ham BLOB
    dynamic  id (8-byte int64 blob, or INTEGER: number of the QM9 molecule), geo_id INTEGER (0 ... 99), N INTEGER, Z BLOB,
             pos BLOB, ekin, epot, etot, time FLOAT, Ham BLOB, converged INT; 100 rows a molecule, one after another

    Z    int32 (N,)            atomic numbers, H C N O F
    pos  float64 (N, 3)        Å in the stable file, bohr in the dynamic ones
    Ham  float64 (ao, ao)      Fock matrix, hartree, in PySCF's AO order (p as x y z, d as m = -2 ... 2); the published
                               loader turns p to m = -1, 0, 1 later, for its network: nothing of that is in the file
    epot float                 total energy, hartree (PySCF's MD integrator); the stable file has no energy

Processed: an LMDB folder (``QH9Stable.lmdb``, ``QH9Dynamic.lmdb``; ``data.mdb`` in it). Key: row number, 4 bytes,
big-endian. Value: a pickled dict ``id num_nodes atoms pos Ham`` (``geo_id`` too in the dynamic ones) with the raw blobs
as bytes, units as in the raw file, no energy. Read without the danger of pickles (``plain_pickle``).

Level: RKS, def2-SVP, neutral singlets. ``b3lyp`` in the authors' scripts means VWN5 in PySCF 2.2.1 (stable, dynamic-300k;
today's ``b3lyp5``) and VWN-RPA in 2.3.0 (dynamic-100k; today's ``b3lyp``). Versions: the QH9 README.

The dynamic positions are divided by CODATA's bohr, which gives PySCF back the coordinates of the label to rounding; the
published loader uses 1.8897259886 (7e-8 away, relative).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.errors import StructureError
from model.integrals.pyscf_molecule import load_basis
from model.level import Level
from model.orbitals.space import OrbitalSpace
from model.structure import Structure
from model.units import ANGSTROM_PER_BOHR
from training.data import splits
from training.data.frame import DatasetError, Frame, FrameSource, molecular_blocks
from training.data.readers.containers import LmdbRows, Rows, SqliteRows, is_lmdb

ORBITALS: Final = {1: 5, 6: 14, 7: 14, 8: 14, 9: 14}
"""AOs of def2-SVP."""

SYMMETRY_TOLERANCE_HARTREE: Final = 1e-6
"""A Fock matrix further from its transpose is damaged; PySCF's are symmetric to rounding."""


@dataclass(frozen=True)
class Variant:
    """What differs between the three sets.

    Attributes:
        columns: of the raw table, in its order.
        unit: Å per unit of length of ``pos``.
        schemes: split schemes, the default first.
        level: of theory.
    """

    columns: tuple[str, ...]
    unit: float
    schemes: tuple[str, ...]
    level: Level


_DYNAMIC_COLUMNS: Final = ("id", "geo_id", "N", "Z", "pos", "ekin", "epot", "etot", "time", "Ham", "converged")
VARIANTS: Final = {
    "qh9_stable": Variant(
        ("id", "N", "Z", "pos", "Ham"),
        1.0,
        ("random", "size_ood"),
        Level("b3lyp5", "def2-svp", program_version="2.2.1"),
    ),
    "qh9_dynamic_100k": Variant(
        _DYNAMIC_COLUMNS,
        ANGSTROM_PER_BOHR,
        ("geometry", "molecule"),
        Level("b3lyp", "def2-svp", program_version="2.3.0"),
    ),
    "qh9_dynamic_300k": Variant(
        _DYNAMIC_COLUMNS,
        ANGSTROM_PER_BOHR,
        ("geometry", "molecule"),
        Level("b3lyp5", "def2-svp", program_version="2.2.1"),
    ),
}


class Qh9(FrameSource):
    """A QH9 file.

    Args:
        path: raw ``.db`` file, or LMDB folder (or the ``data.mdb`` in it).
        name: a key of ``VARIANTS``.

    Raises:
        DatasetError: missing, of another layout, or LMDB without the package ``lmdb``.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.variant = VARIANTS[name]
        self.level = self.variant.level
        self.schemes = self.variant.schemes
        if not path.exists():
            raise DatasetError(f"{path} is not there; docs/datasets.md says where the QH9 files come from.")
        self._rows: Rows = LmdbRows(path) if is_lmdb(path) else SqliteRows(path, self.variant.columns)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "name": self.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self._rows)

    def splits(self, scheme: str) -> splits.Splits:
        self.check_scheme(scheme)
        if scheme == "random":
            return splits.stable_random(len(self))
        if scheme == "size_ood":
            return splits.stable_size(self.atom_counts())
        molecules, rest = divmod(len(self), splits.GEOMETRIES_PER_MOLECULE)
        if rest:
            raise DatasetError(
                f"{self.path} has {len(self)} rows, not {splits.GEOMETRIES_PER_MOLECULE} for each molecule; "
                "the file is not complete. Fetch it again."
            )
        return splits.dynamic_geometry(molecules) if scheme == "geometry" else splits.dynamic_molecule(molecules)

    def molecules(self) -> NDArray[np.int64]:
        rows = np.arange(len(self), dtype=np.int64)
        return rows if self.name == "qh9_stable" else rows // splits.GEOMETRIES_PER_MOLECULE

    def atom_counts(self) -> NDArray[np.int64]:
        return self._rows.atom_counts

    def frame(self, index: int, split: str) -> Frame:
        row = self._rows.read(int(index))
        where = f"{self.path}, row {int(index)}"
        if row.n_atoms < 1:
            raise DatasetError(f"{where}: {row.n_atoms} atoms; the row is damaged.")
        numbers = _array(row.numbers, "<i4", (row.n_atoms,), f"{where}: Z").astype(np.int64)
        unknown = sorted(set(numbers.tolist()) - set(ORBITALS))
        if unknown:
            raise DatasetError(f"{where}: atomic numbers {unknown}; QH9 has {sorted(ORBITALS)}. The row is damaged.")
        n_ao = sum(ORBITALS[z] for z in numbers.tolist())
        positions = _array(row.positions, "<f8", (row.n_atoms, 3), f"{where}: pos") * self.variant.unit
        fock = _array(row.fock, "<f8", (n_ao, n_ao), f"{where}: Ham").astype(np.float64)
        if not np.isfinite(fock).all() or np.abs(fock - fock.T).max() > SYMMETRY_TOLERANCE_HARTREE:
            raise DatasetError(f"{where}: the Fock matrix is not finite and symmetric; the row is damaged.")
        try:
            structure = Structure(numbers, positions, charge=0, multiplicity=1)  # QM9 has neutral closed shells only
        except StructureError as error:
            raise DatasetError(f"{where}: {error} Is this file really {self.name!r}?") from error
        return Frame(
            molecule=f"qh9-{row.molecule}",
            index=row.geometry,
            structure=structure,
            hamiltonian=molecular_blocks(_space(self.level.basis), structure, 0.5 * (fock + fock.T)),
            energy=row.energy,
            split=split,
        )

    def close(self) -> None:
        self._rows.close()


@cache
def _space(basis: str) -> OrbitalSpace:
    return load_basis(basis, sorted(ORBITALS))


def _array(data: object, dtype: str, shape: tuple[int, ...], where: str) -> NDArray[Any]:
    """A blob as an array of exactly this shape."""
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not isinstance(data, bytes) or len(data) != expected:
        came = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise DatasetError(f"{where} is {came}, expected {expected} bytes for {dtype} {shape}; the row is damaged.")
    return np.frombuffer(data, dtype).reshape(shape)
