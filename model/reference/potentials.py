"""Coulomb potentials of nuclei and of the fitted reference's Gaussian charges.

``DirectPotentials`` has them summed over the atoms by a kernel, twice: charges that scale with the atoms' own are known only
after step 1. ``StoredPotentials`` keeps the three-centre integrals of one pass: for machines without the kernel, and for the
fit, which wants every coefficient's own matrix. Both give the same matrices to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.blocks.matrices import unpack_triangle
from model.reference.interface import Matrix

Rows = Mapping[int, Matrix]
"""Charge distributions of each element, {element: (set, exponent)}."""


class ThreeCentre(Protocol):
    """Integrals (mu nu | g); ``integrals.pyscf_molecule.MoleculeIntegrals`` has them."""

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Atomic numbers, (atom,)."""
        ...

    @property
    def overlap(self) -> Matrix:
        """S, (ao, ao)."""
        ...

    @property
    def nuclear(self) -> Matrix:
        """Potential energy in the field of the nuclei, (ao, ao), hartree."""
        ...

    def coulomb(self, exponents: NDArray[np.float64], charges: NDArray[np.float64]) -> Matrix | None:
        """Matrices of charges on the atoms, (set, atom, exponent) -> (set, ao, ao), or None where no kernel makes them; see
        ``integrals.coulomb.coulomb_potentials``."""
        ...

    def potentials(self, exponents: NDArray[np.float64], contractions: Rows) -> Iterable[tuple[slice, Matrix]]:
        """Coulomb integrals of Gaussian charges: contractions {element: (contraction, exponent)} -> chunks
        (atoms, (atom, contraction, packed lower triangle)); see ``integrals.coulomb.gaussian_potentials``."""
        ...


class Potentials(Protocol):
    """Of one molecule."""

    def of_equal_atoms(self) -> Matrix:
        """Potentials of the charges that all atoms of an element have, and of the nuclei in each set if they were asked for,
        (set, ao, ao), hartree."""
        ...

    def of_charged_atoms(self, charges: NDArray[np.float64]) -> Matrix:
        """Potentials of the charges that scale with the atoms' own, (set, ao, ao), hartree.

        Args:
            charges: of the atoms, (atom,).
        """
        ...


def potentials_of(
    molecule: ThreeCentre, exponents: NDArray[np.float64], equal: Rows, scaled: Rows | None, *, nuclei: bool
) -> Potentials:
    """By the kernel, if there is one for so few sets, else kept.

    Args:
        molecule: gives the integrals.
        exponents: of the Gaussians, (exponent,), 1/bohr^2.
        equal, scaled: sets of charges with the two roles; None for no scaled ones.
        nuclei: whether each set of equal charges has the nuclei's too.
    """
    direct = DirectPotentials.of(molecule, exponents, equal, scaled, nuclei=nuclei)
    return StoredPotentials.of(molecule, exponents, equal, scaled, nuclei=nuclei) if direct is None else direct


@dataclass(frozen=True, eq=False)
class DirectPotentials:
    """Of one molecule, summed over atoms.

    Attributes:
        molecule: gives the integrals.
        exponents: of the Gaussians, (exponent,).
        matrices: of each set of equal charges, (set, ao, ao).
        scaled: charges of each atom in the sets that scale with its own, (set, atom, exponent).
    """

    molecule: ThreeCentre
    exponents: NDArray[np.float64]
    matrices: Matrix
    scaled: NDArray[np.float64]

    @classmethod
    def of(
        cls, molecule: ThreeCentre, exponents: NDArray[np.float64], equal: Rows, scaled: Rows | None, *, nuclei: bool
    ) -> DirectPotentials | None:
        """The first of the two passes; None where no kernel makes it. Arguments as for :func:`potentials_of`."""
        numbers = molecule.numbers.tolist()
        charges = np.stack([equal[z] for z in numbers], axis=1)
        # nuclei are points, which the exponents do not hold: one more
        points = np.concatenate([[np.inf], exponents])
        padded = np.zeros((len(charges), len(numbers), len(points)))
        padded[:, :, 0] = -molecule.numbers if nuclei else 0.0
        padded[:, :, 1:] = charges
        matrices = molecule.coulomb(points, padded)
        if matrices is None:
            return None
        none = np.zeros((0, len(numbers), len(exponents)))
        own = none if scaled is None else np.stack([scaled[z] for z in numbers], axis=1)
        return cls(molecule, exponents, matrices, own)

    def of_equal_atoms(self) -> Matrix:
        return self.matrices

    def of_charged_atoms(self, charges: NDArray[np.float64]) -> Matrix:
        matrices = self.molecule.coulomb(self.exponents, self.scaled * charges[:, None])
        assert matrices is not None, "the kernel served a moment ago"
        return matrices


