"""HOMO, LUMO and gap of orbitals with occupations, which guesses and lists of energies share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Frontier:
    """Adds ``homo``, ``lumo`` and ``gap``, in the unit of the energies."""

    def levels(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Energies and occupations, (mo,)."""
        raise NotImplementedError

    @property
    def homo(self) -> float | None:
        """Energy of the highest occupied orbital, or None where none is occupied."""
        energies, occupations = self.levels()
        occupied = energies[occupations > 0]
        return float(occupied.max()) if len(occupied) else None

    @property
    def lumo(self) -> float | None:
        """Energy of the lowest empty orbital, or None where there is none."""
        energies, occupations = self.levels()
        empty = energies[occupations == 0]
        return float(empty.min()) if len(empty) else None

    @property
    def gap(self) -> float | None:
        """LUMO minus HOMO, or None where one of them is missing."""
        homo, lumo = self.homo, self.lumo
        return None if homo is None or lumo is None else lumo - homo


def told(value: float | None, unit: str) -> str:
    """An energy for people."""
    return "none" if value is None else f"{value:.4f} {unit}"
