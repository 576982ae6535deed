"""What the network adds to H0, without what nearly dependent basis functions would magnify.

Made orthonormal, an error of H between eigenvectors i and j of the overlap S is divided by sqrt(s_i s_j): where both
eigenvalues are near zero an unremarkable 1e-4 hartree becomes several hartree, and an empty orbital falls far too low, an
intruder (docs/decisions/0012-dependence.md). The error of H0 is larger but smooth, and does not grow so. The weight of the
network's correction is therefore that of a Wiener filter, s_i s_j / (s_i s_j + damping^2): one nearly everywhere, falling
to zero where both are small. It is smooth in the geometry, and turns with the molecule because S does.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.electronic.overlap import OverlapFactor

OVERLAP_DAMPING: Final = 2e-3
"""What releases get. Smallest eigenvalues of S in def2-SVP: 6e-3 in N2, 4e-4 to 1e-4 in diynes and cyanogen."""


def damp_correction(
    correction: NDArray[np.float64], overlap: NDArray[np.float64] | OverlapFactor, damping: float
) -> NDArray[np.float64]:
    """The part of a correction to trust.

    Args:
        correction: H - H0 as predicted, symmetric, (ao, ao), hartree.
        overlap: S, (ao, ao), or its factor.
        damping: eigenvalue of S at which its eigenvector's own element counts half.

    Raises:
        NumericalError: LAPACK failed.
    """
    factor = OverlapFactor.of(overlap)
    values, vectors = factor.values.clip(min=0.0), factor.vectors  # rounding
    products = np.outer(values, values)
    rotated = vectors.T @ correction @ vectors * (products / (products + damping**2))
    damped = vectors @ rotated @ vectors.T
    return np.asarray(0.5 * (damped + damped.T))
