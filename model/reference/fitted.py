"""H0: a cheap, exactly covariant reference Hamiltonian; the network predicts what is left (docs/decisions/0001-reference.md).

``FittedReference`` is a linear model of the converged Fock matrix, fitted by least squares on block error plus
first-order density error (``training.fit.reference``). It needs no integration grid and no four-centre integral, so it
is covariant to rounding and costs a small fraction of one SCF cycle. With the terms of ``model.reference.terms``,

    step 1 (atoms)      H1 = core + g + o + p
    response            D1, the density of H1's occupied orbitals, and the Löwdin charges of its atoms
    step 2              H0 = core + g' + o' + p' + q + r + x + y

where step 1's terms are fitted anew, and q, r, x, y depend on D1 and the charges: charge transfer and exchange.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from model.electronic.eigen import eigh
from model.electronic.overlap import OverlapFactor
from model.orbitals.space import OrbitalSpace
from model.reference.interface import Matrix, ReferenceResult, Tensors
from model.reference.potentials import ThreeCentre, potentials_of
from model.reference.terms import Ingredients, Response, Term, TermLayout, rows_of

LOWDIN_FLOOR = 1e-10
"""Smaller eigenvalues of S count as this where it is divided by them."""


class Surroundings(ThreeCentre, Protocol):
    """What the reference needs to know of a molecule; ``integrals.pyscf_molecule.MoleculeIntegrals`` is one."""

    @property
    def factor(self) -> OverlapFactor:
        """S, diagonalised."""
        ...

    @property
    def kinetic(self) -> Matrix:
        """Kinetic energy, (ao, ao), hartree."""
        ...

    @property
    def core(self) -> Matrix:
        """Kinetic energy plus nuclear attraction, (ao, ao), hartree."""
        ...

    @property
    def n_occupied(self) -> int:
        """Doubly occupied orbitals."""
        ...


@dataclass(frozen=True, eq=False)
class FittedReference:
    """The model: exponents and coefficients.

    Attributes:
        basis: the AO basis.
        exponents: of the Gaussian charges, (exponent,), 1/bohr^2.
        step1: coefficients of step 1's terms, (coefficient of step 1,).
        step2: coefficients of all terms, (coefficient,).
    """

    kind: ClassVar[str] = "fitted"
    note: ClassVar[str] = (
        "core Hamiltonian plus fitted atom-centred Coulomb potentials, projectors and their "
        "first-order response; no grid, no four-centre integrals (model/reference/)"
    )
    sources: ClassVar[tuple[str, ...]] = ("pyscf_molecule",)
    has_density: ClassVar[bool] = True

    basis: OrbitalSpace
    exponents: NDArray[np.float64]
    step1: NDArray[np.float64]
    step2: NDArray[np.float64]

    @cached_property
    def layout(self) -> TermLayout:
        """Which coefficient belongs to which term."""
        return TermLayout(self.basis, len(self.exponents))

    def evaluate(self, molecule: Surroundings) -> ReferenceResult[Matrix]:
        """H0 and D1 of a molecule; step 1's terms are contracted with the coefficients of both steps at once."""
        n_step1 = self.layout.n_step1
        atoms = self.layout.step1(np.stack([self.step1, self.step2[:n_step1]]))
        answer = self.layout.step2(self.step2[None, n_step1:])
        parts = ingredients(self.basis, self.exponents, molecule, atoms, answer, nuclei=True)
        first, again = molecule.kinetic + total(atoms, parts)
        parts = replace(parts, response=respond(first, molecule, parts.offsets))
        hamiltonian = again + total(answer, parts)[0]
        return ReferenceResult(0.5 * (hamiltonian + hamiltonian.T), parts.answer.density, parts.projected_density)

    def tensors(self) -> dict[str, NDArray[np.float64]]:
        """Exponents and coefficients."""
        return {"exponents": self.exponents, "step1": self.step1, "step2": self.step2}

    @classmethod
    def shapes(cls, space: OrbitalSpace, stored: Tensors) -> dict[str, tuple[int, ...]]:
        """The number of exponents is free; all else follows from it and the shells."""
        n_exponents = len(stored.get("exponents", ()))
        layout = TermLayout(space, n_exponents)
        return {"exponents": (n_exponents,), "step1": (layout.n_step1,), "step2": (len(layout),)}

    @classmethod
    def from_tensors(cls, space: OrbitalSpace, stored: Tensors) -> Self:
        """From what :meth:`tensors` gave."""
        return cls(space, stored["exponents"], stored["step1"], stored["step2"])


def ingredients(
    basis: OrbitalSpace,
    exponents: NDArray[np.float64],
    molecule: Surroundings,
    atoms: list[Term],
    answer: list[Term],
    *,
    nuclei: bool = False,
) -> Ingredients:
    """What the terms of a molecule are made of; the one pass over the three-centre integrals is here.

    Args:
        basis: elements and shells.
        exponents: of the Gaussian charges, (exponent,), 1/bohr^2.
        molecule: gives the integrals.
        atoms: step 1's terms with the sets that they will be contracted with.
        answer: the response terms with theirs; empty if only step 1 is wanted.
        nuclei: whether step 1's potentials are to hold the nuclei's, in every set.
    """
    scaled = rows_of(answer) if answer else None
    potentials = potentials_of(molecule, exponents, rows_of(atoms), scaled, nuclei=nuclei)
    return Ingredients(molecule.numbers, basis.atom_offsets(molecule.numbers), molecule.overlap, potentials)


def total(terms: list[Term], parts: Ingredients) -> Matrix:
    """Sum of some terms, (set, ao, ao)."""
    result = terms[0].contract(parts)
    for term in terms[1:]:
        result += term.contract(parts)
    return result


def respond(hamiltonian: Matrix, molecule: Surroundings, offsets: NDArray[np.int64]) -> Response:
    """Density of a Hamiltonian's occupied orbitals, and the atoms' Löwdin charges.

    Args:
        hamiltonian: step 1's, (ao, ao), hartree.
        molecule: gives S and the number of occupied orbitals.
        offsets: first AO of each atom and, last, the number of AOs.
    """
    factor = molecule.factor
    basis = factor.vectors / np.sqrt(np.maximum(factor.values, LOWDIN_FLOOR))
    _, rotated = eigh(basis.T @ hamiltonian @ basis)
    occupied = rotated[:, : molecule.n_occupied]
    coefficients = basis @ occupied
    # Löwdin's orthonormal functions are S's eigenvectors turned back to the atoms
    populations = 2.0 * np.square(factor.vectors @ occupied).sum(axis=1)
    charges = np.asarray(np.add.reduceat(populations, offsets[:-1]) - molecule.numbers, dtype=np.float64)
    return Response(2.0 * coefficients @ coefficients.T, charges)
