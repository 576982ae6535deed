"""Coulomb potentials of the fitted reference's Gaussian charges, from one pass over the three-centre integrals."""

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

    def potentials(self, exponents: NDArray[np.float64], contractions: Rows) -> Iterable[tuple[slice, Matrix]]:
        """Coulomb integrals of Gaussian charges: contractions {element: (contraction, exponent)} -> chunks
        (atoms, (atom, contraction, packed lower triangle)); see ``integrals.pyscf_molecule.gaussian_potentials``."""
        ...


@dataclass(frozen=True, eq=False)
class Potentials:
    """Of one molecule; ``triangle`` is ao (ao + 1) / 2.

    Attributes:
        equal: of charges that are the same on all atoms of an element, summed over atoms, (set, triangle).
        atoms: of each atom's rows of Gaussians, (atom, row, triangle).
        weights: of those rows in each set of charges that scale with the atom's own, (set, atom, row).
    """

    equal: Matrix
    atoms: Matrix
    weights: Matrix

    @classmethod
    def of(cls, molecule: ThreeCentre, exponents: NDArray[np.float64], equal: Rows, scaled: Rows | None) -> Potentials:
        """One pass over the integrals, contracted while they are there; only those of ``scaled`` are kept for each atom.

        Few sets (H0) are contracted inside the integrals. If there are more of them than Gaussians (the fit), each Gaussian
        is integrated by itself and the sets are made of it.

        Args:
            molecule: gives the integrals.
            exponents: of the Gaussians, (exponent,), 1/bohr^2.
            equal, scaled: sets of charges with the two roles; None for no scaled ones.
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
        return cls(total, atoms, np.stack([second[z] for z in numbers], axis=1))

    def of_equal_atoms(self) -> Matrix:
        """Potentials of the equal charges, (set, ao, ao), hartree."""
        return unpack_triangle(self.equal)

    def of_charged_atoms(self, charges: NDArray[np.float64]) -> Matrix:
        """Potentials of the scaled charges, (set, ao, ao), hartree.

        Args:
            charges: of the atoms, (atom,).
        """
        weights = (self.weights * charges[:, None]).reshape(len(self.weights), -1)
        return unpack_triangle(weights @ self.atoms.reshape(-1, self.atoms.shape[2]))
