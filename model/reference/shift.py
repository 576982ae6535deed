"""From one functional to another: the difference of their Fock matrices as a linear model of the predicted density.

The terms are those of the fitted reference (``model.reference.terms``), both steps at once: charges on the atoms, projectors,
and exchange in proportion to the density of the Hamiltonian that is to be shifted. Fitted to converged Fock matrices of the
other functional (``training.shift``); docs/decisions/0024-other-functionals.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.orbitals.space import OrbitalSpace
from model.reference.fitted import Surroundings, ingredients, respond, total
from model.reference.interface import Matrix
from model.reference.terms import TermLayout


@dataclass(frozen=True, eq=False)
class FunctionalShift:
    """The model: exponents and coefficients.

    Attributes:
        basis: the AO basis.
        exponents: of the Gaussian charges, (exponent,), 1/bohr^2.
        coefficients: of all terms, (coefficient,), in the order of ``TermLayout``.
    """

    basis: OrbitalSpace
    exponents: NDArray[np.float64]
    coefficients: NDArray[np.float64]

    def evaluate(self, hamiltonian: Matrix, molecule: Surroundings) -> Matrix:
        """F of the other functional less F of the model's, (ao, ao), hartree.

        Args:
            hamiltonian: as predicted, (ao, ao), hartree; its density is taken.
            molecule: its integrals.
        """
        layout = TermLayout(self.basis, len(self.exponents))
        atoms = layout.step1(self.coefficients[None, : layout.n_step1])
        answer = layout.step2(self.coefficients[None, layout.n_step1 :])
        parts = ingredients(self.basis, self.exponents, molecule, atoms, answer)
        parts = replace(parts, response=respond(hamiltonian, molecule, parts.offsets))
        shift = (total(atoms, parts) + total(answer, parts))[0]
        return np.asarray(0.5 * (shift + shift.T))
