"""Predicted against reference matrix elements, counted on a grid: a picture's worth of millions of entries.

Elements span 1e-6 to 20 hartree of both signs, so the parity grid is linear around zero and logarithmic outside
(asinh); errors are counted over the size of the element, both logarithmic, for the prediction and for H0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.units import MICROHARTREE_PER_HARTREE
from training.evaluate.finished import packed, unpacked

Matrix = NDArray[np.float64]

LINEAR_HARTREE: Final = 1e-3
"""Elements much smaller than this lie linearly on the parity axes."""
PARITY_EDGES: Final = np.linspace(-np.arcsinh(30.0 / LINEAR_HARTREE), np.arcsinh(30.0 / LINEAR_HARTREE), 121)
SIZE_EDGES: Final = np.linspace(-6.0, 2.0, 81)
"""log10 of |F| in hartree; smaller elements are rounding, or zero by symmetry, and left out."""
ERROR_EDGES: Final = np.linspace(-3.0, 6.0, 91)
"""log10 of |dH| in µEh."""


class ParityCounts:
    """Counts of matrix elements; each of the lower triangle once."""

    def __init__(self) -> None:
        size = len(PARITY_EDGES) - 1
        self.parity: NDArray[np.int64] = np.zeros((size, size), dtype=np.int64)
        shape = (len(SIZE_EDGES) - 1, len(ERROR_EDGES) - 1)
        self.error: NDArray[np.int64] = np.zeros(shape, dtype=np.int64)
        self.error_reference: NDArray[np.int64] = np.zeros(shape, dtype=np.int64)

    def add(self, fock: Matrix, predicted: Matrix, reference: Matrix | None) -> None:
        """Add a molecule's matrices, each (ao, ao), hartree; ``reference`` is H0, None if there is none."""
        rows, columns = np.tril_indices(len(fock))
        true, ours = fock[rows, columns], predicted[rows, columns]
        self.parity += _histogram(
            np.arcsinh(true / LINEAR_HARTREE), np.arcsinh(ours / LINEAR_HARTREE), PARITY_EDGES, PARITY_EDGES
        )
        self.error += _sizes(true, ours - true)
        if reference is not None:
            self.error_reference += _sizes(true, reference[rows, columns] - true)

    def state(self) -> dict[str, Any]:
        """Counts, JSON-able."""
        return {name: packed(getattr(self, name)) for name in ("parity", "error", "error_reference")}

    def add_state(self, stored: Mapping[str, Any]) -> None:
        """Add what another one's :meth:`state` says."""
        for name, values in stored.items():
            setattr(self, name, getattr(self, name) + unpacked(values, np.int64))

    def to_json(self) -> dict[str, Any]:
        """Counts as lists: rows are the label's element, columns the prediction's, or its error."""
        return {
            "parity": self.parity.tolist(),
            "error": self.error.tolist(),
            "error_reference": self.error_reference.tolist(),
        }


def _sizes(true: Matrix, error: Matrix) -> NDArray[np.int64]:
    kept = np.abs(true) >= 10.0 ** SIZE_EDGES[0]
    wrong = np.log10(np.maximum(MICROHARTREE_PER_HARTREE * np.abs(error[kept]), 10.0 ** ERROR_EDGES[0]))
    return _histogram(np.log10(np.abs(true[kept])), wrong, SIZE_EDGES, ERROR_EDGES)


def _histogram(x: Matrix, y: Matrix, x_edges: Matrix, y_edges: Matrix) -> NDArray[np.int64]:
    """Counts on a grid of equal cells, (x cell, y cell); what lies outside goes to the border."""
    cells = [
        np.clip(((values - edges[0]) / (edges[1] - edges[0])).astype(np.int64), 0, len(edges) - 2)
        for values, edges in ((x, x_edges), (y, y_edges))
    ]
    shape = (len(x_edges) - 1, len(y_edges) - 1)
    return np.bincount(np.ravel_multi_index((cells[0], cells[1]), shape), minlength=shape[0] * shape[1]).reshape(shape)
