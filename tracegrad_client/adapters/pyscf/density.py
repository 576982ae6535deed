"""A model's orbitals as the starting density of any calculation: another basis, another treatment of spin.

The model's orbitals are those of a closed shell in its own basis. In another basis they are projected, C' = S'⁻¹ S'' C with
S'' the overlap of the two bases, and made orthonormal again from the lowest up, so that what the lowest orbitals span does
not depend on the higher ones. For an ion or an open shell the orbitals are the neutral closed shell's at the same geometry
(the parent), filled with the electrons that there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from pyscf import gto, lib

from tracegrad_client.adapters.pyscf.calculation import Treatment
from tracegrad_client.guess import Guess

Matrix = NDArray[np.float64]


def projected(coefficients: Matrix, source: Any, target: Any, overlap: Matrix) -> Matrix:
    """Orbitals in another basis, orthonormal, (ao of target, mo).

    Args:
        coefficients: in the basis of ``source``, (ao of source, mo), in the order of their energies.
        source, target: PySCF molecules at the same geometry; ghost atoms and Cartesian functions are allowed in both.
        overlap: of the target, (ao, ao).
    """
    across = cross_overlap(target, source)
    raw = scipy.linalg.solve(overlap, across @ coefficients, assume_a="pos")
    # Cholesky's triangle is Gram-Schmidt in the order of the columns
    lower = np.linalg.cholesky(raw.T @ overlap @ raw)
    return np.asarray(scipy.linalg.solve_triangular(lower, raw.T, lower=True).T)


def cross_overlap(one: Any, other: Any) -> Matrix:
    """Overlap of two molecules' functions, (ao of one, ao of other), spherical or Cartesian each as it is."""
    if one.cart == other.cart:
        return np.asarray(gto.intor_cross("int1e_ovlp", one, other))
    # PySCF knows no mixed integrals; spherical functions are combinations of Cartesian ones
    across = gto.intor_cross("int1e_ovlp_cart", one, other)
    return np.asarray(across @ other.cart2sph_coeff() if one.cart else one.cart2sph_coeff().T @ across)


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
