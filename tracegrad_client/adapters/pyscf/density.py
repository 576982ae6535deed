"""A closed shell's orbitals as the starting density of any calculation, whatever its treatment of spin.

For an ion or an open shell the orbitals are the neutral closed shell's at the same geometry (the parent), filled with the
electrons that there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from pyscf import lib

from tracegrad_client.adapters.pyscf.calculation import Treatment
from tracegrad_client.guess import Guess

Matrix = NDArray[np.float64]


def starting_density(treatment: Treatment, orbitals: Sequence[Matrix], electrons: tuple[int, int]) -> Any:
    """The density matrix in the form in which a calculation expects it.

    Args:
        treatment: of spin.
        orbitals: orthonormal, lowest first, (ao, mo), for both spins or for each; at least as many as electrons of that spin.
        electrons: of each spin.

    Returns:
        (ao, ao) restricted, (2, ao, ao) unrestricted and restricted open-shell, (2 ao, 2 ao) generalised. The first three
        carry ``mo_coeff`` and ``mo_occ``, as PySCF's own densities do.
    """
    spins = (orbitals[0], orbitals[-1])
    occupations = [np.where(np.arange(c.shape[1]) < count, 1.0, 0.0) for c, count in zip(spins, electrons, strict=True)]
    densities = [(c * occupation) @ c.T for c, occupation in zip(spins, occupations, strict=True)]
    match treatment:
        case "restricted":
            return lib.tag_array(sum(densities), mo_coeff=spins[0], mo_occ=sum(occupations))
        case "unrestricted":
            return lib.tag_array(np.stack(densities), mo_coeff=np.stack(spins), mo_occ=np.stack(occupations))
        case "restricted open-shell":
            return lib.tag_array(np.stack(densities), mo_coeff=spins[0], mo_occ=sum(occupations))
        case "generalised":
            return scipy.linalg.block_diag(*densities)


def tagged_density(guess: Guess) -> Matrix:
    """A closed shell's density matrix with ``mo_coeff`` and ``mo_occ`` attached, as PySCF does with its own densities."""
    tagged: Matrix = lib.tag_array(guess.density_matrix, mo_coeff=guess.mo_coeff, mo_occ=guess.mo_occ)
    return tagged


def judged_density(treatment: Treatment, density: Any) -> Matrix:
    """The density as the guard judges it, each orbital counted twice: (ao, ao), (2, ao, ao) or (2 ao, 2 ao)."""
    plain = np.asarray(density)
    if treatment == "restricted open-shell":
        return np.asarray(plain.sum(axis=0))  # its Fock matrix is one for both spins, as in PySCF's own error vector
    return plain if treatment == "restricted" else 2.0 * plain
