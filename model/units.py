"""The only conversion factors of the project, named as fractions so that they cancel on sight.

CODATA 2018 (the set that ASE 3.29 and PySCF 2.14 use to within 1e-9 relative):
``positions_angstrom * BOHR_PER_ANGSTROM`` is in bohr.
"""

from __future__ import annotations

from typing import Final

ANGSTROM_PER_BOHR: Final = 0.529177210903
BOHR_PER_ANGSTROM: Final = 1.0 / ANGSTROM_PER_BOHR
EV_PER_HARTREE: Final = 27.211386245988
MICROHARTREE_PER_HARTREE: Final = 1.0e6
MILLIHARTREE_PER_HARTREE: Final = 1.0e3
