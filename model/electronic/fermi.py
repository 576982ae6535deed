"""Fermi level, band gap, and whether a crystal is a metal, from its bands on a k-mesh.

    N = sum over k of w_k sum over states of g / (1 + exp((e - mu) / kT)),    sum of w_k = 1, g electrons a state

A crystal is an insulator if at every k-point of the mesh the same bands are full, those of alpha and of beta for themselves;
its level is then the middle of the gap. A mesh can miss a crossing: a semimetal such as graphene needs K on the mesh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.optimize
from numpy.typing import NDArray
from scipy.special import expit

from model.electronic.bands import Bands
from model.errors import ElectronCountError, NumericalError, StructureError

SMEARING_HARTREE: Final = 9.5e-4
"""kT of the Fermi-Dirac occupations, 300 K."""

GAP_TOLERANCE_HARTREE: Final = 1e-4
"""Bands closer than this (3 meV) are taken to touch: the crystal counts as a metal."""

SEARCH_RANGE: Final = 50
"""Units of kT beyond the lowest and highest band, between which the chemical potential lies."""

WEIGHT_TOLERANCE: Final = 1e-9
"""What the sum of the k-points' weights may differ from 1."""


@dataclass(frozen=True)
class FermiLevel:
    """Where the electrons of a crystal end.

    Attributes:
        energy: Fermi level, hartree; the middle of the gap of an insulator.
        gap: lowest empty less highest full energy on the mesh, hartree; 0 for a metal, None if there is no empty band.
        is_metal: whether a band is partly full.
        valence_maximum, conduction_minimum: edges of the gap, hartree; None for a metal (or if there is no empty band).
    """

    energy: float
    gap: float | None
    is_metal: bool
    valence_maximum: float | None
    conduction_minimum: float | None


def k_mesh(counts: Sequence[int], *, halved: bool = False) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gamma-centred mesh.

    Args:
        counts: points along each reciprocal lattice vector, three numbers from 1.
        halved: leave out -k of each pair; right where e(-k) = e(k): real H(R), or time reversal.

    Returns:
        fractional coordinates in [0, 1), (k, 3); weights, sum 1, (k,).

    Raises:
        StructureError: a count below 1.
    """
    sizes = np.asarray(counts, dtype=np.int64)
    if sizes.shape != (3,) or sizes.min() < 1:
        raise StructureError(f"A k-mesh needs three counts from 1, not {tuple(counts)}.")
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in sizes), indexing="ij"), axis=-1).reshape(-1, 3)
    weights = np.ones(len(grid))
    if halved:
        place = np.array([sizes[1] * sizes[2], sizes[2], 1])
        own, other = grid @ place, (-grid % sizes) @ place
        keep = own <= other
        weights = np.where(own == other, 1.0, 2.0)[keep]
        grid = grid[keep]
    return grid / sizes, weights / weights.sum()


def occupations(
    energies: NDArray[np.float64], level: float, electrons_each: int, smearing: float = SMEARING_HARTREE
) -> NDArray[np.float64]:
    """Fermi-Dirac occupations, 0 to ``electrons_each``, in the shape of ``energies``; 0 where these are NaN.

    Args:
        energies: in hartree.
        level: Fermi level, hartree.
        electrons_each: electrons that a state holds.
        smearing: kT, hartree, above 0.
    """
    return np.asarray(electrons_each * expit((level - np.nan_to_num(energies, nan=np.inf, posinf=np.inf)) / smearing))


def chemical_potential(
    energies: NDArray[np.float64],
    weights: NDArray[np.float64],
    n_electrons: float,
    electrons_each: int,
    smearing: float = SMEARING_HARTREE,
) -> float:
    """The level at which Fermi-Dirac occupations add up to the electrons, hartree; in a wide gap any of many.

    Args:
        energies: (spin, k, band), hartree; NaN or infinite where there is no band.
        weights: of the k-points, sum 1, (k,).
        n_electrons: of a cell.
        electrons_each: electrons that a state holds.
        smearing: kT, hartree, above 0.

    Raises:
        ElectronCountError: no electrons, or as many as all states hold or more.
        NumericalError: the search failed.
    """
    finite = energies[np.isfinite(energies)]
    capacity = float(electrons_each * (np.isfinite(energies).sum(axis=(0, 2)) @ weights))
    if not 0 < n_electrons < capacity:
        raise ElectronCountError(f"{n_electrons:g} electrons do not fit into bands for {capacity:g}.", field="charge")

    def excess(level: float) -> float:
        return float(occupations(energies, level, electrons_each, smearing).sum(axis=(0, 2)) @ weights) - n_electrons

    beyond = SEARCH_RANGE * smearing
    try:
        return float(scipy.optimize.brentq(excess, finite.min() - beyond, finite.max() + beyond, xtol=1e-15))
    except (ValueError, RuntimeError) as error:
        raise NumericalError(f"No Fermi level was found for {n_electrons:g} electrons: {error}.") from error


def fermi_level(
    bands: Bands, weights: NDArray[np.float64], n_electrons: float, *, smearing: float = SMEARING_HARTREE
) -> FermiLevel:
    """Find the level that holds the electrons.

    Args:
        bands: on a mesh (:func:`k_mesh`), hartree.
        weights: of the k-points, sum 1, (k,).
        n_electrons: of a cell, those that the orbitals describe (``OrbitalSpace.count_electrons``).
        smearing: kT, hartree, of a metal's occupations.

    Raises:
        StructureError: not one weight a k-point, or weights whose sum is not 1.
        ElectronCountError: none, or more electrons than the bands hold.
        NumericalError: the search failed.
    """
    each = bands.electrons_each
    if np.shape(weights) != (len(bands.k_points),) or not abs(np.sum(weights) - 1.0) < WEIGHT_TOLERANCE:
        raise StructureError(f"{len(bands.k_points)} k-points need as many weights, with the sum 1.")
    energies = np.nan_to_num(bands.energies, nan=np.inf)
    fewest = np.isfinite(energies).sum(axis=-1).min(axis=1).sum()
    if not 0 < n_electrons <= each * fewest:
        raise ElectronCountError(f"{n_electrons} electrons do not fit into {fewest} bands of {each}.", field="charge")
    edges = _edges(energies, round(n_electrons / each) if n_electrons % each == 0 else None)
    if edges is not None:
        highest, lowest = edges
        if lowest == np.inf:
            return FermiLevel(highest, None, False, highest, None)
        if lowest - highest > GAP_TOLERANCE_HARTREE:
            return FermiLevel(0.5 * (highest + lowest), lowest - highest, False, highest, lowest)

    level = chemical_potential(energies, weights, n_electrons, each, smearing)
    return FermiLevel(level, 0.0, True, None, None)


def _edges(energies: NDArray[np.float64], n_states: int | None) -> tuple[float, float] | None:
    """Highest full and lowest empty energy if the same bands are full at every k-point, else None.

    Args:
        energies: (spin, k, band), infinite where there is no band.
        n_states: full states at each k-point, None if the electrons do not fill whole states.
    """
    if n_states is None:
        return None
    everything = np.sort(np.concatenate(list(energies), axis=-1), axis=-1)  # (k, band of either spin)
    highest = float(everything[:, n_states - 1].max())
    lowest = float(everything[:, n_states:].min(initial=np.inf))
    full = (energies <= highest).sum(axis=-1)
    if highest > lowest or not (full == full[:, :1]).all():
        return None
    return highest, lowest
