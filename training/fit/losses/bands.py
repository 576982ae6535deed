"""First-order error of a crystal's bands, in millihartree: what an error dH(R) does to levels and to their states.

    M_pq(k) = g_p C_p^dagger (dH - G dH G)(k) C_q g_q,    g_p = 1 / (1 + |e_p - e_F| / w)
    mean over k of sqrt(sum_pq |M_pq|^2 / sum_p g_p^2)

where G (``model.electronic.kinetic_damping``, 0 without ``damping``) leaves out what a damped spectrum does not see,
with the label's states C and energies e, at a few k-points of the zone that are drawn once for each structure. Entries of dH
count by what they do: along a nearly dependent combination of orbitals (eigenvalue s of S) a level moves by up to |dH| / s,
which the mean over entries does not see, and which makes ghost bands. States far from the Fermi level may err by more, in
proportion to their distance, because they are ghosts only if they come near it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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
from model.units import MICROHARTREE_PER_HARTREE, MILLIHARTREE_PER_HARTREE
from training.data.frame import DatasetError
from training.fit.losses.errors import BatchErrors
from training.fit.losses.term import Label, standard_order

N_POINTS: Final = 2
"""k-points of a structure."""
WIDTH_HARTREE: Final = 0.2
"""w: distance from the Fermi level at which a state counts half."""


@dataclass(frozen=True)
class BandsTerm:
    """The term.

    Attributes:
        strength: its weight.
        starts_at: share of the run's steps after which it enters.
        damping: delta of the kinetic damping that predictions will be solved with; 0 for none.
    """

    strength: float
    starts_at: float = 0.0
    damping: float = 0.0

    @property
    def name(self) -> str:
        """Of the term and of what it needs of a label."""
        return f"bands, damped by {self.damping:g}" if self.damping else "bands"

    def prepare(self, label: Label) -> Mapping[str, NDArray[np.float64]]:
        """k-points in 1/Å, 2 pi included, (k, 3); columns g_p C_p and, with damping, g_p G C_p, rows in the standard order,
        real and imaginary parts, (2, k, ao, state); sum of g_p^2, (k,).

        Coefficients of an orbital at r carry e^{-i k r}, so that blocks carry e^{i k (r_j + R - r_i)}.

        Raises:
            DatasetError: the label is not a crystal's with paired spins, or has no overlap.
        """
        space = label.prepared.blocks.space
        frame = label.frame.in_space(space)
        structure = frame.structure
        if structure.cell_angstrom is None or frame.overlap is None or frame.hamiltonian.spin != "restricted":
            raise DatasetError(
                f"{frame.molecule}/{frame.index} is not a crystal with paired spins and an overlap, which [loss] bands "
                "needs; set it to 0."
            )
        points = _points(structure.positions_angstrom) * np.asarray(structure.pbc)
        vectors = 2.0 * np.pi * points @ np.linalg.pinv(structure.cell_angstrom).T
        order, signs = standard_order(label)
        first_of = space.atom_offsets(structure.numbers)
        atoms = np.repeat(np.arange(len(structure)), np.diff(first_of))
        n_occupied = space.count_electrons(structure.numbers, structure.charge) // 2
        h_at, s_at = BlochSum(frame.hamiltonian), BlochSum(frame.overlap)
        names = ("states", "states_left_out") if self.damping else ("states",)
        found = {name: np.empty((2, len(points), len(order), len(order))) for name in names}
        norms = np.empty(len(points))
        for index, point in enumerate(points):
            overlap = s_at(point)
            energies, orbitals = scipy.linalg.eigh(h_at(point), overlap)
            fermi = energies[max(n_occupied - 1, 0) : n_occupied + 1].mean()
            shares = 1.0 / (1.0 + np.abs(energies - fermi) / WIDTH_HARTREE)
            norms[index] = np.square(shares).sum()
            phases = np.exp(-1j * (structure.positions_angstrom @ vectors[index]))[atoms]
            columns = {"states": orbitals}
            if self.damping:
                columns["states_left_out"] = left_out_shares(OverlapFactor.of(overlap), self.damping) @ orbitals
            for name, own in columns.items():
                weighted = signs[:, None] * (phases[:, None] * own * shares)[order]
                found[name][:, index] = weighted.real, weighted.imag
        return {"k_vectors": vectors, "states_norm": norms, **found}

    def weight(self, progress: float) -> float:
        """Its strength from ``starts_at`` on."""
        return self.strength if progress >= self.starts_at else 0.0

    def levels(self, errors: BatchErrors) -> Tensor:
        """Weighted error of the levels of each structure, (structure,), hartree."""
        mixed = _in_states(errors, "states")
        if self.damping:
            mixed = mixed - _in_states(errors, "states_left_out")
        squares = mixed.real.square() + mixed.imag.square()
        return (squares.sum(dim=(2, 3)) / errors.extras["states_norm"] + 1e-16).sqrt().mean(dim=1)

    def __call__(self, errors: BatchErrors) -> Tensor:
        """Value of each structure, (structure,)."""
        return MILLIHARTREE_PER_HARTREE * self.levels(errors)

    def measures(self, errors: BatchErrors) -> Mapping[str, Tensor]:
        """Weighted error of the levels, µEh."""
        return {"bands_uEh": MICROHARTREE_PER_HARTREE * self.levels(errors)}


def _in_states(errors: BatchErrors, name: str) -> Tensor:
    states = torch.complex(*errors.extras[name].unbind(dim=1))
    return states.mH @ errors.bloch_matrices @ states


def _points(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fractional k-points of the whole zone, (k, 3): the same ones whenever the structure is read."""
    seed = int.from_bytes(hashlib.sha256(np.ascontiguousarray(positions).tobytes()).digest()[:8], "little")
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (N_POINTS, 3))
