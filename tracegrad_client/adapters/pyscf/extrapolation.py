"""Pulay's extrapolation (DIIS) for a crystal that starts near its solution: an error counts by what it does to the density.

    e_pq = C_p^H (S D F - F D S) C_q / (|e_p - e_q| + 0.1 hartree),    F C = S C e of the first Fock matrix

PySCF's error is the commutator itself (Pulay, J. Comput. Chem. 3, 556 (1982)). What a good guess has left is of two kinds:
errors along nearly dependent combinations of orbitals, whose energies are high, are large in the commutator, move few
electrons and are gone with the first Fock matrix; the slower response of the density is small in it. The commutator alone
would weigh the second Fock matrix for the first kind and so overshoot in the second. Over the energies' difference both count
by the electrons they move. Extrapolation begins with the first Fock matrix, which PySCF leaves out
(docs/decisions/0026-crystals-extrapolation.md).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from pyscf import lib
from pyscf.scf.diis import CDIIS

LEAST_DIFFERENCE_HARTREE: Final = 0.1
"""Added to differences of energies, so that states at the Fermi level do not decide alone."""
FIRST_CYCLE: Final = 0


class LevelDIIS(CDIIS):  # type: ignore[misc]  # PySCF has no types
    """PySCF's DIIS with this error; matrices are (k, ao, ao)."""

    def __init__(self, mf: Any = None, filename: str | None = None) -> None:
        super().__init__(mf, filename)
        self._states: list[tuple[Any, Any]] | None = None

    def update(self, s: Any, d: Any, f: Any, mf: Any, *args: Any, **kwargs: Any) -> Any:
        """The next Fock matrices, from those of this cycle and the ones before."""
        if self._states is None:
            energies, orbitals = mf.eig(f, s)
            self._states = [
                (c, 1.0 / (np.abs(e[:, None] - e) + LEAST_DIFFERENCE_HARTREE))
                for e, c in zip(energies, orbitals, strict=True)
            ]
        errors = []
        for (c, weights), overlap, density, fock in zip(self._states, s, d, f, strict=True):
            product = c.conj().T @ overlap @ density @ fock @ c
            errors.append(((product.conj().T - product) * weights).ravel())
        return lib.diis.DIIS.update(self, np.asarray(f), xerr=np.hstack(errors))


def may_replace(mf: Any, diis: Any) -> bool:
    """Whether the calculation extrapolates as PySCF does by itself: nobody has chosen another way, or another beginning."""
    return mf.diis is True and type(diis) is CDIIS and not diis.damp and mf.diis_start_cycle == 1


def replacement(mf: Any) -> LevelDIIS:
    """With the settings that the calculation has."""
    made = LevelDIIS(mf, mf.diis_file)
    made.space, made.rollback = mf.diis_space, mf.diis_space_rollback
    return made
