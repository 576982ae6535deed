"""A crystal's predicted H(R) and S(R), read from an answer of ``/v1/predict``: matrices and band energies at k, sisl, files.

    H(k) = sum over R of exp(+2 pi i k.R) H(R),    k in units of the reciprocal lattice vectors, atom j of a pair in cell R

Orbitals stand by atom and shell, m = -l..l, without signs (``ao_labels`` names each). Energies are in hartree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tracegrad_client.energies import EV_PER_HARTREE
from tracegrad_client.errors import InvalidAnswerError, InvalidInputError
from tracegrad_client.structure import Molecule
from tracegrad_client.wire import Tensors

OUTPUTS: Final = ("blocks", "overlap_blocks", "fermi_energy")
ORDER: Final = "e3nn"
_LABEL: Final = re.compile(r"(\d+) [A-Z][a-z]? ([spdfgh])(\d+)(?: m=([+-]\d))?")


@dataclass(frozen=True, eq=False, repr=False)
class Crystal:
    """What was predicted for one crystal.

    Attributes:
        structure: what was sent.
        pairs: R1 R2 R3 i j of each block, atom j in cell R, 0-based, (pair, 5).
        hamiltonian, overlap: blocks one after another, row by row; hartree.
        ao_labels: of the orbitals of a cell, "0 C p1 m=-1".
        fermi_energy: hartree.
        model, warnings: who answered, and what there was to say.
    """

    structure: Molecule
    pairs: NDArray[np.int64]
    hamiltonian: NDArray[np.float64]
    overlap: NDArray[np.float64]
    ao_labels: tuple[str, ...]
    fermi_energy: float
    model: str
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        atoms, blocks, orbitals = len(self.structure.numbers), len(self.pairs), len(self.ao_labels)
        return f"Crystal({self.model}, {atoms} atoms, {orbitals} orbitals, {blocks} blocks H(R))"

    @property
    def atom_offsets(self) -> NDArray[np.int64]:
        """First orbital of each atom and, last, the number of orbitals, (atom + 1,)."""
        return _offsets(self.ao_labels, len(self.structure.numbers))

    def at(self, k: Sequence[float] = (0.0, 0.0, 0.0)) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
        """H(k) in hartree and S(k), both hermitian, (ao, ao).

        Args:
            k: fractional coordinates.
        """
        point = np.asarray(k, dtype=np.float64)
        if point.shape != (3,) or not np.isfinite(point).all():
            raise InvalidInputError("A k-point is three finite fractional coordinates.")
        n = len(self.ao_labels)
        rows, columns, pair = self._places
        phases = np.exp(2j * np.pi * (self.pairs[:, :3] @ point))[pair]
        matrices = []
        for values in (self.hamiltonian, self.overlap):
            matrix = np.zeros(n * n, dtype=np.complex128)
            np.add.at(matrix, rows * n + columns, values * phases)
            matrices.append(matrix.reshape(n, n))
        return matrices[0], matrices[1]

    def energies(self, k: Sequence[float] = (0.0, 0.0, 0.0)) -> NDArray[np.float64]:
        """Band energies at one k-point, ascending, hartree; all functions are kept, also where S(k) is nearly singular.

        Raises:
            InvalidAnswerError: S(k) is not positive definite.
        """
        hamiltonian, overlap = self.at(k)
        try:
            inverse = np.linalg.inv(np.linalg.cholesky(overlap))
        except np.linalg.LinAlgError as error:
            raise InvalidAnswerError(f"The overlap is not positive definite at k = {list(k)}.") from error
        return np.asarray(np.linalg.eigvalsh(inverse @ hamiltonian @ inverse.conj().T))

    def to_sisl(self) -> Any:
        """A ``sisl.Hamiltonian`` with overlap, in eV and relative to the Fermi level, as SIESTA's own are; needs sisl.

        Write it with ``.write("name.TSHS")`` or ``.HSX`` (``.nc`` needs netCDF4), or go on with sisl and TBtrans from it.
        """
        import sisl
        from scipy.sparse import coo_array

        structure, own = self.structure, _shells(self.ao_labels, len(self.structure.numbers))
        atoms = [
            sisl.Atom(
                int(number), [sisl.AtomicOrbital(n=ang + 1, l=ang, m=m, zeta=zeta, R=-1.0) for ang, zeta, m in orbitals]
            )
            for number, orbitals in zip(structure.numbers, own, strict=True)
        ]
        reach = np.abs(self.pairs[:, :3]).max(axis=0)
        lattice = sisl.Lattice(structure.cell_angstrom, nsc=(2 * reach + 1).tolist())
        geometry = sisl.Geometry(structure.positions_angstrom, atoms, lattice)
        rows, columns, pair = self._places
        # sisl's harmonics have the sign (-1)^m
        sign = np.array([(-1.0) ** m for orbitals in own for _, _, m in orbitals])
        signs = sign[rows] * sign[columns]
        cells = np.array([geometry.lattice.sc_index(shift) for shift in self.pairs[:, :3].tolist()])[pair]
        places = (rows, columns + len(self.ao_labels) * cells)
        relative = (self.hamiltonian - self.fermi_energy * self.overlap) * EV_PER_HARTREE
        h, s = (
            coo_array((values * signs, places), shape=(int(geometry.no), int(geometry.no_s))).tocsr()
            for values in (relative, self.overlap)
        )
        return sisl.Hamiltonian.fromsp(geometry, h, S=s)

    def save(self, path: str | Path) -> None:
        """Write everything into one ``.npz`` of plain arrays (read it with ``numpy.load``; lengths in Å, hartree)."""
        structure = self.structure
        assert structure.cell_angstrom is not None
        with Path(path).open("wb") as file:
            np.savez_compressed(
                file,
                pairs=self.pairs,
                hamiltonian=self.hamiltonian,
                overlap=self.overlap,
                ao_labels=np.array(self.ao_labels),
                fermi_energy=self.fermi_energy,
                atomic_numbers=structure.numbers,
                positions=structure.positions_angstrom,
                cell=structure.cell_angstrom,
            )

    @property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Row, column and pair of each entry."""
        return _places(self.pairs, self.atom_offsets)


