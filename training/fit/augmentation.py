"""Rotated copies of training batches, for a network that has to learn how blocks turn.

Vectors of the graph and the coefficients of known matrices and labels are turned together, so that the batch is the one
that the turned structures would give. Rotations depend on the run's seed and the step only: a resumed run sees the ones that
it would have seen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from scipy.stats import truncnorm
from torch import Tensor

from model.architectures.interface import InputCoefficients
from model.nn.frames import wigner_matrices
from model.nn.irreps import CoefficientLayout
from training.fit.ranks import Share
from training.fit.samples import Batch
from training.fit.stages import StagesConfig

SMALL: Final = 0.2
STRONG: Final = 0.5
"""Where the angles of the published schedule, in units of pi, are cut off."""
KEPT: Final = 0.7
"""Share of the last step's angles in the published schedule."""
REMEMBERED: Final = 48
"""Steps after which what is left of an angle, KEPT to this power, is below 1e-7."""
_STREAM: Final = 7
"""Of random numbers: not the one that orders the data."""


class Augmentation:
    """Turns batches.

    Args:
        config: which rotations, and when.
        seed: of the run.
        coefficients: how coefficients are laid out.
    """

    def __init__(self, config: StagesConfig, seed: int, coefficients: CoefficientLayout) -> None:
        self.config = config
        self.seed = seed
        self.coefficients = coefficients

    def __call__(self, batch: Batch, step: int, progress: float, share: Share | None = None) -> Batch:
        """The batch of a step, turned if it is time for that.

        Args:
            batch: as it was labelled; what loss terms asked for besides blocks must not be there.
            step: of the run.
            progress: share of the run that is done.
            share: which structures of the step's batch these are; None for all.
        """
        whole = batch.graph.n_structures if share is None else share.n_whole
        matrices = self.rotations(whole, step, progress)
        if matrices is None:
            return batch
        own = matrices if share is None else matrices[np.array(share.places)]
        return turned(batch, own, self.coefficients)

    def rotations(self, n_structures: int, step: int, progress: float) -> NDArray[np.float64] | None:
        """Of each structure, (structure, 3, 3); None before it is time."""
        if progress < self.config.augment_from or self.config.augmentation == "none":
            return None
        if self.config.augmentation == "full":
            random = np.random.default_rng([self.seed, _STREAM, step])
            found: NDArray[np.float64] = Rotation.random(n_structures, random_state=random).as_matrix()
            return found
        limit = STRONG if progress >= self.config.strong_from else SMALL
        angles = np.zeros(3)
        for earlier in range(max(0, step - REMEMBERED), step + 1):
            random = np.random.default_rng([self.seed, _STREAM, earlier])
            angles = KEPT * angles + (1.0 - KEPT) * truncnorm.rvs(-limit, limit, size=3, random_state=random)
        matrix = Rotation.from_euler("xyz", np.pi * angles).as_matrix()  # about the fixed axes x, y, z: Rz Ry Rx
        return np.broadcast_to(matrix, (n_structures, 3, 3))


def turned(batch: Batch, matrices: NDArray[np.float64], coefficients: CoefficientLayout) -> Batch:
    """The batch of the structures after x -> matrix @ x.

    Args:
        batch: with no extras.
        matrices: proper rotations of each structure, (structure, 3, 3).
        coefficients: layout of the blocks' coefficients.
    """
    graph = batch.graph
    rotation = torch.from_numpy(np.array(matrices)).to(graph.pair_vectors)
    # D in float64: the recursion of high l loses a digit
    exact = wigner_matrices(torch.from_numpy(np.array(matrices)), max(ang for ang, _ in coefficients.layout.irreps))
    wigner = [matrix.to(graph.pair_vectors) for matrix in exact]

    def vectors(values: Tensor, of: Tensor) -> Tensor:
        return torch.einsum("eij,ej->ei", rotation.index_select(0, of), values)

    def blocks(values: Tensor, of: Tensor) -> Tensor:
        """(item, ..., coefficient)."""
        flat = values.reshape(len(values), -1, values.shape[-1])
        parts = [
            wigner[ang].index_select(0, of).unsqueeze(1)
            @ flat[:, :, part].unflatten(2, (2 * ang + 1, -1) if count else (2 * ang + 1, 0))
            for (ang, _), part, count in zip(
                coefficients.layout.irreps, coefficients.slices, coefficients.multiplicity, strict=True
            )
        ]
        return torch.cat([part.flatten(2) for part in parts], dim=2).view_as(values)

    atoms = graph.structure_index
    pairs, edges = atoms[graph.pair_index[0]], atoms[graph.edge_index[0]]
    return replace(
        batch,
        graph=replace(
            graph,
            pair_vectors=vectors(graph.pair_vectors, pairs),
            edge_vectors=vectors(graph.edge_vectors, edges),
        ),
        inputs=InputCoefficients(blocks(batch.inputs.diagonal, atoms), blocks(batch.inputs.pair, pairs)),
        target=blocks(batch.target, torch.cat([atoms, pairs])),
    )
