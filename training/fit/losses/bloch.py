"""States of a crystal's label at a few k-points, in the order in which a batch's errors have their orbitals."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Final

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from model.blocks.matrices import BlochSum
from model.electronic.kinetic_damping import left_out_shares
from model.electronic.overlap import OverlapFactor
from training.data.frame import DatasetError
from training.fit.losses.errors import LEFT_OUT, STATES
from training.fit.losses.term import Label, Scheduled, standard_order

N_POINTS: Final = 2
"""k-points of a structure."""


@dataclass(frozen=True, eq=False)
class BlochStates:
    """States of a label.

    Coefficients of an orbital at r carry e^{-i k r}, so that blocks carry e^{i k (r_j + R - r_i)}.

    Attributes:
        vectors: k-points in 1/Å, 2 pi included, (k, 3).
        energies: (k, state), hartree.
        columns: C, rows in the standard order, (k, ao, state).
        left_out: the part of C that kinetic damping takes off, G C; None without damping.
        n_occupied: doubly occupied bands.
    """

    vectors: NDArray[np.float64]
    energies: NDArray[np.float64]
    columns: NDArray[np.complex128]
    left_out: NDArray[np.complex128] | None
    n_occupied: int

    def extras(self) -> dict[str, NDArray[np.float64]]:
        """Arrays of a sample: the k-points; C and, with damping, G C, real and imaginary parts, (2, k, ao, state)."""
        found = {"k_vectors": self.vectors, STATES: _parts(self.columns)}
        return found if self.left_out is None else {**found, LEFT_OUT: _parts(self.left_out)}


@lru_cache(maxsize=1)
def bloch_states(label: Label, damping: float) -> BlochStates:
    """States of a label at k-points that are drawn once for each structure; several terms ask for those of one label.

    Args:
        label: of a crystal.
        damping: delta of the kinetic damping; 0 for none.

    Raises:
        DatasetError: the label is not a crystal's with paired spins, or has no overlap.
    """
    space = label.prepared.blocks.space
    frame = label.frame.in_space(space)
    structure = frame.structure
    if structure.cell_angstrom is None or frame.overlap is None or frame.hamiltonian.spin != "restricted":
        raise DatasetError(
            f"{frame.molecule}/{frame.index} is not a crystal with paired spins and an overlap, which [loss] bands and "
            "density need; set them to 0."
        )
    points = _points(structure.positions_angstrom) * np.asarray(structure.pbc)
    vectors = 2.0 * np.pi * points @ np.linalg.pinv(structure.cell_angstrom).T
    order, signs = standard_order(label)
    first_of = space.atom_offsets(structure.numbers)
    atoms = np.repeat(np.arange(len(structure)), np.diff(first_of))
    h_at, s_at = BlochSum(frame.hamiltonian), BlochSum(frame.overlap)
    energies, columns, left_out = [], [], []
    for point, vector in zip(points, vectors, strict=True):
        overlap = s_at(point)
        levels, orbitals = scipy.linalg.eigh(h_at(point), overlap)
        phases = np.exp(-1j * (structure.positions_angstrom @ vector))[atoms]
        energies.append(levels)
        columns.append(signs[:, None] * (phases[:, None] * orbitals)[order])
        if damping:
            own = left_out_shares(OverlapFactor.of(overlap), damping) @ orbitals
            left_out.append(signs[:, None] * (phases[:, None] * own)[order])
    return BlochStates(
        vectors,
        np.array(energies),
        np.array(columns),
        np.array(left_out) if damping else None,
        space.count_electrons(structure.numbers, structure.charge) // 2,
    )


@dataclass(frozen=True)
class BlochTerm(Scheduled):
    """What terms of a crystal's states at k-points share.

    Attributes:
        damping: delta of the kinetic damping that predictions will be solved with; 0 for none. Terms of
            one run have the same.
    """

    setting: ClassVar[str]
    damping: float = 0.0

    @property
    def name(self) -> str:
        """Of the term and of what it needs of a label."""
        return f"{self.setting}, damped by {self.damping:g}" if self.damping else self.setting


def _parts(columns: NDArray[np.complex128]) -> NDArray[np.float64]:
    return np.stack([columns.real, columns.imag])


def _points(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fractional k-points of the whole zone, (k, 3): the same ones whenever the structure is read."""
    seed = int.from_bytes(hashlib.sha256(np.ascontiguousarray(positions).tobytes()).digest()[:8], "little")
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (N_POINTS, 3))
