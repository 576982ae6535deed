"""The error of blocks: the term that every label can have, molecule or crystal, with any spin treatment.

    mae * mean|dH| + rmse * sqrt(mean dH^2)  (millihartree)  +  mse * 1000 mean dH^2 (hartree^2)

Means are over all real numbers of a structure's matrix. The norm is not squared, so that every structure pulls with the same
strength however good it already is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.units import MICROHARTREE_PER_HARTREE, MILLIHARTREE_PER_HARTREE
from training.fit.losses.errors import BatchErrors
from training.fit.losses.term import Label


@dataclass(frozen=True)
class BlocksTerm:
    """The term.

    Attributes:
        mae, rmse, mse: weights of its three parts.
    """

    mae: float
    rmse: float
    mse: float
    name: str = "blocks"

    def prepare(self, label: Label) -> Mapping[str, NDArray[np.float64]]:
        """Nothing: the blocks are the label."""
        return {}

    def weight(self, progress: float) -> float:
        """1: the weights of the parts stand in the value."""
        return 1.0

    def __call__(self, errors: BatchErrors) -> Tensor:
        """Value of each structure, (structure,)."""
        value = self.mae * errors.mae + self.rmse * errors.rmse
        if self.mse:
            value = value + self.mse * errors.rmse.square()
        return MILLIHARTREE_PER_HARTREE * value

    def measures(self, errors: BatchErrors) -> Mapping[str, Tensor]:
        """Mean and root mean square error, µEh."""
        return {
            "mae_uEh": MICROHARTREE_PER_HARTREE * errors.mae,
            "rmse_uEh": MICROHARTREE_PER_HARTREE * errors.rmse,
        }
