"""What a reference Hamiltonian H0 is to the rest of the model; ``registry.REFERENCES`` lists the kinds there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.integrals.source import KnownMatrix
from model.orbitals.space import OrbitalSpace

Matrix = NDArray[np.float64]
Tensors = Mapping[str, NDArray[np.float64]]


KnownT = TypeVar("KnownT", bound=KnownMatrix, covariant=True)


@dataclass(frozen=True)
class ReferenceResult(Generic[KnownT]):
    """H0 and the density it came from.

    Attributes:
        hamiltonian: H0, hartree: (ao, ao) of a molecule, restricted blocks of a crystal.
        density: D1, (ao, ao); None if H0 does not come from one.
        projected_density: S D1 S, which transforms as H does, (ao, ao); None without a density.
    """

    hamiltonian: KnownT
    density: Matrix | None
    projected_density: Matrix | None = None


class Reference(Protocol):
    """H0 of any structure; the network predicts what is left.

    Attributes:
        kind: name on a checkpoint's card and in run files.
        note: description for the card.
        sources: integral sources (``preparation.SOURCES``) whose integrals :meth:`evaluate` takes.
        has_density: whether H0 comes from a density, which a network may read.
    """

    kind: ClassVar[str]
    note: ClassVar[str]
    sources: ClassVar[tuple[str, ...]]
    has_density: ClassVar[bool]

    def evaluate(self, integrals: Any, /) -> ReferenceResult[KnownMatrix]:
        """H0 and its density.

        Args:
            integrals: of one of ``sources``.
        """
        ...

    def tensors(self) -> dict[str, NDArray[np.float64]]:
        """What a checkpoint stores of it, by name."""
        ...

    @classmethod
    def shapes(cls, space: OrbitalSpace, stored: Tensors) -> dict[str, tuple[int, ...]]:
        """Names and shapes that the stored tensors must have, so far as the tensors themselves do not decide."""
        ...

    @classmethod
    def from_tensors(cls, space: OrbitalSpace, stored: Tensors) -> Self:
        """From what :meth:`tensors` gave; names and shapes have been compared."""
        ...