@dataclass(frozen=True, eq=False)
class StoredPotentials:
    """Of one molecule; ``triangle`` is ao (ao + 1) / 2.

    Attributes:
        nuclei: of the nuclei, (ao, ao), where they belong to the equal charges; else None.
        equal: of charges that are the same on all atoms of an element, summed over atoms, (set, triangle).
        atoms: of each atom's rows of Gaussians, (atom, row, triangle).
        weights: of those rows in each set of charges that scale with the atom's own, (set, atom, row).
    """

    nuclei: Matrix | None
    equal: Matrix
    atoms: Matrix
    weights: Matrix

    @classmethod
    def of(
        cls, molecule: ThreeCentre, exponents: NDArray[np.float64], equal: Rows, scaled: Rows | None, *, nuclei: bool
    ) -> StoredPotentials:
        """One pass over the integrals, contracted while they are there; only those of ``scaled`` are kept for each atom.

        Few sets (H0) are contracted inside the integrals. If there are more of them than Gaussians (the fit), each Gaussian
        is integrated by itself and the sets are made of it.

        Arguments as for :func:`potentials_of`.
        """
        numbers, n_ao = molecule.numbers.tolist(), len(molecule.overlap)
        elements = sorted(set(numbers))
        none = np.zeros((0, len(exponents)))
        first = {z: equal[z] for z in elements}
        second = {z: none if scaled is None else scaled[z] for z in elements}
        n_equal, n_scaled = len(first[elements[0]]), len(second[elements[0]])
        if n_equal + n_scaled <= len(exponents):
            contractions = {z: np.concatenate([first[z], second[z]]) for z in elements}
            rows = np.eye(n_equal + n_scaled)
            first, second = dict.fromkeys(elements, rows[:n_equal]), dict.fromkeys(elements, rows[n_equal:, n_equal:])
            kept = slice(n_equal, None)
        else:
            contractions = dict.fromkeys(elements, np.eye(len(exponents)))
            kept = slice(None) if n_scaled else slice(0, 0)
            second = {z: second[z][:, kept] for z in elements}
        weights = np.stack([first[z] for z in numbers], axis=1)
        triangle, n_kept = n_ao * (n_ao + 1) // 2, second[elements[0]].shape[1]
        total, atoms = np.zeros((n_equal, triangle)), np.zeros((len(numbers), n_kept, triangle))
        for where, chunk in molecule.potentials(exponents, contractions):
            total += weights[:, where].reshape(n_equal, -1) @ chunk.reshape(-1, triangle)
            atoms[where] = chunk[:, kept]
        of_nuclei = molecule.nuclear if nuclei else None
        return cls(of_nuclei, total, atoms, np.stack([second[z] for z in numbers], axis=1))

    def of_equal_atoms(self) -> Matrix:
        equal = unpack_triangle(self.equal)
        return equal if self.nuclei is None else equal + self.nuclei

    def of_charged_atoms(self, charges: NDArray[np.float64]) -> Matrix:
        weights = (self.weights * charges[:, None]).reshape(len(self.weights), -1)
        return unpack_triangle(weights @ self.atoms.reshape(-1, self.atoms.shape[2]))
