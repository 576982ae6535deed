"""Units of energy in files of matrices, each with where its number comes from.

The inside of the project is hartree. A file's own numbers survive a conversion to a format of the same unit bit for bit only
if they are not divided and multiplied on the way; readers therefore take the unit that the caller wants, and writers
convert from whatever they get.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from model.units import EV_PER_HARTREE


@dataclass(frozen=True)
class EnergyUnit:
    """A unit of energy: its name, and how many of it make a hartree."""

    name: str
    per_hartree: float


HARTREE: Final = EnergyUnit("hartree", 1.0)
RYDBERG: Final = EnergyUnit("Ry", 2.0)
"""ABACUS writes Rydberg. Its constant ``Ry_to_eV`` = 13.605698 is what converters to eV take; hartree need it not."""
DEEPH_EV: Final = EnergyUnit("eV (DeepH)", 27.2113845)
"""DeepH-pack's converters take the constant of OpenMX (``eV2Hartree`` = 27.2113845, CODATA 2002); 6e-8 below today's."""
CODATA_EV: Final = EnergyUnit("eV", EV_PER_HARTREE)
"""sisl (SIESTA) and GPAW; CODATA 2018."""
