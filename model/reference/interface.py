"""What a reference Hamiltonian H0 is to the rest of the model; ``registry.REFERENCES`` lists the kinds there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from model.orbitals.space import OrbitalSpace

Matrix = NDArray[np.float64]
Tensors = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class ReferenceResult:
    """H0 and the density it came from.

    Attributes:
        hamiltonian: H0, (ao, ao), hartree.
        density: D1, (ao, ao).
    """

    hamiltonian: Matrix
    density: Matrix


class Reference(Protocol):
    """H0 of any structure; the network predicts what is left.

    Attributes:
        kind: name on a checkpoint's card and in run files.
        note: description for the card.
        sources: integral sources (``preparation.SOURCES``) whose integrals :meth:`evaluate` takes.
    """

    kind: ClassVar[str]
    note: ClassVar[str]
    sources: ClassVar[tuple[str, ...]]

    def evaluate(self, molecule: Any) -> ReferenceResult:
        """H0 and its density.

        Args:
            molecule: integrals of one of ``sources``.
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
