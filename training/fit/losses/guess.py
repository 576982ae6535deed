"""First-order density error: what an error dH does to the density of a closed-shell molecule.

    100 |D| / sqrt(n_occ),    D_ia = C_i^T dH C_a / (e_a - e_i)   with the label's orbitals C and energies e

It needs no eigensolver in the gradient, and degenerate levels are harmless because whole blocks are summed. It is blind to
the occupied-occupied and virtual-virtual blocks of the error, which the blocks term looks after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from training.fit.losses.errors import BatchErrors
from training.fit.losses.term import Label, Scheduled


@dataclass(frozen=True)
class GuessTerm(Scheduled):
    """The term; strength in percent of a density."""

    name: str = "guess"

    def prepare(self, label: Label) -> Mapping[str, NDArray[np.float64]]:
        """Orbitals (ao, occupied or virtual) in the standard order, 1 / (e_a - e_i) in 1/hartree, (occupied, virtual)."""
        energies, orbitals = label.orbitals
        count = label.n_occupied
        return {
            "occupied": orbitals[:, :count],
            "virtual": orbitals[:, count:],
            "inverse_gaps": 1.0 / (energies[None, count:] - energies[:count, None]),
            "n_occupied": np.array(float(count)),
        }

    def density(self, errors: BatchErrors) -> Tensor:
        """|D_ia| (Frobenius norm) of each molecule, (structure,)."""
        extras = errors.extras
        rotated = errors.on_occupied.transpose(1, 2) @ extras["virtual"] * extras["inverse_gaps"]
        return (rotated.square().sum(dim=(1, 2)) + 1e-16).sqrt()

    def __call__(self, errors: BatchErrors) -> Tensor:
        """Value of each molecule, (structure,)."""
        return 100.0 * self.density(errors) / errors.extras["n_occupied"].sqrt()

    def measures(self, errors: BatchErrors) -> Mapping[str, Tensor]:
        """|D_ia|, and over sqrt(n_occupied)."""
        density = self.density(errors)
        return {"density": density, "density_per_electron": density / errors.extras["n_occupied"].sqrt()}
