"""Fits the error to expect of a checkpoint's guesses (``model.checkpoint.expectation``) to molecules it was not trained on.

Ridge regression in closed form. Each molecule is left out in turn, all its geometries with it; what the fit to the others
says of it gives the residuals, and their quantiles the intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.expectation import Expectation

Vector = NDArray[np.float64]

RIDGE: Final = 5.0
"""Of standardised signs; 1 to 10 leave the same residuals."""

COVERAGE: Final = 0.9


@dataclass(frozen=True)
class Case:
    """One geometry.

    Attributes:
        molecule: name; geometries of one molecule are left out together.
        signs: of ``model.electronic.error_signs``.
        error: |D_ia| of the guess over the root of the occupied orbitals; None where only cycles are known.
        cycles_ratio: SCF cycles from the guess over those from minao; None where no SCF was run.
    """

    molecule: str
    signs: Mapping[str, float]
    error: float | None
    cycles_ratio: float | None = None


def fit_expectation(cases: Sequence[Case], *, weights_sha256: str, fitted_on: str) -> Expectation:
    """Fit to some molecules.

    Args:
        cases: of at least ten molecules, some with cycles.
        weights_sha256: of the weights that made the guesses.
        fitted_on: which molecules these are, in words.

    Raises:
        ValueError: too few molecules to leave any out.
    """
    names = list(cases[0].signs) if cases else []
    every = np.array([[case.signs[name] for name in names] for case in cases])
    has_error = np.array([case.error is not None for case in cases], dtype=bool)
    table, molecules = every[has_error], np.array([case.molecule for case in cases if case.error is not None])
    logs = np.log([case.error for case in cases if case.error is not None])
    if len(set(molecules)) < 10:
        raise ValueError(f"{len(set(molecules))} molecules are too few to fit an expectation to; give at least ten.")
    left_out = left_out_logs([case for case in cases if case.error is not None])
    predict, (centres, scales, weights, intercept) = _ridge(table, logs)
    expected = predict(every)
    expected[has_error] = left_out
    ran = np.array([case.cycles_ratio is not None for case in cases])
    ratios = np.array([case.cycles_ratio for case in cases if case.cycles_ratio is not None])
    # on what would have been expected of a molecule unseen: the interval is of both steps together
    slope, start = np.polyfit(expected[ran], ratios, 1)
    return Expectation(
        weights_sha256=weights_sha256,
        fitted_on=fitted_on,
        signs=names,
        centres=centres.tolist(),
        scales=scales.tolist(),
        weights=weights.tolist(),
        intercept=intercept,
        interval=_interval(logs - left_out),
        cycles_intercept=float(start),
        cycles_slope=float(slope),
        cycles_interval=_interval(ratios - (start + slope * expected[ran])),
    )


def left_out_logs(cases: Sequence[Case]) -> Vector:
    """Logarithm of the error that the fit to all other molecules expects of each geometry, (case,); all have errors."""
    names = list(cases[0].signs)
    table = np.array([[case.signs[name] for name in names] for case in cases])
    logs = np.log(np.array([case.error for case in cases], dtype=np.float64))
    molecules = np.array([case.molecule for case in cases])
    result = np.empty(len(cases))
    for molecule in set(molecules):
        out = molecules == molecule
        result[out] = _ridge(table[~out], logs[~out])[0](table[out])
    return result


def _interval(residuals: Vector) -> tuple[float, float]:
    ends = (1.0 - COVERAGE) / 2.0
    return float(np.quantile(residuals, ends)), float(np.quantile(residuals, 1.0 - ends))


def _ridge(table: Vector, target: Vector) -> tuple[Callable[[Vector], Vector], tuple[Vector, Vector, Vector, float]]:
    """A fit, and its centres, scales, weights and intercept."""
    centres, scales, mean = table.mean(axis=0), table.std(axis=0), float(target.mean())
    scales = np.where(scales > 1e-12, scales, 1.0)
    standard = (table - centres) / scales
    gram = standard.T @ standard + RIDGE * np.eye(len(centres))
    weights = np.linalg.solve(gram, standard.T @ (target - mean))

    def predict(rows: Vector) -> Vector:
        return np.asarray(mean + (rows - centres) / scales @ weights)

    return predict, (centres, scales, weights, mean)
