"""What a molecule's prediction shows of its own error, as numbers that a small error model is fitted to.

None needs a Fock build. The size of the network's correction where it moves the density tells most: a molecule whose H0 is
far off is predicted worse. ``checkpoint.expectation`` makes of these the error to expect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.electronic.overlap import OverlapFactor
from model.electronic.solve import Orbitals
from model.geometry import BONDED, radii

Matrix = NDArray[np.float64]

TINY: Final = 1e-9
"""Added before logarithms; no share of electrons that was ever seen is as small."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """What signs are read from; matrices are (ao, ao), hartree.

    Attributes:
        numbers: atomic numbers, (atom,).
        positions: (atom, 3), Å.
        overlap: S, diagonalised.
        reference: H0.
        hamiltonian: H as predicted.
        projected_density: S D1 S of H0's own density.
        orbitals: of H.
        displaced: orbitals of H0's occupied space that H's lacks.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    overlap: OverlapFactor
    reference: Matrix
    hamiltonian: Matrix
    projected_density: Matrix
    orbitals: Orbitals
    displaced: float


def error_signs(of: Predicted) -> Mapping[str, float] | None:
    """The signs by name; None where all orbitals are occupied, so that no density can be wrong.

    With n occupied orbitals i, empty ones a, dH = H - H0 and D_ia = C_i^T dH C_a / (e_a - e_i), logarithms natural:

        correction          log of |D_ia| over sqrt(n): what the network changes of the density, to first order
        largest_correction  log of the largest D_ia
        displaced           log of ``displaced`` over n
        response            log of |C_i^T S D1 S C_a| / 2 over sqrt(n): the same of the density that H0 comes from
        within_occupied     log of the mean |C_i^T dH C_j|
        within_empty        log of the mean |C_a^T dH C_b|
        mean_correction     log of the mean |dH|, in the basis
        gap                 hartree
        dependence          log of S's smallest eigenvalue
        size                log of n
        heteroatom_bonds    bonds between atoms that are neither C nor H, a heavy atom
        hydrogens           share of the atoms
        share/Z             of the heavy atoms, for Z of carbon, nitrogen, oxygen and fluorine
    """
    n, energies, coefficients = of.orbitals.n_occupied, of.orbitals.energies, of.orbitals.coefficients
    gap = of.orbitals.gap
    if gap is None or not n:
        return None
    correction = of.hamiltonian - of.reference
    between = np.abs(coefficients.T @ correction @ coefficients)
    first_order = between[n:, :n] / (energies[n:, None] - energies[:n])
    response = 0.5 * coefficients[:, n:].T @ (of.projected_density @ coefficients[:, :n])
    heavy = np.flatnonzero(of.numbers > 1)
    n_heavy = max(len(heavy), 1)

    def logarithm(value: float) -> float:
        return float(np.log(value + TINY))

    return {
        "correction": logarithm(float(np.linalg.norm(first_order) / np.sqrt(n))),
        "largest_correction": logarithm(float(first_order.max())),
        "displaced": logarithm(of.displaced / n),
        "response": logarithm(float(np.linalg.norm(response) / np.sqrt(n))),
        "within_occupied": logarithm(float(between[:n, :n].mean())),
        "within_empty": logarithm(float(between[n:, n:].mean())),
        "mean_correction": logarithm(float(np.abs(correction).mean())),
        "gap": gap,
        "dependence": logarithm(of.overlap.smallest),
        "size": float(np.log(n)),
        "heteroatom_bonds": _heteroatom_bonds(of.numbers, of.positions) / n_heavy,
        "hydrogens": float((of.numbers == 1).mean()),
        **{f"share/{z}": int((of.numbers == z).sum()) / n_heavy for z in (6, 7, 8, 9)},
    }


def _heteroatom_bonds(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> int:
    hetero = np.flatnonzero((numbers != 1) & (numbers != 6))
    size, places = radii(numbers[hetero]), positions[hetero]
    distances = np.linalg.norm(places[:, None] - places, axis=-1)
    return int(np.triu(distances < BONDED * (size[:, None] + size), 1).sum())
