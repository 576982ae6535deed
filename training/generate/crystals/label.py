"""A label of a crystal, whatever program made it."""

from __future__ import annotations

from dataclasses import dataclass

from model.formats.matrices import Matrices


class LabelError(Exception):
    """A structure that could not be labelled; says why."""


@dataclass(frozen=True, eq=False)
class CrystalLabel:
    """Matrices of one structure with what made them.

    Attributes:
        matrices: H(R), S(R), Fermi level, number of electrons and k-points; hartree; atoms as the recipe placed them.
        level: functional, basis, potential, k-points, smearing, in one line.
        cycles: of the SCF.
        energy_hartree: total energy of a cell.
    """

    matrices: Matrices
    level: str
    cycles: int
    energy_hartree: float
