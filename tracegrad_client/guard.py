"""How a guess is judged, and how the Fock matrix that it takes reaches the SCF.

The Fock matrix of a predicted density shows how good it is: the RMS of FDS - SDF, orthogonalised with S^(-1/2),
is 1e-2 hartree or less where it saves cycles, and 2.5e-2 or more where it costs some. The threshold is absolute: minao
has about 1e-1 and still needs fewer cycles than a prediction with 6e-2, so the two figures are not to be compared. The
energy of a guess says nothing: a density that is not idempotent can lie below the converged one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

DEFAULT_THRESHOLD: Final = 2.5e-2
"""RMS of the orthogonalised commutator, hartree, from which on a guess is not used."""

PROJECTED_THRESHOLD: Final = 5e-2
"""The same of a guess that was projected to another basis, where what the model's basis lacks counts too: in def2-TZVP all of
ten guesses with 1.7e-2 to 4.2e-2 saved a cycle or two."""


@dataclass
class Potential:
    """The potential of one density, on its way from the guard to the SCF; taken once, by the same calculation."""

    dm: NDArray[np.float64]
    mol: Any
    xc: Any
    veff: Any = None

    def serves(self, mf: Any, mol: Any, dm: Any) -> bool:
        """Whether ``mf.get_veff(mol, dm)`` is this potential."""
        same_mol = mf.mol is self.mol and (mol is None or mol is self.mol)
        return dm is self.dm and same_mol and getattr(mf, "xc", None) == self.xc


def rms_commutator(fock: NDArray[Any], dm: NDArray[Any], overlap: NDArray[Any]) -> float:
    """RMS over all elements of X(FDS - SDF)X with X = S^(-1/2), hartree.

    F and D may be stacks, (spin, ao, ao); D counts each orbital twice, as a closed shell's does. Of a crystal all three are
    stacks of k-points, (k, ao, ao), and complex.

    Directions in which the basis is nearly dependent (eigenvalue of S under 1e-8) are left out.
    """
    if overlap.ndim == 3:
        each = [rms_commutator(*at_k) for at_k in zip(fock, dm, overlap, strict=True)]
        return float(np.sqrt(np.mean(np.square(each))))
    values, vectors = np.linalg.eigh(overlap)
    kept = values > 1e-8
    x = vectors[:, kept] / np.sqrt(values[kept])
    fds = fock @ dm @ overlap
    commutator = x.conj().T @ (fds - fds.conj().swapaxes(-1, -2)) @ x
    return float(np.sqrt(np.mean(np.square(np.abs(commutator)))))
