"""Writers of the published file layouts, from their descriptions (training/readers/), for small files of real matrices."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from ase import Atoms
from ase.build import molecule as ase_molecule
from ase.db import connect
from numpy.typing import NDArray
from pyscf import dft, gto

DIMENSIONS = {"s": 1, "p": 3, "d": 5}
ORCA_SHELLS = {"s": [""], "p": ["z", "x", "y"], "d": ["z^2", "xz", "yz", "x2-y2", "xy"]}


@dataclass(frozen=True, eq=False)
class Label:
    """A converged PySCF calculation: what a published row was made from.

    Attributes:
        mole: PySCF's molecule.
        fock: hartree, PySCF order, (ao, ao).
        orbital_energies: hartree, (ao,).
        energy: hartree.
    """

    mole: Any
    fock: NDArray[np.float64]
    orbital_energies: NDArray[np.float64]
    energy: float

    @property
    def numbers(self) -> NDArray[np.int32]:
        return np.asarray(self.mole.atom_charges(), dtype=np.int32)

    @property
    def bohr(self) -> NDArray[np.float64]:
        return np.asarray(self.mole.atom_coords(unit="Bohr"))

    @property
    def angstrom(self) -> NDArray[np.float64]:
        return np.asarray(self.mole.atom_coords(unit="Ang"))


def label(name: str, xc: str, seed: int) -> Label:
    """SCF of a molecule of ASE's g2 collection, displaced and turned so that no symmetry hides a wrong order."""
    atoms: Atoms = ase_molecule(name)
    atoms.rattle(0.05, seed=seed)
    atoms.rotate(37.0 + seed, (1.0, 2.0, 3.0))
    mole = gto.M(
        atom=list(zip(atoms.symbols, atoms.positions, strict=True)), basis="def2-svp", unit="Angstrom", verbose=0
    )
    mf = dft.RKS(mole, xc=xc)
    mf.conv_tol = 1e-11
    energy = mf.kernel()
    assert mf.converged
    fock = mf.get_fock()
    # the energies that belong to this very Fock matrix
    return Label(mole, fock, mf.eig(fock, mf.get_ovlp())[0], float(energy))


def write_stable(path: Path, labels: Sequence[Label]) -> None:
    """QH9Stable.db."""
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS data (id INTEGER NOT NULL PRIMARY KEY,  N INTEGER, Z BLOB, pos BLOB, Ham BLOB)"
        )
        for number, item in enumerate(labels):
            row = (number, len(item.numbers), item.numbers.tobytes(), item.angstrom.tobytes(), item.fock.tobytes())
            connection.execute("INSERT INTO data VALUES (?, ?, ?, ?, ?)", row)
    connection.close()


def write_dynamic(path: Path, labels: Sequence[Label]) -> None:
    """QH9Dynamic_*.db: 100 rows a molecule, all the same here."""
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS data (id INTEGER NOT NULL, geo_id INTEGER NOT NULL, N INTEGER, Z BLOB, pos BLOB, "
            "ekin FLOAT, epot FLOAT, etot FLOAT, time FLOAT, Ham BLOB, converged INT)"
        )
        for number, item in enumerate(labels):
            for geometry in range(100):
                row = (
                    np.int64(7000 + number).tobytes(),
                    geometry,
                    len(item.numbers),
                    item.numbers.tobytes(),
                    item.bohr.tobytes(),
                    0.1,
                    item.energy,
                    item.energy + 0.1,
                    50.0 * geometry,
                    item.fock.tobytes(),
                    1,
                )
                connection.execute(f"INSERT INTO data VALUES ({', '.join('?' * 11)})", row)
    connection.close()


def write_lmdb(folder: Path, rows: Sequence[dict[str, Any]], dumps: Callable[[Any], bytes] = pickle.dumps) -> None:
    """A processed folder of pickled rows."""
    environment = lmdb.open(str(folder), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        for index, row in enumerate(rows):
            transaction.put(index.to_bytes(length=4, byteorder="big"), dumps(row))
    environment.close()


def lmdb_row(item: Label, number: int, *, bohr: bool) -> dict[str, Any]:
    """A row of the processed stable set (Å) or of a dynamic one (bohr)."""
    geometry = {"geo_id": number} if bohr else {}
    return {
        "id": number,
        **geometry,
        "num_nodes": len(item.numbers),
        "atoms": item.numbers.tobytes(),
        "pos": (item.bohr if bohr else item.angstrom).tobytes(),
        "Ham": item.fock.tobytes(),
    }


def orca_order(mole: Any) -> list[int]:
    """PySCF index of each AO of ORCA's order, by the AOs' names."""
    names = [f"{atom} {shell}{m}" for atom, _, shell, m in mole.ao_labels(fmt=False)]
    order: list[int] = []
    done: set[str] = set()
    for atom, _, shell, _ in mole.ao_labels(fmt=False):
        if (key := f"{atom} {shell}") not in done:
            done.add(key)
            order += [names.index(f"{key}{m}") for m in ORCA_SHELLS[shell[-1]]]
    return order


def write_md17(
    path: Path, labels: Sequence[Label], *, order: Sequence[int] | None = None, base64: bool = False
) -> None:
    """An ASE database as SchNOrb's, matrices in ORCA's order (or a wrong one) and float32."""
    from base64 import b64encode

    with connect(path, append=False) as database:
        for item in labels:
            rows = orca_order(item.mole) if order is None else list(order)
            data: dict[str, Any] = {"energy": np.array([0.0]), "forces": np.zeros_like(item.bohr, dtype=np.float32)}
            for name, matrix in (("hamiltonian", item.fock), ("overlap", item.mole.intor("int1e_ovlp"))):
                stored = matrix[np.ix_(rows, rows)].astype(np.float32)
                data[name] = stored
                if base64:
                    data |= {
                        name: b64encode(stored.tobytes()).decode(),
                        f"_shape_{name}": list(stored.shape),
                        f"_dtype_{name}": "float32",
                    }
            database.write(Atoms(item.numbers, item.angstrom), data=data)
