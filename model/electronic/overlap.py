"""OverlapFactor: S, diagonalised once for all that need its eigenvectors.

The reference's response density, the damping of the network's correction and the eigensolver each ask for another function of
S; all of them are S's eigenvectors with other weights. Real for a molecule and at Gamma, complex at k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.electronic.eigen import eigh
from model.errors import NumericalError

Matrix = NDArray[Any]
"""float64, or complex128 at k and for spinors."""

OVERLAP_THRESHOLD: Final = 1e-7
"""Eigenvectors of S below this are dropped; PySCF's own default for linear dependence is 1e-8 on a condition number."""


@dataclass(frozen=True, eq=False)
class OverlapFactor:
    """S = V s V^dagger.

    Attributes:
        matrix: S, (ao, ao).
        values: eigenvalues s, ascending, (ao,).
        vectors: V, columns, (ao, ao).
    """

    matrix: Matrix
    values: NDArray[np.float64]
    vectors: Matrix

    @classmethod
    def of(cls, overlap: Matrix | OverlapFactor) -> OverlapFactor:
        """Diagonalise S, unless it is diagonalised already.

        Args:
            overlap: hermitian, (ao, ao), or its factor, which is returned as it is.

        Raises:
            NumericalError: entries that are not finite, or LAPACK failed.
        """
        if isinstance(overlap, OverlapFactor):
            return overlap
        try:
            values, vectors = eigh(overlap)
        except (np.linalg.LinAlgError, ValueError) as error:
            raise NumericalError(f"The overlap could not be diagonalised: {error}.") from error
        return cls(overlap, values, vectors)

    @property
    def smallest(self) -> float:
        """Smallest eigenvalue: an error of H is magnified by up to its inverse."""
        return float(self.values[0])

    def n_dependent(self, threshold: float = OVERLAP_THRESHOLD) -> int:
        """How many eigenvalues are not above a threshold, and so are left out."""
        return int(np.count_nonzero(self.values <= threshold))

    def orthonormal_basis(self, threshold: float = OVERLAP_THRESHOLD) -> Matrix:
        """Canonical orthonormal functions X = V s^(-1/2), X^dagger S X = 1.

        Args:
            threshold: eigenvectors with eigenvalues not above it are left out.

        Returns:
            (ao, kept).
        """
        start = self.n_dependent(threshold)
        return np.asarray(self.vectors[:, start:] / np.sqrt(self.values[start:]))

    def inverse_root(self, floor: float = OVERLAP_THRESHOLD) -> Matrix:
        """S^(-1/2), Löwdin's, hermitian, (ao, ao).

        Args:
            floor: smaller eigenvalues count as this.
        """
        return np.asarray((self.vectors / np.sqrt(np.maximum(self.values, floor))) @ self.vectors.conj().T)
