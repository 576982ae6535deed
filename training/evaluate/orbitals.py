"""PySCF's own guess of a molecule, to compare with; the measures are in ``model.electronic.comparison``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import scf

Matrix = NDArray[np.float64]


def minao_density(mole: Any) -> Matrix:
    """PySCF's minao guess of a molecule: densities of neutral atoms, (ao, ao)."""
    return np.asarray(scf.hf.init_guess_by_minao(mole), dtype=np.float64)
