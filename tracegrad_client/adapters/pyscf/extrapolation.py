"""Pulay's extrapolation (DIIS) for a crystal that starts near its solution: an error counts by what it does to the density.

    e_pq = C_p^H (S D F - F D S) C_q / (|e_p - e_q| + 0.1 hartree),    F C = S C e of the first Fock matrix

PySCF's error is the commutator itself (Pulay, J. Comput. Chem. 3, 556 (1982)). What a good guess has left is of two kinds:
errors along nearly dependent combinations of orbitals, whose energies are high, are large in the commutator, move few
electrons and are gone with the first Fock matrix; the slower response of the density is small in it. The commutator alone
would weigh the second Fock matrix for the first kind and so overshoot in the second. Over the energies' difference both count
by the electrons they move. Extrapolation begins with the first Fock matrix, which PySCF leaves out.

A plain step from a Fock matrix to its density overshoots where states lie near each other: what an error there moves comes
back with the other sign, and more of it. So the first two extrapolated matrices keep a share of what their density says that
they should have been,

    F_pq + 0.1 hartree / (|e_p - e_q| + 0.1 hartree) (e_p - e_q) / (f_p - f_q) D_pq,    D_pq = C_p^H S D S C_q

with states, energies and occupations of the extrapolated F, and D extrapolated alike; with all of the second term F would
have D for its density again, to first order.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from pyscf import lib
from pyscf.scf.diis import CDIIS

LEAST_DIFFERENCE_HARTREE: Final = 0.1
"""Added to differences of energies, so that states at the Fermi level do not decide alone."""
FIRST_CYCLE: Final = 0
SCREENED_CYCLES: Final = 2
"""After these cycles steps are plain: held back for longer, the slowest errors would last."""
SCREENING_HARTREE: Final = 0.1
SAME_OCCUPATION: Final = 1e-2
"""Electrons; between states whose occupations differ by less, hardly anything moves."""


class LevelDIIS(CDIIS):  # type: ignore[misc]  # PySCF has no types
    """PySCF's DIIS with this error; matrices are (k, ao, ao)."""

    def __init__(self, mf: Any = None, filename: str | None = None) -> None:
        super().__init__(mf, filename)
        self._states: list[tuple[Any, Any]] | None = None
        self._cycles = 0

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
        focks, densities = lib.diis.DIIS.update(self, np.stack([f, d]), xerr=np.hstack(errors))
        self._cycles += 1
        return _screened(mf, s, densities, focks) if self._cycles <= SCREENED_CYCLES else focks


def _screened(mf: Any, overlaps: Any, densities: Any, focks: Any) -> Any:
    """Fock matrices of a step that is held back between states near each other, (k, ao, ao)."""
    energies, orbitals = mf.eig(focks, overlaps)
    with lib.temporary_env(mf, verbose=0):  # PySCF would tell of a Fermi level that is nobody's
        occupations = mf.get_occ(energies, orbitals)
    made = []
    for e, c, f, s, density, fock in zip(energies, orbitals, occupations, overlaps, densities, focks, strict=True):
        columns = s @ c
        apart, fuller = e[:, None] - e, f[:, None] - f
        moves = np.abs(fuller) > SAME_OCCUPATION
        factors = np.where(moves, apart / np.where(moves, fuller, 1.0), 0.0)
        factors *= SCREENING_HARTREE / (np.abs(apart) + SCREENING_HARTREE)
        missing = columns.conj().T @ density @ columns * factors
        made.append(fock + columns @ missing @ columns.conj().T)
    return np.asarray(made)


def may_replace(mf: Any, diis: Any) -> bool:
    """Whether the calculation extrapolates as PySCF does by itself: nobody has chosen another way, or another beginning."""
    return mf.diis is True and type(diis) is CDIIS and not diis.damp and mf.diis_start_cycle == 1


def replacement(mf: Any) -> LevelDIIS:
    """With the settings that the calculation has."""
    made = LevelDIIS(mf, mf.diis_file)
    made.space, made.rollback = mf.diis_space, mf.diis_space_rollback
    return made
