"""Dense hermitian eigenproblems, by numpy: it leaves Python's lock to others meanwhile.

scipy's LAPACK keeps it from the first step to the last: a matrix of 1000 rows made every other thread of the process stand
for 0.4 s, the one that answers health checks among them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[Any]


def eigh(matrix: Matrix) -> tuple[NDArray[np.float64], Matrix]:
    """Eigenvalues, ascending, (n,), and eigenvectors, columns, (n, n), of a hermitian matrix (n, n), by divide and conquer.

    Raises:
        ValueError: entries that are not finite.
        numpy.linalg.LinAlgError: it did not converge.
    """
    values, vectors = np.linalg.eigh(np.asarray_chkfinite(matrix))
    return values, vectors


def eigvalsh(matrix: Matrix) -> NDArray[np.float64]:
    """Eigenvalues alone; see :func:`eigh`."""
    return np.asarray(np.linalg.eigvalsh(np.asarray_chkfinite(matrix)), dtype=np.float64)
