"""No reference: the network learns F itself, as the papers' networks do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from model.orbitals.space import OrbitalSpace
from model.reference.interface import Matrix, ReferenceResult, Tensors


class HasOverlap(Protocol):
    """All that tells the size of a molecule's matrices."""

    @property
    def overlap(self) -> Matrix:
        """S, (ao, ao)."""
        ...


@dataclass(frozen=True)
class NoReference:
    """H0 = 0. Its density is zero as well."""

    kind: ClassVar[str] = "none"
    note: ClassVar[str] = "none: the network predicts the whole Hamiltonian"
    sources: ClassVar[tuple[str, ...]] = ("pyscf_molecule",)
    has_density: ClassVar[bool] = True

    def evaluate(self, molecule: HasOverlap) -> ReferenceResult[Matrix]:
        """Zero matrices, (ao, ao)."""
        zero = np.zeros_like(molecule.overlap)
        return ReferenceResult(zero, zero, zero)

    def tensors(self) -> dict[str, NDArray[np.float64]]:
        """Nothing is stored."""
        return {}

    @classmethod
    def shapes(cls, space: OrbitalSpace, stored: Tensors) -> dict[str, tuple[int, ...]]:
        """Nothing is stored."""
        return {}

    @classmethod
    def from_tensors(cls, space: OrbitalSpace, stored: Tensors) -> Self:
        """The one there is."""
        return cls()
