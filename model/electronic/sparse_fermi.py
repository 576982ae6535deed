"""Bands and Fermi level of a large cell from the states around the level alone: what lies below is full, above empty.

Inertia numbers the states that shift-invert finds (``electronic.sparse``), so that the same bands are compared at every
k-point, as ``electronic.fermi`` does with all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.electronic.bands import Bands
from model.electronic.fermi import SMEARING_HARTREE, FermiLevel, fermi_level
from model.electronic.kinetic_damping import KineticDamping
from model.electronic.sparse import SparseLevels
from model.errors import ElectronCountError, NumericalError

MARGIN: Final = 20
"""Units of kT on both sides of a metal's level that the states must reach: beyond, 2e-9 of a state is left."""


@dataclass(frozen=True, eq=False)
class NearBands:
    """The bands around the Fermi level that were found at every k-point.

    Attributes:
        bands: their energies, hartree; nothing is projected out.
        first: number of bands below them.
        n_dependent: eigenvalues of S(k) at most ``electronic.bands.PROJECTION_THRESHOLD``, the most of those k-points where
            they were counted.
    """

    bands: Bands
    first: int
    n_dependent: int

    def level(
        self, weights: NDArray[np.float64], n_electrons: float, *, smearing: float = SMEARING_HARTREE
    ) -> FermiLevel:
        """The level that holds the electrons; see :func:`model.electronic.fermi.fermi_level`.

        Raises:
            ElectronCountError: electrons that end outside of these bands.
            NumericalError: a metal with more states near its level than there are here.
        """
        each, n_bands = self.bands.electrons_each, self.bands.energies.shape[-1]
        left = n_electrons - each * self.first
        if not 0 < left < each * n_bands:
            raise ElectronCountError(f"{n_electrons:g} electrons end outside of the {n_bands} bands that were found.")
        level = fermi_level(self.bands, weights, left, smearing=smearing)
        counted = self.bands.energies[0, weights > 0]
        reach = MARGIN * smearing
        is_cut = counted[:, 0].max() > level.energy - reach or counted[:, -1].min() < level.energy + reach
        if level.is_metal and is_cut:
            raise NumericalError(
                f"The {n_bands} states found around {level.energy:.4f} hartree do not reach beyond {MARGIN} kT of it.",
                hint="Ask for more states, or for a smaller smearing.",
            )
        return level


def near_bands(
    hamiltonian: BlockSet,
    overlap: BlockSet,
    k_points: NDArray[np.float64],
    n_electrons: float,
    *,
    n_states: int = 40,
    guess_hartree: float = 0.0,
    damping: KineticDamping | None = None,
    n_checked: int = 0,
    on_point: Callable[[int], None] | None = None,
) -> NearBands:
    """Find the bands around where the electrons end.

    Args:
        hamiltonian: H(R), restricted or spinor, hartree.
        overlap: S(R) of the same orbitals.
        k_points: fractional, (k, 3).
        n_electrons: of a cell.
        n_states: bands that are found, half of them full and half of them empty; one or two less where a k-point has no more.
        guess_hartree: where to begin the search.
        damping: of a predicted H(k); None to take it as it is.
        n_checked: so many of the first k-points at which the overlap is looked at; its smallest eigenvalue is NaN at others.
        on_point: told the number of k-points that are done, after each.

    Raises:
        ElectronCountError: electrons that fill no state or all of them.
        StructureError: as of :class:`SparseLevels`.
        NumericalError: a factorisation failed.
    """
    each = 2 if hamiltonian.spin == "restricted" else 1
    n_filled = round(n_electrons / each)
    smallest, dependent, found = np.full(len(k_points), np.nan), 0, []
    for index, k in enumerate(k_points):
        levels = SparseLevels(hamiltonian, overlap, k, damping)
        if index < n_checked:
            smallest[index] = levels.smallest_overlap()
            dependent = max(dependent, levels.count_dependent())
        found.append(levels.around_filling(n_filled, n_states, guess_hartree))
        guess_hartree = float(np.median(found[-1].energies))
        if on_point is not None:
            on_point(index + 1)
    start = max(states.first for states in found)
    end = min(states.first + len(states.energies) for states in found)
    energies = np.stack([states.energies[start - states.first : end - states.first] for states in found])
    none = np.zeros(len(found), dtype=np.int64)
    return NearBands(Bands(k_points, energies[None], smallest, none, hamiltonian.spin), start, dependent)


def sparse_fermi_level(
    hamiltonian: BlockSet,
    overlap: BlockSet,
    k_points: NDArray[np.float64],
    weights: NDArray[np.float64],
    n_electrons: float,
    *,
    n_states: int = 40,
    guess_hartree: float = 0.0,
    smearing_hartree: float = SMEARING_HARTREE,
    damping: KineticDamping | None = None,
) -> FermiLevel:
    """Find the level that holds the electrons; the answer of :func:`model.electronic.fermi.fermi_level` for all bands.

    Args:
        hamiltonian, overlap, n_electrons, n_states, guess_hartree: as of :func:`near_bands`.
        k_points: fractional, (k, 3), a mesh (:func:`model.electronic.fermi.k_mesh`).
        weights: of the k-points, sum 1, (k,).
        smearing_hartree: kT of a metal's occupations.
        damping: of a predicted H(k); None to take it as it is.

    Raises:
        ElectronCountError, StructureError, NumericalError: as of :func:`near_bands` and :meth:`NearBands.level`.
    """
    near = near_bands(
        hamiltonian,
        overlap,
        k_points,
        n_electrons,
        n_states=n_states,
        guess_hartree=guess_hartree,
        damping=damping,
    )
    return near.level(weights, n_electrons, smearing=smearing_hartree)
