"""Density of states: bands on a mesh of k-points, each level a Gaussian.

    g(E) = n sum over k of w_k sum over bands of exp(-(E - e)^2 / 2 sigma^2) / (sigma sqrt(2 pi)),   N(E) = integral of g

with n electrons a state, so that N at the Fermi level is the number of electrons, but for what sigma carries across it. N is
exact (error functions), not a sum over the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from model.electronic.bands import Bands
from model.errors import StructureError


@dataclass(frozen=True, eq=False)
class DensityOfStates:
    """States of a cell.

    Attributes:
        energies: where, in the bands' unit, (energy,).
        values: electrons that fit per unit of energy, (spin, energy).
        integrated: electrons that fit below, (spin, energy).
    """

    energies: NDArray[np.float64]
    values: NDArray[np.float64]
    integrated: NDArray[np.float64]


def density_of_states(
    bands: Bands, weights: NDArray[np.float64], energies: NDArray[np.float64], sigma: float
) -> DensityOfStates:
    """Broaden the bands of a mesh.

    Args:
        bands: on a mesh (``fermi.k_mesh``).
        weights: of its k-points, sum 1, (k,).
        energies: where it is wanted, in the bands' unit, (energy,).
        sigma: standard deviation of the Gaussians, the same unit, above 0.

    Raises:
        StructureError: not one weight a k-point, or no width.
    """
    if np.shape(weights) != (len(bands.k_points),) or not sigma > 0:
        raise StructureError(f"{len(bands.k_points)} k-points need as many weights, and a width above 0.")
    values = np.zeros((len(bands.energies), len(energies)))
    integrated = np.zeros_like(values)
    for spin, levels in enumerate(bands.energies):
        for weight, at_k in zip(bands.electrons_each * weights, levels, strict=True):
            distance = (energies - at_k[np.isfinite(at_k), None]) / sigma
            values[spin] += weight * np.exp(-0.5 * distance**2).sum(axis=0)
            integrated[spin] += weight * ndtr(distance).sum(axis=0)
    return DensityOfStates(energies, values / (sigma * np.sqrt(2 * np.pi)), integrated)
