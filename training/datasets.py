"""Reader of the project's data format: one HDF5 group per molecule with all its geometries (docs/training.md).

Group attributes: ``smiles``, ``formula``, ``split``, ``pool``. Datasets for n atoms, k geometries, N AOs:
``atomic_numbers`` (n,), ``positions`` (k, n, 3) Å, ``fock_tril`` (k, N (N + 1) / 2) float32 hartree in PySCF's AO order,
``energy`` (k,), ``cycles_minao`` (k,) and more. File attributes state the level. No object arrays, no pickle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from model.hamiltonian.reference import unpack
from model.structure import Structure


class DatasetError(Exception):
    """A data file that is missing or not in the format."""


@dataclass(frozen=True)
class Frame:
    """One labelled geometry.

    Attributes:
        molecule: the group's name.
        index: which geometry of the molecule.
        structure: atoms in Å.
        fock: converged Fock matrix, (ao, ao), hartree, PySCF order.
        energy: total energy, hartree.
        cycles_minao: SCF cycles from minao at PySCF's default thresholds.
        smiles: of the molecule.
        split: name of its split.
    """

    molecule: str
    index: int
    structure: Structure
    fock: NDArray[np.float64]
    energy: float
    cycles_minao: int
    smiles: str
    split: str

    @property
    def heavy_atoms(self) -> int:
        return int((self.structure.numbers > 1).sum())


@dataclass(frozen=True)
class Level:
    """Level of theory of a file, from its attributes."""

    xc: str
    basis: str
    pyscf: str
    charge: int
    multiplicity: int


def read_level(path: Path) -> Level:
    """The level of theory of a data file.

    Raises:
        DatasetError: missing file or attribute.
    """
    with _open(path) as file:
        try:
            # the attribute may carry a remark after the name, as in "b3lyp (PySCF >= 2.3 ...)"
            return Level(
                xc=str(file.attrs["xc"]).split()[0],
                basis=str(file.attrs["basis"]),
                pyscf=str(file.attrs["pyscf"]),
                charge=int(file.attrs["charge"]),
                multiplicity=int(file.attrs["multiplicity"]),
            )
        except KeyError as error:
            raise DatasetError(f"{path} has no file attribute {error.args[0]}.") from error


def read_frames(
    path: Path, splits: Sequence[str], *, frames_per_molecule: int | None = None, max_molecules: int | None = None
) -> Iterator[Frame]:
    """Frames of some splits, molecules in name order.

    Args:
        path: the HDF5 file.
        splits: names of splits; every one must occur.
        frames_per_molecule: at most so many geometries of each molecule, the first ones.
        max_molecules: at most so many molecules of each split, spread evenly over the names.

    Raises:
        DatasetError: missing file, unknown split.
    """
    with _open(path) as file:
        members: dict[str, list[str]] = {}
        for name in sorted(file):
            members.setdefault(str(file[name].attrs["split"]), []).append(name)
        for split in splits:
            if split not in members:
                raise DatasetError(f"{path} has no split {split!r}; it has {', '.join(sorted(members))}.")
            names = members[split]
            if max_molecules is not None and max_molecules < len(names):
                names = [names[i] for i in np.linspace(0, len(names) - 1, max_molecules).astype(int)]
            for name in names:
                yield from _frames_of(file[name], name, split, frames_per_molecule)


def _frames_of(group: h5py.Group, name: str, split: str, limit: int | None) -> Iterator[Frame]:
    numbers = group["atomic_numbers"][:].astype(np.int64)
    count = len(group["positions"]) if limit is None else min(limit, len(group["positions"]))
    for index in range(count):
        yield Frame(
            molecule=name,
            index=index,
            structure=Structure(numbers, group["positions"][index]),
            fock=unpack(group["fock_tril"][index].astype(np.float64)),
            energy=float(group["energy"][index]),
            cycles_minao=int(group["cycles_minao"][index]),
            smiles=str(group.attrs["smiles"]),
            split=split,
        )


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        raise DatasetError(f"{path} is not there; make it with 'python -m training generate' (docs/training.md).")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DatasetError(f"{path} is not an HDF5 file: {error}.") from error
