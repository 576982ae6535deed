"""Format ``tracegrad``: the project's own HDF5 file, one group per molecule with all its geometries (docs/training.md).

Group attributes: ``smiles``, ``formula``, ``split``, ``pool``, and ``charge`` and ``multiplicity`` where the file does not
state them for all its molecules at once (a group's own come first). Datasets for n atoms, k geometries, N AOs:
``atomic_numbers`` (n,), ``positions`` (k, n, 3) Å, ``fock_tril`` (k, N (N + 1) / 2) float32 hartree in PySCF's AO order,
``energy`` (k,), ``cycles_minao`` (k,) and more. File attributes state the level. No object arrays, no pickle.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from model.blocks.matrices import unpack_triangle
from model.errors import StructureError
from model.integrals.pyscf_molecule import load_basis
from model.level import Level
from model.orbitals.space import OrbitalSpace
from model.structure import Structure
from training.data.frame import DatasetError, Frame, FrameSource, molecular_blocks


class ProjectFile(FrameSource):
    """The project's data file; its one split scheme, ``file``, is what its groups say.

    Args:
        path: the HDF5 file.

    Raises:
        DatasetError: missing file, not HDF5.
    """

    schemes = ("file",)

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _open(path)
        self._index: tuple[list[str], list[str], NDArray[np.int64], NDArray[np.int64]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    @property
    def level(self) -> Level:  # type: ignore[override]
        """The level of theory.

        Raises:
            DatasetError: a missing attribute.
        """
        attributes = self._file.attrs
        try:
            # the attribute may carry a remark after the name, as in "b3lyp (PySCF >= 2.3 ...)"
            return Level(
                xc=str(attributes["xc"]).split()[0],
                basis=str(attributes["basis"]),
                program_version=str(attributes["pyscf"]),
            )
        except KeyError as error:
            raise DatasetError(f"{self.path} has no file attribute {error.args[0]}.") from error

    def __len__(self) -> int:
        return len(self._frames()[2])

    def splits(self, scheme: str) -> dict[str, NDArray[np.int64]]:
        self.check_scheme(scheme)
        _, split_of, molecule, _ = self._frames()
        names = np.array(split_of)[molecule] if len(molecule) else np.array([], dtype=str)
        return {name: np.flatnonzero(names == name) for name in sorted(set(split_of))}

    def molecules(self) -> NDArray[np.int64]:
        return self._frames()[2]

    def atom_counts(self) -> NDArray[np.int64]:
        names, _, molecule, _ = self._frames()
        return np.array([len(self._file[name]["atomic_numbers"]) for name in names], dtype=np.int64)[molecule]

    def charge_states(self, indices: NDArray[np.int64] | None = None) -> frozenset[tuple[int, int]]:
        names, _, molecule, _ = self._frames()
        wanted = np.unique(molecule if indices is None else molecule[indices])
        return frozenset((self._state(names[i], "charge"), self._state(names[i], "multiplicity")) for i in wanted)

    def frame(self, index: int, split: str) -> Frame:
        names, _, molecule, geometry = self._frames()
        name, number = names[int(molecule[index])], int(geometry[index])
        group = self._file[name]
        charge, multiplicity = (self._state(name, attribute) for attribute in ("charge", "multiplicity"))
        numbers = group["atomic_numbers"][:].astype(np.int64)
        try:
            structure = Structure(numbers, group["positions"][number], charge, multiplicity)
        except StructureError as error:
            raise DatasetError(f"{self.path}, group {name}, geometry {number}: {error}") from error
        matrix = unpack_triangle(group["fock_tril"][number].astype(np.float64))
        return Frame(
            molecule=name,
            index=number,
            structure=structure,
            hamiltonian=molecular_blocks(self._space, structure, matrix),
            energy=float(group["energy"][number]),
            cycles_minao=int(group["cycles_minao"][number]),
            smiles=str(group.attrs["smiles"]),
            split=split,
        )

    def close(self) -> None:
        self._file.close()

    @cached_property
    def _space(self) -> OrbitalSpace:
        """Orbitals of all elements of the file."""
        names = self._frames()[0]
        return load_basis(
            self.level.basis, sorted({int(z) for name in names for z in self._file[name]["atomic_numbers"]})
        )

    def _state(self, name: str, attribute: str) -> int:
        """Charge or multiplicity of a molecule."""
        for attributes in (self._file[name].attrs, self._file.attrs):
            if attribute in attributes:
                return int(attributes[attribute])
        raise DatasetError(
            f"{self.path} states no {attribute}, neither for the file nor for group {name}; give it as an attribute."
        )

    def _frames(self) -> tuple[list[str], list[str], NDArray[np.int64], NDArray[np.int64]]:
        """Names and splits of the molecules; molecule and geometry of each frame. Molecules in name order."""
        if self._index is None:
            names = sorted(self._file)
            splits = [str(self._file[name].attrs["split"]) for name in names]
            counts = [len(self._file[name]["positions"]) for name in names]
            molecule = np.repeat(np.arange(len(names)), counts).astype(np.int64)
            geometry = np.array([k for count in counts for k in range(count)], dtype=np.int64)
            self._index = (names, splits, molecule, geometry)
        return self._index


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        raise DatasetError(f"{path} is not there; make it with 'python -m training generate' (docs/training.md).")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DatasetError(f"{path} is not an HDF5 file: {error}.") from error
