"""Files of predictions: one HDF5 file for each chunk while they are made, and the same layout when they are merged.

    file, frame (structure,)          where each structure stood
    charge, multiplicity, in_domain   (structure,); warnings: JSON lists
    numbers, positions                of all atoms, one structure behind the other; (atom,), (atom, 3) in Å
    hamiltonian, density              lower triangles by rows (numpy.tril_indices), PySCF's AO order; hartree
    orbital_energies                  hartree, ascending; homo, lumo (structure,): hartree, NaN where there is none
    blocks, pairs                     of crystals: H(R) of each pair, spin part by spin part, hartree; (pair, 5) R1 R2 R3 i j
    NAME_start                        for each array that has no fixed length: where structure k begins, (structure + 1,)

Attributes say which model, version and weights they are of. A structure that failed is not among them; ``failures`` (an
attribute of a chunk, ``failures.jsonl`` when merged) says which, and why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from model.predictor import CrystalPrediction, Prediction
from training.atomic import replaced
from training.predict.reading import Place

TEXTS: Final = ("file", "warnings")
SINGLE: Final = ("file", "frame", "charge", "multiplicity", "in_domain", "warnings", "homo", "lumo")
"""One value a structure; all others have a length of their own."""
START: Final = "_start"
MOLECULAR: Final = ("hamiltonian", "density", "orbital_energies")
"""What can be kept of a molecule; of a crystal it is always H(R)."""


@dataclass(frozen=True)
class Failure:
    """A structure that has no answer.

    Attributes:
        file, frame: where it stands.
        reason: what is wrong with it.
    """

    file: str
    frame: int
    reason: str


@dataclass
class Rows:
    """Predictions as they gather, and what has failed.

    Attributes:
        values: name -> one entry for each structure.
        failures: structures without an answer.
    """

    values: dict[str, list[Any]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def add(self, values: Mapping[str, Any]) -> None:
        """One structure."""
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)

    def fail(self, place: Place, reason: str) -> None:
        """One without an answer."""
        self.failures.append(Failure(place.file, place.frame, reason))

    def write(self, path: Path, attributes: Mapping[str, Any]) -> None:
        """The file of a chunk, on the disk when this returns."""
        with replaced(path) as partial, h5py.File(partial, "w") as file:
            file.attrs.update(attributes)
            file.attrs["failures"] = json.dumps([asdict(failure) for failure in self.failures])
            for name, entries in self.values.items():
                if name in SINGLE:
                    file.create_dataset(name, data=entries, dtype=h5py.string_dtype() if name in TEXTS else None)
                    continue
                starts = np.concatenate([[0], np.cumsum([len(entry) for entry in entries])])
                file.create_dataset(name + START, data=starts)
                packed = np.concatenate(entries)
                file.create_dataset(name, data=packed, shuffle=True, compression="gzip", compression_opts=1)


def row_of(place: Place, answer: Prediction | CrystalPrediction, save: Sequence[str], dtype: str) -> dict[str, Any]:
    """What is kept of one answer.

    Args:
        place: where the structure stands.
        answer: of the model.
        save: names of ``MOLECULAR``.
        dtype: of matrices, "float32" or "float64".
    """
    structure = answer.structure
    row: dict[str, Any] = {
        "file": place.file,
        "frame": place.frame,
        "charge": structure.charge,
        "multiplicity": structure.multiplicity,
        "in_domain": answer.in_domain,
        "warnings": json.dumps(answer.warnings),
        "numbers": structure.numbers.astype(np.int16),
        "positions": structure.positions_angstrom,
    }
    if isinstance(answer, CrystalPrediction):
        blocks = answer.hamiltonian
        pairs = np.column_stack([blocks.pairs.shift, blocks.pairs.first, blocks.pairs.second]).astype(np.int32)
        kept = np.result_type(dtype, np.complex64) if np.iscomplexobj(blocks.values) else np.dtype(dtype)
        return row | {"blocks": blocks.values.astype(kept).reshape(-1), "pairs": pairs}
    if "hamiltonian" in save:
        row["hamiltonian"] = _triangle(answer.hamiltonian, dtype)
    if answer.orbitals is not None:
        energies, occupied = answer.orbitals.energies, answer.orbitals.n_occupied
        row["homo"] = energies[occupied - 1] if occupied else np.nan
        row["lumo"] = energies[occupied] if occupied < len(energies) else np.nan
        if "orbital_energies" in save:
            row["orbital_energies"] = energies
    if answer.guess is not None and "density" in save:
        row["density"] = _triangle(answer.guess.density_matrix, dtype)
    return row


def _triangle(matrix: NDArray[np.float64], dtype: str) -> NDArray[Any]:
    return matrix[np.tril_indices(len(matrix))].astype(dtype)


class Results:
    """A file of predictions, read structure by structure.

    Args:
        path: of a chunk, or merged.
    """

    def __init__(self, path: Path) -> None:
        self._file = h5py.File(path)
        self.attributes: dict[str, Any] = dict(self._file.attrs)

    def __len__(self) -> int:
        return len(self._file["frame"]) if "frame" in self._file else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        """What is kept of one structure, by name."""
        if not 0 <= index < len(self):
            raise IndexError(f"structure {index} of {len(self)}")
        found: dict[str, Any] = {}
        for name, data in self._file.items():
            if name in SINGLE:
                found[name] = data.asstr()[index] if name in TEXTS else data[index]
            elif not name.endswith(START):
                start, end = self._file[name + START][index : index + 2]
                found[name] = data[start:end]
        return found

    @property
    def failures(self) -> list[Failure]:
        """Of a chunk."""
        return [Failure(**values) for values in json.loads(self.attributes.get("failures", "[]"))]

    def places(self) -> Iterator[tuple[str, int, int, bool]]:
        """File, frame, number of atoms and in_domain of each structure."""
        if not len(self):
            return
        atoms = np.diff(self._file["numbers" + START][:])
        columns = self._file["file"].asstr()[:], self._file["frame"][:], atoms, self._file["in_domain"][:]
        yield from ((str(a), int(b), int(c), bool(d)) for a, b, c, d in zip(*columns, strict=True))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
