"""First-order density error of a crystal: what an error dH(R) does to the density at a few k-points, in percent.

    100 sqrt(sum_{p<q} |w_pq M_pq|^2 / n_occ),    M = C^H (dH - G dH G)(k) C,    w_pq = (f_p - f_q) / (e_q - e_p)

with the label's states C, energies e and Fermi-Dirac occupations f (0 to 1), and G of ``kinetic_damping`` (0 without
``damping``); the mean over k-points that are drawn once for each structure. In an insulator it is the molecules' term
(``guess``): w is 1 / (e_a - e_i) between full and empty states and 0 else; for equal energies it is f (1 - f) / kT. Of an
error of H it sees what an SCF that starts from the density has to repair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from model.electronic.fermi import SMEARING_HARTREE
from training.fit.losses.bloch import BlochTerm, bloch_states
from training.fit.losses.errors import BatchErrors
from training.fit.losses.term import Label

SAME_ENERGY: Final = 1e-7
"""Hartree: closer ones are taken as equal."""


@dataclass(frozen=True)
class DensityTerm(BlochTerm):
    """The term; strength in percent of a density."""

    setting: ClassVar[str] = "density"

    def prepare(self, label: Label) -> Mapping[str, NDArray[np.float64]]:
        """States (:meth:`BlochStates.extras`); w_pq above the diagonal, 1/hartree, (k, state, state).

        Raises:
            DatasetError: the label is not a crystal's with paired spins, or has no overlap.
        """
        states = bloch_states(label, self.damping)
        energies, count = states.energies, states.n_occupied
        level = label.frame.fermi_energy_hartree
        fermi = energies[:, max(count - 1, 0) : count + 1].mean(axis=1, keepdims=True) if level is None else level
        filled = expit((fermi - energies) / SMEARING_HARTREE)
        apart = energies[:, None] - energies[:, :, None]
        same = np.abs(apart) < SAME_ENERGY
        slopes = (filled * (1.0 - filled) / SMEARING_HARTREE)[:, None]
        weights = np.where(same, slopes, (filled[:, :, None] - filled[:, None]) / np.where(same, 1.0, apart))
        return {
            "response": np.triu(weights, 1),
            "n_bands": np.array(float(count)),
            **states.extras(),
        }

    def __call__(self, errors: BatchErrors) -> Tensor:
        """Value of each structure, (structure,)."""
        squares = errors.squares_between_states * errors.extras["response"].square()
        return 100.0 * (squares.sum(dim=(2, 3)) / errors.extras["n_bands"][:, None] + 1e-16).sqrt().mean(dim=1)

    def measures(self, errors: BatchErrors) -> Mapping[str, Tensor]:
        """The density error, percent."""
        return {"density_percent": self(errors)}
