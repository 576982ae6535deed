"""H is smooth in a bond length, also where what an atom hears from two sides cancels (docs/decisions/0011-norm-floors.md)."""

from __future__ import annotations

import numpy as np
import pytest

from model.predictor import Predictor
from model.structure import Structure

STEP_ANGSTROM = 0.0025
LARGEST_OVER_MEDIAN = 10.0
"""A network that magnifies what is left of a sum that cancels has steps of a hundred times the median."""


@pytest.mark.parametrize(("symbols", "fixed_bond"), [("NNO", 1.19), ("OCO", 1.16)])
def test_no_step_where_neighbours_cancel(symbols: str, fixed_bond: float, released: Predictor) -> None:
    """The first bond passes the length at which the middle atom's two neighbours are alike."""
    structures = [
        Structure.from_symbols(list(symbols), np.outer([0.0, length, length + fixed_bond], [0.0, 0.0, 1.0]))
        for length in np.arange(1.08, 1.30, STEP_ANGSTROM)
    ]
    added = np.array([found.hamiltonian - found.reference for found in released.predict(structures)])
    steps = np.abs(np.diff(added, axis=0)).mean(axis=(1, 2))
    assert steps.max() < LARGEST_OVER_MEDIAN * np.median(steps)
