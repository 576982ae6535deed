"""Least-squares fit of the reference Hamiltonian (``model.reference.fitted``) to converged Fock matrices.

Minimised over the coefficients, per molecule and summed:

    mean |F - H0|^2  +  weight * sum_ia |C_i^T (F - H0) C_a / (e_a - e_i)|^2 / n_occupied

with the reference orbitals C, e of F: block error plus first-order error of the density. Both are quadratic in the
coefficients, so the fit is one linear solve for each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from model.integrals.pyscf_molecule import integrals
from model.orbitals.space import OrbitalSpace
from model.reference.fitted import FittedReference, Surroundings, ingredients, respond, total
from model.reference.terms import Response, TermLayout
from training.data.sources import Frame
from training.pool import parallel_map

RIDGE = 1e-9
"""Relative to the diagonal: neighbouring exponents overlap almost completely."""


@dataclass(frozen=True)
class NormalEquations:
    """A^T A and A^T b of some molecules, block part and density part."""

    gram_block: NDArray[np.float64]
    right_block: NDArray[np.float64]
    gram_density: NDArray[np.float64]
    right_density: NDArray[np.float64]

    def __add__(self, other: NormalEquations) -> NormalEquations:
        return NormalEquations(
            self.gram_block + other.gram_block,
            self.right_block + other.right_block,
            self.gram_density + other.gram_density,
            self.right_density + other.right_density,
        )

    def solve(self, weight: float) -> NDArray[np.float64]:
        """Coefficients at this weight of the density part."""
        gram = self.gram_block + weight * self.gram_density
        right = self.right_block + weight * self.right_density
        scale = np.sqrt(np.maximum(np.diag(gram), 1e-12))
        scaled = gram / scale[:, None] / scale[None, :] + RIDGE * np.eye(len(gram))
        return np.asarray(scipy.linalg.solve(scaled, right / scale, assume_a="pos") / scale)


def fit_reference(
    frames: Sequence[Frame],
    basis: OrbitalSpace,
    *,
    exponents: NDArray[np.float64],
    density_weight: float,
    processes: int,
) -> FittedReference:
    """Fit both steps.

    Args:
        frames: training frames.
        basis: the AO basis.
        exponents: of the Gaussian charges, 1/bohr^2.
        density_weight: weight of the first-order density error, hartree^2.
        processes: worker processes.
    """
    step1 = _accumulate(frames, basis, exponents, None, processes).solve(density_weight)
    step2 = _accumulate(frames, basis, exponents, step1, processes).solve(density_weight)
    return FittedReference(basis, exponents, step1, step2)


def _accumulate(
    frames: Sequence[Frame],
    basis: OrbitalSpace,
    exponents: NDArray[np.float64],
    step1: NDArray[np.float64] | None,
    processes: int,
) -> NormalEquations:
    work = partial(_normal_equations, basis=basis, exponents=exponents, step1=step1)
    title = "fit reference, step 1" if step1 is None else "fit reference, step 2"
    total: NormalEquations | None = None
    for part in parallel_map(work, frames, total=len(frames), processes=processes, title=title):
        total = part if total is None else total + part
    if total is None:
        raise ValueError("no frames to fit the reference to")
    return total


def _normal_equations(
    frame: Frame, basis: OrbitalSpace, exponents: NDArray[np.float64], step1: NDArray[np.float64] | None
) -> NormalEquations:
    structure = frame.structure
    molecule = integrals(structure, basis.name)
    layout = TermLayout(basis, len(exponents))
    response = None if step1 is None else first_response(layout, molecule, exponents, step1)
    terms = term_matrices(layout, molecule, exponents, response)
    return normal_equations(terms, frame.fock - molecule.core, frame.fock, molecule)


def normal_equations(
    terms: NDArray[np.float64], target: NDArray[np.float64], fock: NDArray[np.float64], molecule: Surroundings
) -> NormalEquations:
    """Of one molecule.

    Args:
        terms: every coefficient's own matrix, (coefficient, ao, ao).
        target: what their sum is to be, (ao, ao), hartree.
        fock: converged, (ao, ao), hartree: gives orbitals and gaps of the density part.
        molecule: gives S and the number of occupied orbitals.
    """
    energies, orbitals = scipy.linalg.eigh(fock, molecule.overlap)
    n_occupied = molecule.n_occupied
    occupied, virtual = orbitals[:, :n_occupied], orbitals[:, n_occupied:]
    gaps = energies[None, n_occupied:] - energies[:n_occupied, None]
    rotated = (occupied.T @ terms @ virtual / gaps).reshape(len(terms), -1)
    rotated_target = (occupied.T @ target @ virtual / gaps).reshape(-1)
    flat = terms.reshape(len(terms), -1)
    return NormalEquations(
        gram_block=flat @ flat.T / target.size,
        right_block=flat @ target.ravel() / target.size,
        gram_density=rotated @ rotated.T / n_occupied,
        right_density=rotated @ rotated_target / n_occupied,
    )


def term_matrices(
    layout: TermLayout, molecule: Surroundings, exponents: NDArray[np.float64], response: Response | None
) -> NDArray[np.float64]:
    """Every coefficient's own matrix, (coefficient of step 1 or of both, ao, ao).

    Args:
        exponents: of the Gaussian charges, (exponent,), 1/bohr^2.
        response: of step 1; None for step 1's terms only.
    """
    atoms, answer = layout.alone(1), [] if response is None else layout.alone(2)
    parts = replace(ingredients(layout.space, exponents, molecule, atoms, answer), response=response)
    return np.concatenate([term.contract(parts) for term in [*atoms, *answer]])


def first_response(
    layout: TermLayout, molecule: Surroundings, exponents: NDArray[np.float64], step1: NDArray[np.float64]
) -> Response:
    """Density and charges of step 1 with these coefficients, (coefficient of step 1,)."""
    atoms = layout.step1(step1[None])
    parts = ingredients(layout.space, exponents, molecule, atoms, [])
    return respond(molecule.core + total(atoms, parts)[0], molecule, parts.offsets)
