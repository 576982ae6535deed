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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.units import MICROHARTREE_PER_HARTREE, MILLIHARTREE_PER_HARTREE
from training.fit.losses.bloch import BlochStates, in_states
from training.fit.losses.errors import BatchErrors
from training.fit.losses.term import Label

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
        """k-points, columns g_p C_p and, with damping, g_p G C_p (:meth:`BlochStates.extras`); sum of g_p^2, (k,).

        Raises:
            DatasetError: the label is not a crystal's with paired spins, or has no overlap.
        """
        states = BlochStates.of(label, self.damping, "bands")
        count = states.n_occupied
        fermi = states.energies[:, max(count - 1, 0) : count + 1].mean(axis=1)
        shares = 1.0 / (1.0 + np.abs(states.energies - fermi[:, None]) / WIDTH_HARTREE)
        return {"states_norm": np.square(shares).sum(axis=1), **states.extras("states", shares)}

    def weight(self, progress: float) -> float:
        """Its strength from ``starts_at`` on."""
        return self.strength if progress >= self.starts_at else 0.0

    def levels(self, errors: BatchErrors) -> Tensor:
        """Weighted error of the levels of each structure, (structure,), hartree."""
        mixed = in_states(errors, "states", damped=self.damping > 0)
        squares = mixed.real.square() + mixed.imag.square()
        return (squares.sum(dim=(2, 3)) / errors.extras["states_norm"] + 1e-16).sqrt().mean(dim=1)

    def __call__(self, errors: BatchErrors) -> Tensor:
        """Value of each structure, (structure,)."""
        return MILLIHARTREE_PER_HARTREE * self.levels(errors)

    def measures(self, errors: BatchErrors) -> Mapping[str, Tensor]:
        """Weighted error of the levels, µEh."""
        return {"bands_uEh": MICROHARTREE_PER_HARTREE * self.levels(errors)}
