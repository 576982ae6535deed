"""The error to expect of an answer: ``expectation.json`` beside a checkpoint's weights, which are untouched by it.

A linear model of the logarithm of the density error over the signs of ``electronic.error_signs``, and the ratio of SCF cycles
as a line over its result. Intervals hold nine of ten molecules that were left out of the fit (``training.expectation``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from model.checkpoint.beside import OfWeights, read_beside
from model.electronic.error_signs import Predicted, error_signs
from model.electronic.guess import InitialGuess
from model.errors import CheckpointError
from model.integrals.pyscf_molecule import MoleculeIntegrals
from model.preparation import Prepared

FILE: Final = "expectation.json"


@dataclass(frozen=True)
class Estimate:
    """A number that is expected, and the interval that holds it nine times of ten."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Expected:
    """Of one guess.

    Attributes:
        density_error_per_electron: |D_ia| of the guess over the root of the occupied orbitals (``density_exact_per_electron``
            in docs/metrics.md): about the root of the share of electrons in wrong places.
        cycles_ratio: SCF cycles from the guess over those from PySCF's own, at the checkpoint's level and PySCF's defaults.
    """

    density_error_per_electron: Estimate
    cycles_ratio: Estimate


class Expectation(OfWeights):
    """The error model of one checkpoint.

    Attributes:
        fitted_on: which molecules, in words.
        signs: names, in the order of the next three.
        centres, scales, weights: log error = intercept + sum of weight (sign - centre) / scale.
        interval: what is added to the log error at the lower and the upper end.
        cycles_intercept, cycles_slope: ratio = intercept + slope log error.
        cycles_interval: what is added to the ratio at the lower and the upper end.
    """

    fitted_on: str
    signs: list[str]
    centres: list[float]
    scales: list[float]
    weights: list[float]
    intercept: float
    interval: tuple[float, float]
    cycles_intercept: float
    cycles_slope: float
    cycles_interval: tuple[float, float]

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        if not len(self.signs) == len(self.centres) == len(self.scales) == len(self.weights):
            raise ValueError("signs, centres, scales and weights have one entry a sign")
        return self

    def log_error(self, signs: Mapping[str, float]) -> float:
        """Natural logarithm of the expected density error.

        Raises:
            CheckpointError: the file names a sign that this program does not know.
        """
        unknown = [name for name in self.signs if name not in signs]
        if unknown:
            raise CheckpointError(
                f"{FILE} reads the sign {unknown[0]!r}, which this program does not know.",
                hint="Install the matching version of the service, or leave the file out.",
            )
        standard = (np.array([signs[name] for name in self.signs]) - self.centres) / self.scales
        return float(self.intercept + standard @ np.array(self.weights))

    def of(self, item: Prepared, hamiltonian: NDArray[np.float64], guess: InitialGuess) -> Expected | None:
        """What to expect of a molecule's guess; None without H0's density, or where no orbital is empty.

        Args:
            item: the molecule as prepared.
            hamiltonian: as predicted, (ao, ao), hartree.
            guess: made of it.
        """
        signs = signs_of(item, hamiltonian, guess)
        return None if signs is None else self.expect(signs)

    def expect(self, signs: Mapping[str, float]) -> Expected:
        """What to expect of a guess with these signs."""
        log_error = self.log_error(signs)
        lower, upper = (float(np.exp(log_error + end)) for end in self.interval)
        ratio = self.cycles_intercept + self.cycles_slope * log_error
        least, most = (max(ratio + end, 0.0) for end in self.cycles_interval)
        return Expected(Estimate(float(np.exp(log_error)), lower, upper), Estimate(max(ratio, 0.0), least, most))


def signs_of(item: Prepared, hamiltonian: NDArray[np.float64], guess: InitialGuess) -> Mapping[str, float] | None:
    """Signs of a molecule's prediction; arguments and None as for :meth:`Expectation.of`."""
    reference, integrals = item.reference, item.integrals
    if reference is None or reference.projected_density is None or not isinstance(integrals, MoleculeIntegrals):
        return None
    assert isinstance(reference.hamiltonian, np.ndarray)
    return error_signs(
        Predicted(
            numbers=item.structure.numbers,
            positions=item.structure.positions_angstrom,
            overlap=integrals.factor,
            reference=reference.hamiltonian,
            hamiltonian=hamiltonian,
            projected_density=reference.projected_density,
            orbitals=guess.orbitals,
            displaced=guess.displaced,
        )
    )


def read_expectation(folder: Path, weights_sha256: str) -> Expectation | None:
    """The error model beside a checkpoint's weights; None if there is none.

    Args:
        folder: the checkpoint's.
        weights_sha256: of its weights.

    Raises:
        CheckpointError: a file that cannot be read, or is of other weights.
    """
    relation, again = "was fitted to the errors of", "benchmarks/expectation.py"
    return read_beside(folder / FILE, Expectation, weights_sha256, relation=relation, again=again)
