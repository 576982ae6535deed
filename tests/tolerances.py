"""Named tolerances of the tests; what is compared is of order one unless the name says a unit.

A law that holds in exact arithmetic is held to the rounding of the arithmetic it runs in, with two or three digits to spare
for sums; a wrong sign or a missing term misses by ten orders of magnitude more.
"""

from __future__ import annotations

from typing import Final

LAW_FLOAT64: Final = 1e-9
"""A law of symmetry, hartree or standardised units, with float64 arithmetic."""

LAW_FLOAT32: Final = 1e-5
"""The same with float32 arithmetic, as served."""

SAME_FLOAT64: Final = 1e-12
"""Two evaluations of one function in float64, relative."""

SAME_FLOAT32: Final = 5e-6
"""Two evaluations of one function in float32, relative."""

NOT_NOTHING: Final = 1e-4
"""What a quantity under test must be larger than, so that a law of zeros is not taken for one."""

NOT_ROUNDING: Final = 1e-8
"""What a quantity must be larger than to be more than rounding in float64."""

CONTINUITY_STEP_ANGSTROM: Final = 1e-4
"""Step over a cutoff, and beside it."""

CONTINUITY_SLOPES: Final = 4.0
"""A step over a cutoff is at most so many times one beside it."""

HERMITIAN: Final = 1e-13
"""Rounding of a few additions."""

INTEGRALS: Final = 1e-11
"""PySCF's one-electron integrals and orbitals on a grid of points, of order one."""

SCF_FOCK: Final = 1e-6
"""Fock matrices of two converged calculations, hartree."""

SAME_CURVE: Final = 1e-4
"""Validation of a run after a dozen steps with sums in another order, relative: rounding of float32, grown by training."""
