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
