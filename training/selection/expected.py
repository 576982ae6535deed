"""What a checkpoint expects its own error on an unlabelled molecule to be; one molecule is one piece of work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.errors import ModelError
from model.structure import Structure
from training.generate.geometry import GeometryError, geometries_of, parse_smiles
from training.generate.recipe import SmilesConfig
from training.predict.work import predictor_of

MINIMUM = SmilesConfig(minimum=True, temperatures=())


@dataclass(frozen=True)
class Candidate:
    """One molecule of the pool.

    Attributes:
        smiles: canonical.
        checkpoint: folder that is asked.
        seed: of the conformer.
    """

    smiles: str
    checkpoint: Path
    seed: int


@dataclass(frozen=True)
class Judged:
    """What was found of a candidate.

    Attributes:
        smiles: of the candidate.
        error: expected density error, |D_ia| over the root of the occupied orbitals; infinite where the checkpoint says that
            the molecule is not in its domain; NaN where there is a reason instead.
        reason: why nothing was predicted, or "".
    """

    smiles: str
    error: float
    reason: str = ""


def judge(candidate: Candidate) -> Judged:
    """The GFN2-xTB minimum of a SMILES, predicted."""
    try:
        (geometry,) = geometries_of(candidate.smiles, MINIMUM, candidate.seed)
        numbers = parse_smiles(candidate.smiles).numbers
        (prediction,) = predictor_of(candidate.checkpoint, "cpu").predict([Structure(numbers, geometry.positions)])
    except (GeometryError, ModelError, ArithmeticError) as error:
        return Judged(candidate.smiles, float("nan"), str(error))
    except RuntimeError as error:  # tblite's SCF
        return Judged(candidate.smiles, float("nan"), f"{type(error).__name__}: {error}")
    if prediction.expected is None:
        return Judged(candidate.smiles, float("inf"))
    value = prediction.expected.density_error_per_electron.value
    return Judged(candidate.smiles, value if np.isfinite(value) else float("inf"))