def read_crystal(answer: Tensors, sent: Molecule) -> Crystal:
    """The crystal in an answer with the outputs ``OUTPUTS``.

    Raises:
        InvalidAnswerError: arrays that are missing or do not fit each other.
    """
    about, labels = answer.about(), answer.ao_labels()
    if about.get("ao_order") != ORDER or about.get("energy_unit") != "hartree":
        raise InvalidAnswerError("The blocks came in another order or unit than was asked for.")
    pairs, count = answer.arrays.get("pairs"), len(sent.numbers)
    if pairs is None or pairs.ndim != 2 or pairs.shape[1] != 5 or pairs.dtype.kind != "i" or not len(pairs):
        raise InvalidAnswerError("The answer has no list of pairs of atoms.")
    if pairs[:, 3:].min() < 0 or pairs[:, 3:].max() >= count:
        raise InvalidAnswerError(f"A pair names an atom beyond the {count} of the structure.")
    if any(len(own) == 0 for own in _shells(labels, count)):
        raise InvalidAnswerError("An atom has no orbitals in `ao_labels`.")
    entries = len(_places(pairs, _offsets(labels, count))[0])
    results = answer.meta.get("results")
    level = results.get("fermi_energy") if isinstance(results, dict) else None
    if isinstance(level, bool) or not isinstance(level, (int, float)) or not np.isfinite(level):
        raise InvalidAnswerError("The answer has no Fermi level.")
    return Crystal(
        sent,
        pairs.astype(np.int64),
        answer.float64("hamiltonian", (entries,)),
        answer.float64("overlap", (entries,)),
        labels,
        float(level),
        str(about.get("model", "")),
        answer.warnings(),
    )


def _places(
    pairs: NDArray[Any], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    rows, columns, which = [], [], []
    for index, (i, j) in enumerate(pairs[:, 3:].tolist()):
        row, column = np.arange(offsets[i], offsets[i + 1]), np.arange(offsets[j], offsets[j + 1])
        rows.append(np.repeat(row, len(column)))
        columns.append(np.tile(column, len(row)))
        which.append(np.full(len(row) * len(column), index))
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(which)


def _offsets(labels: tuple[str, ...], count: int) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum([len(own) for own in _shells(labels, count)])]).astype(np.int64)


def _shells(labels: tuple[str, ...], count: int | None = None) -> list[list[tuple[int, int, int]]]:
    """l, number of the shell of this l, and m of each orbital of each atom, from the labels."""
    found: list[list[tuple[int, int, int]]] = [[] for _ in range(count or 0)]
    for label in labels:
        parts = _LABEL.fullmatch(label)
        if parts is None or (count is not None and int(parts[1]) >= count):
            raise InvalidAnswerError(f"`ao_labels` has {label[:40]!r}, which names no orbital of this structure.")
        atom = int(parts[1])
        while len(found) <= atom:
            found.append([])
        found[atom].append(("spdfgh".index(parts[2]), int(parts[3]), int(parts[4] or 0)))
    return found
