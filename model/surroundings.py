"""Integrals of a structure -> what the reference Hamiltonian asks for: the one place where PySCF's side meets H0's."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from model.integrals.pyscf_molecule import Integrals, gaussian_potentials
from model.reference.fitted import Surroundings
from model.structure import Structure


def surroundings(structure: Structure, data: Integrals, exponents: NDArray[np.float64]) -> Surroundings:
    """View of a molecule for ``FittedReference.evaluate`` and its fit.

    Args:
        structure: closed shell.
        data: its integrals.
        exponents: of the reference's Gaussian charges, (exponent,), 1/bohr^2.
    """
    return Surroundings(
        numbers=structure.numbers,
        overlap=data.overlap,
        core=data.core,
        n_occupied=structure.n_electrons // 2,
        potentials=partial(gaussian_potentials, data.mole, exponents),
    )
