"""States of a crystal's label at a few k-points, in the order in which a batch's errors have their orbitals."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.blocks.matrices import BlochSum
from model.electronic.kinetic_damping import left_out_shares
from model.electronic.overlap import OverlapFactor
from training.data.frame import DatasetError
from training.fit.losses.errors import BatchErrors
from training.fit.losses.term import Label, standard_order

N_POINTS: Final = 2
"""k-points of a structure."""
LEFT_OUT: Final = "_left_out"
"""Ends the names of what kinetic damping takes off."""


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

    @classmethod
    def of(cls, label: Label, damping: float, term: str) -> BlochStates:
        """Of a label, at k-points that are drawn once for each structure.

        Args:
            label: of a crystal.
            damping: delta of the kinetic damping; 0 for none.
            term: name of the setting that asks.

        Raises:
            DatasetError: the label is not a crystal's with paired spins, or has no overlap.
        """
        space = label.prepared.blocks.space
        frame = label.frame.in_space(space)
        structure = frame.structure
        if structure.cell_angstrom is None or frame.overlap is None or frame.hamiltonian.spin != "restricted":
            raise DatasetError(
                f"{frame.molecule}/{frame.index} is not a crystal with paired spins and an overlap, which [loss] {term} "
                "needs; set it to 0."
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
        return cls(
            vectors,
            np.array(energies),
            np.array(columns),
            np.array(left_out) if damping else None,
            space.count_electrons(structure.numbers, structure.charge) // 2,
        )

    def extras(self, name: str, factors: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Arrays of a sample: the k-points; a 1 for each orbital; and the columns times (k, state) factors as ``name``, real
        and imaginary parts, (2, k, ao, state)."""
        found = {"k_vectors": self.vectors, "k_orbitals": np.ones(self.columns.shape[1])}
        for key, columns in ((name, self.columns), (name + LEFT_OUT, self.left_out)):
            if columns is not None:
                scaled = columns * factors[:, None]
                found[key] = np.stack([scaled.real, scaled.imag])
        return found


def in_states(errors: BatchErrors, name: str, *, damped: bool) -> Tensor:
    """The error between the states that :meth:`BlochStates.extras` stored, (structure, k, state, state), hartree: C^H dH C,
    and less (G C)^H dH (G C) where it is damped."""

    def between(key: str) -> Tensor:
        states = torch.complex(*errors.extras[key].unbind(dim=1))
        return states.mH @ errors.bloch_matrices @ states

    return between(name) - between(name + LEFT_OUT) if damped else between(name)


def _points(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fractional k-points of the whole zone, (k, 3): the same ones whenever the structure is read."""
    seed = int.from_bytes(hashlib.sha256(np.ascontiguousarray(positions).tobytes()).digest()[:8], "little")
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (N_POINTS, 3))
