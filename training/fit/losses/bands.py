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
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.units import MICROHARTREE_PER_HARTREE, MILLIHARTREE_PER_HARTREE
from training.fit.losses.bloch import BlochTerm, bloch_states
from training.fit.losses.errors import BatchErrors
from training.fit.losses.term import Label

WIDTH_HARTREE: Final = 0.2
"""w: distance from the Fermi level at which a state counts half."""


@dataclass(frozen=True)
class BandsTerm(BlochTerm):
    """The term."""

    setting: ClassVar[str] = "bands"

    def prepare(self, label: Label) -> Mapping[str, NDArray[np.float64]]:
        """States (:meth:`BlochStates.extras`); g, (k, state), and the sum of its squares, (k,).

        Raises:
            DatasetError: the label is not a crystal's with paired spins, or has no overlap.
        """
        states = bloch_states(label, self.damping)
        count = states.n_occupied
        fermi = states.energies[:, max(count - 1, 0) : count + 1].mean(axis=1)
        shares = 1.0 / (1.0 + np.abs(states.energies - fermi[:, None]) / WIDTH_HARTREE)
        return {"nearness": shares, "nearness_norm": np.square(shares).sum(axis=1), **states.extras()}

    def levels(self, errors: BatchErrors) -> Tensor:
        """Weighted error of the levels of each structure, (structure,), hartree."""
        shares = errors.extras["nearness"].square()
        squares = errors.squares_between_states * shares[..., :, None] * shares[..., None, :]
        return (squares.sum(dim=(2, 3)) / errors.extras["nearness_norm"] + 1e-16).sqrt().mean(dim=1)

    def __call__(self, errors: BatchErrors) -> Tensor:
        """Value of each structure, (structure,)."""
        return MILLIHARTREE_PER_HARTREE * self.levels(errors)

    def measures(self, errors: BatchErrors) -> Mapping[str, Tensor]:
        """Weighted error of the levels, µEh."""
        return {"bands_uEh": MICROHARTREE_PER_HARTREE * self.levels(errors)}
