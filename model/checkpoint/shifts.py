"""Other functionals that a checkpoint's guesses serve: ``shifts.json`` beside its weights, which are untouched by it.

For each functional the coefficients of ``model.reference.shift``, and what they were found to bring on molecules that took no
part in the fit (``training.shift``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.checkpoint.beside import OfWeights, read_beside
from model.errors import CheckpointError
from model.level import fold_functional
from model.orbitals.space import OrbitalSpace
from model.reference.shift import FunctionalShift
from model.reference.terms import TermLayout

FILE: Final = "shifts.json"


class FittedFunctional(BaseModel):
    """One functional.

    Attributes:
        xc: as PySCF names it; "hf" for Hartree-Fock.
        coefficients: of all terms.
        molecules: that they were fitted to.
        misplaced: electrons in wrong places, means over molecules that took no part, without the shift and with it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    xc: str = Field(min_length=1, max_length=100)
    coefficients: list[float]
    molecules: int = Field(ge=1)
    misplaced: tuple[float, float]


class Stored(OfWeights):
    """The file.

    Attributes:
        exponents: of the Gaussian charges, 1/bohr^2.
        functionals: in any order, each once.
    """

    exponents: list[float] = Field(min_length=1, max_length=64)
    functionals: list[FittedFunctional] = Field(max_length=64)

    @model_validator(mode="after")
    def _once(self) -> Self:
        names = [fold_functional(each.xc) for each in self.functionals]
        if len(set(names)) < len(names):
            raise ValueError("a functional stands there twice")
        if not min(self.exponents) > 0:
            raise ValueError("exponents are positive")
        return self


@dataclass(frozen=True, eq=False)
class Shifts:
    """Those of a checkpoint.

    Attributes:
        of_functional: by the folded name of the functional (``model.level.fold_functional``).
    """

    of_functional: Mapping[str, FunctionalShift]

    def find(self, xc: str) -> FunctionalShift | None:
        """To this functional, however it is spelt."""
        return self.of_functional.get(fold_functional(xc))


def read_shifts(folder: Path, weights_sha256: str, space: OrbitalSpace) -> Shifts | None:
    """The shifts beside a checkpoint's weights; None if there are none.

    Args:
        folder: the checkpoint's.
        weights_sha256: of its weights.
        space: its orbitals.

    Raises:
        CheckpointError: a file that cannot be read, is of other weights, or does not fit the orbitals.
    """
    relation, again = "shifts Hamiltonians of", "python -m training shift"
    stored = read_beside(folder / FILE, Stored, weights_sha256, relation=relation, again=again)
    if stored is None:
        return None
    exponents = np.array(stored.exponents)
    expected = len(TermLayout(space, len(exponents)))
    found: dict[str, FunctionalShift] = {}
    for each in stored.functionals:
        if len(each.coefficients) != expected:
            raise CheckpointError(
                f"{folder.name}/{FILE} has {len(each.coefficients)} coefficients for {each.xc}; there are {expected} terms.",
                hint="Fit it again (python -m training shift), or leave it out.",
            )
        found[fold_functional(each.xc)] = FunctionalShift(space, exponents, np.array(each.coefficients))
    return Shifts(found)
