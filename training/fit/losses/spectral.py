"""First-order error of orbital energies of a closed-shell molecule, in millihartree.

    mean of |C_p^T dH C_p| over all occupied orbitals and the lowest empty ones, with the label's orbitals

WALoss (arXiv:2502.19227) reduced to the levels that are read. It is meant for the end of a run; from scratch such a term
damages H (method of QHFlow, arXiv:2505.18817, App. F).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.units import MICROHARTREE_PER_HARTREE, MILLIHARTREE_PER_HARTREE
from training.fit.losses.errors import BatchErrors
from training.fit.losses.term import Label, Scheduled

N_EMPTY_LEVELS: Final = 2
"""LUMO and the one above."""


@dataclass(frozen=True)
class SpectralTerm(Scheduled):
    """The term."""

    name: str = "spectral"

    def prepare(self, label: Label) -> Mapping[str, NDArray[np.float64]]:
        """Orbitals in the standard order: occupied (ao, occupied) and the lowest empty ones (ao, empty)."""
        _, orbitals = label.orbitals
        count = label.n_occupied
        return {
            "occupied": orbitals[:, :count],
            "lowest_empty": orbitals[:, count : count + N_EMPTY_LEVELS],
            "n_occupied": np.array(float(count)),
        }

    def levels(self, errors: BatchErrors) -> Tensor:
        """Mean error of the levels of each molecule, (structure,), hartree."""
        occupied, low = errors.extras["occupied"], errors.extras["lowest_empty"]
        total = (occupied * errors.on_occupied).sum(dim=1).abs().sum(dim=1)
        total = total + (low * (errors.matrix @ low)).sum(dim=1).abs().sum(dim=1)
        return total / (errors.extras["n_occupied"] + low.shape[2])

    def __call__(self, errors: BatchErrors) -> Tensor:
        """Value of each molecule, (structure,)."""
        return MILLIHARTREE_PER_HARTREE * self.levels(errors)

    def measures(self, errors: BatchErrors) -> Mapping[str, Tensor]:
        """Mean error of the levels, µEh."""
        return {"levels_uEh": MICROHARTREE_PER_HARTREE * self.levels(errors)}
