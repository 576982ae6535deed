"""Fermi level of a large cell from the states around it alone: what lies below is full, what lies above is empty.

Inertia numbers the states that shift-invert finds (``electronic.sparse``), so that the same bands are compared at every
k-point, as ``electronic.fermi`` does with all of them.
"""

from __future__ import annotations

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
        hamiltonian: H(R), restricted or spinor, hartree.
        overlap: S(R) of the same orbitals.
        k_points: fractional, (k, 3), a mesh (:func:`model.electronic.fermi.k_mesh`).
        weights: of the k-points, sum 1, (k,).
        n_electrons: of a cell.
        n_states: found at each k-point.
        guess_hartree: where to begin the search.
        smearing_hartree: kT of a metal's occupations.
        damping: of a predicted H(k); None to take it as it is.

    Raises:
        ElectronCountError: electrons that fill no state or all of them.
        StructureError: as of :class:`SparseLevels`.
        NumericalError: a metal with more states near its level than ``n_states``, or a factorisation failed.
    """
    each = 2 if hamiltonian.spin == "restricted" else 1
    n_filled = round(n_electrons / each)
    found = []
    for k in k_points:
        found.append(SparseLevels(hamiltonian, overlap, k, damping).around_filling(n_filled, n_states, guess_hartree))
        guess_hartree = float(np.median(found[-1].energies))
    start = max(states.first for states in found)
    end = min(states.first + len(states.energies) for states in found)
    left = n_electrons - each * start
    if not 0 < left < each * (end - start):
        raise ElectronCountError(f"{n_electrons:g} electrons end outside of the {n_states} states that were found.")
    energies = np.stack([states.energies[start - states.first : end - states.first] for states in found])
    unknown = np.full(len(found), np.nan)
    bands = Bands(k_points, energies[None], unknown, np.zeros(len(found), dtype=np.int64), hamiltonian.spin)
    level = fermi_level(bands, weights, left, smearing=smearing_hartree)
    reach = MARGIN * smearing_hartree
    is_cut = energies[:, 0].max() > level.energy - reach or energies[:, -1].min() < level.energy + reach
    if level.is_metal and is_cut:
        raise NumericalError(
            f"The {end - start} states found around {level.energy:.4f} hartree do not reach beyond {MARGIN} kT of it.",
            hint="Ask for more states, or for a smaller smearing.",
        )
    return level
