"""States of a crystal's label at a few k-points, in the order in which a batch's errors have their orbitals."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Final

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from model.blocks.matrices import BlochSum
from model.electronic.fermi import k_mesh
from model.electronic.kinetic_damping import left_out_shares
from model.electronic.overlap import OverlapFactor
from training.data.frame import DatasetError
from training.fit.losses.errors import LEFT_OUT, STATES
from training.fit.losses.term import Label, Scheduled, standard_order

MESHES: Final = (2, 3)
"""Gamma-centred, of which the point with the smallest direct gap is taken: crystals are solved on such meshes, and where
frontier states nearly meet, as at graphene's K, an error moves most electrons. Points drawn at random are never there."""


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
    """States of a label at two k-points, one drawn at random, one with a small gap; several terms ask for those of one label.

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
    h_at, s_at = BlochSum(frame.hamiltonian), BlochSum(frame.overlap)
    n_occupied = space.count_electrons(structure.numbers, structure.charge) // 2
    drawn = _drawn(structure.positions_angstrom) * np.asarray(structure.pbc)
    points = np.stack([drawn, _smallest_gap(h_at, s_at, structure.pbc, n_occupied)])
    vectors = 2.0 * np.pi * points @ np.linalg.pinv(structure.cell_angstrom).T
    order, signs = standard_order(label)
    first_of = space.atom_offsets(structure.numbers)
    atoms = np.repeat(np.arange(len(structure)), np.diff(first_of))
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
        n_occupied,
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


def _drawn(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fractional k-point anywhere in the zone, (3,): the same one whenever the structure is read."""
    seed = int.from_bytes(hashlib.sha256(np.ascontiguousarray(positions).tobytes()).digest()[:8], "little")
    return np.random.default_rng(seed).uniform(-0.5, 0.5, 3)


def _smallest_gap(h_at: BlochSum, s_at: BlochSum, pbc: Sequence[bool], n_occupied: int) -> NDArray[np.float64]:
    """Fractional k-point of ``MESHES`` with the smallest direct gap, (3,); the first of equal ones."""
    counts = [tuple(count if periodic else 1 for periodic in pbc) for count in MESHES]
    points = np.concatenate([k_mesh(each, halved=True)[0] for each in counts])
    lumo = min(n_occupied, h_at.blocks.n_orbitals - 1)

    def gap(point: list[float]) -> float:
        both = (max(lumo - 1, 0), lumo)
        levels = scipy.linalg.eigh(h_at(point), s_at(point), eigvals_only=True, subset_by_index=both)
        return float(levels[-1] - levels[0])

    return np.array(min(points.tolist(), key=gap))
