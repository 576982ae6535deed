"""A model's orbitals in another basis than its own: its Fock matrix carried over, or its orbitals projected.

Carried over is what the model says beyond a potential that every basis knows (docs/decisions/0023-other-bases.md):

    F' = V' + c S' + Qᵀ (F - V - c S) Q,    Q = S⁻¹ S'',    c = <F - V, S> / <S, S>

with S and S' the overlaps of the model's and the other basis, S'' that of both, and V and V' the kinetic energy, the nuclei
and a superposition of atomic potentials in each (SAP; Lehtola, Visscher and Engel, J. Chem. Phys. 152, 144105, 2020), which
needs no grid. The functions that the other basis adds then polarise the molecule, where projected orbitals leave them empty.
Where PySCF has no such potentials (older ones, rare elements) orbitals are projected, C' = S'⁻¹ S''ᵀ C, and made orthonormal
again from the lowest up, so that what the lowest orbitals span does not depend on the higher ones.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from pyscf import gto
from pyscf.df import incore

from tracegrad_client.adapters.pyscf.orbitals import model_molecule
from tracegrad_client.guess import Guess

Matrix = NDArray[np.float64]

POTENTIALS: Final = "sapgrasplarge"
"""PySCF's name of the atomic potentials: charges of Gaussians, exchange of the local density, relativistic atoms."""


def orbitals_in_basis(guess: Guess, mol: Any, overlap: Matrix, needed: int) -> tuple[Matrix, Matrix]:
    """Orbitals of a guess in the basis of another molecule at the same geometry, lowest first.

    Args:
        guess: in the model's basis.
        mol: ghost atoms and Cartesian functions are allowed.
        overlap: of ``mol``, (ao, ao).
        needed: orbitals that will be filled.

    Returns:
        orthonormal orbitals, (ao, mo), and their energies, (mo,), hartree: all of them where the Fock matrix is carried over,
        the needed ones, with the model's energies, where orbitals are projected.

    Raises:
        GuessMismatchError: PySCF's basis of the model's name is not the model's.
    """
    source = model_molecule(guess, mol)
    charges = atomic_charges(source)
    if charges is None:
        return projected(guess.mo_coeff[:, :needed], source, mol, overlap), guess.mo_energy[:needed]
    fock = guess.fock(np.asarray(source.intor_symmetric("int1e_ovlp")))
    energies, coefficients = scipy.linalg.eigh(carried_over(fock, source, mol, charges), overlap)
    return np.asarray(coefficients), np.asarray(energies)


def carried_over(fock: Matrix, source: Any, target: Any, charges: list[Matrix]) -> Matrix:
    """F' of a Fock matrix, (ao of target, ao of target), hartree.

    Args:
        fock: in the basis of ``source``, (ao of source, ao of source).
        source, target: PySCF molecules at the same geometry, the first one without ghost atoms.
        charges: of :func:`atomic_charges`.
    """
    overlap = source.intor_symmetric("int1e_ovlp")
    across = scipy.linalg.solve(overlap, cross_overlap(source, target), assume_a="pos")
    beyond = fock - reference(source, source, charges)
    shift = np.vdot(beyond, overlap) / np.vdot(overlap, overlap)  # the added functions' levels move with the others
    outer = reference(target, source, charges) + shift * target.intor_symmetric("int1e_ovlp")
    return np.asarray(outer + across.T @ (beyond - shift * overlap) @ across)


def atomic_charges(nuclei: Any) -> list[Matrix] | None:
    """Exponents and charges, (Gaussian, 2), of each atom's electrons in PySCF's atomic potentials; None where it has none."""
    found: dict[str, Matrix] = {}
    for symbol in {nuclei.atom_pure_symbol(atom) for atom in range(nuclei.natm)}:
        try:
            shells = gto.basis.load(POTENTIALS, symbol)
        except Exception:  # of a name that it does not know, which error depends on PySCF's version
            return None
        shells = shells[symbol] if isinstance(shells, dict) else shells
        found[symbol] = np.asarray(shells[0][1:], dtype=np.float64)
    return [found[nuclei.atom_pure_symbol(atom)] for atom in range(nuclei.natm)]


def reference(mol: Any, nuclei: Any, charges: list[Matrix]) -> Matrix:
    """Kinetic energy, nuclei and atomic potentials in the basis of ``mol``, (ao, ao), hartree.

    Args:
        mol: the basis.
        nuclei: a molecule with the same real atoms and no others.
        charges: of :func:`atomic_charges`.
    """
    total = mol.intor_symmetric("int1e_kin") + mol.intor_symmetric("int1e_nuc")
    for coordinates, gaussians in zip(nuclei.atom_coords(), charges, strict=True):
        atom = gto.fakemol_for_cgtf_charge(coordinates[None], gaussians[:, 0], gaussians[:, 1])
        atom.cart = mol.cart  # PySCF wants both alike; of s functions it is the same
        total -= incore.aux_e2(mol, atom, "int3c2e")[:, :, 0]
    return np.asarray(total)


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
