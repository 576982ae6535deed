"""Matrices -> standardised irrep coefficients, and back: the units the network works in.

Entries of H span 1e-6 to 20 hartree, so every coefficient is divided by the root mean square that its (element pair,
shell pair, irrep) has in the training set, and the scalars of diagonal blocks are centred first. The tables are part of
the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.blocks.assemble import BlockMap
from model.blocks.spaces import BlockSpace
from model.orbitals.space import OrbitalSpace


class Encoder:
    """Cuts matrices into blocks and expands them in irreps.

    Args:
        basis: gives the template.
    """

    def __init__(self, basis: OrbitalSpace) -> None:
        self.expansion = BlockSpace.of(basis.template)

    def encode(
        self, matrices: Sequence[NDArray[np.float64]], block_map: BlockMap
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coefficients of some matrices of one molecule.

        Args:
            matrices: each (ao, ao), PySCF order.

        Returns:
            diagonal (atom, matrix, coefficient) and pair (pair, matrix, coefficient).
        """
        split = [block_map.split(matrix) for matrix in matrices]
        transform = self.expansion.matrix

        def expand(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
            stacked = np.stack(parts, axis=1)
            return np.asarray(stacked.reshape(*stacked.shape[:2], transform.shape[0]) @ transform)

        return expand([diagonal for diagonal, _ in split]), expand([pair for _, pair in split])


class Standardisation(nn.Module):
    """Mean and scale tables of the inputs and of the target, by element (pair) and channel.

    Args:
        basis: elements and template.
        n_inputs: number of input matrices.

    Attributes:
        input_mean, input_diagonal_scale: (element, matrix, channel).
        input_pair_scale: (element pair, matrix, channel).
        target_mean, target_diagonal_scale: (element, channel), hartree.
        target_pair_scale: (element pair, channel), hartree.
    """

    input_mean: Tensor
    input_diagonal_scale: Tensor
    input_pair_scale: Tensor
    target_mean: Tensor
    target_diagonal_scale: Tensor
    target_pair_scale: Tensor
    channel: Tensor
    expansion: Tensor

    def __init__(self, basis: OrbitalSpace, n_inputs: int) -> None:
        super().__init__()
        expansion = BlockSpace.of(basis.template)
        n_elements, n_channels = len(basis.elements), len(expansion.coefficients.channels)
        self.register_buffer("input_mean", torch.zeros(n_elements, n_inputs, n_channels))
        self.register_buffer("input_diagonal_scale", torch.ones(n_elements, n_inputs, n_channels))
        self.register_buffer("input_pair_scale", torch.ones(n_elements**2, n_inputs, n_channels))
        self.register_buffer("target_mean", torch.zeros(n_elements, n_channels))
        self.register_buffer("target_diagonal_scale", torch.ones(n_elements, n_channels))
        self.register_buffer("target_pair_scale", torch.ones(n_elements**2, n_channels))
        self.register_buffer("channel", torch.from_numpy(expansion.channel_of_coefficient), persistent=False)
        self.register_buffer("expansion", torch.from_numpy(expansion.matrix), persistent=False)
        self.n_scalars = expansion.coefficients.multiplicity[0]
        self.template = basis.template_size

    def inputs(self, diagonal: Tensor, pair: Tensor, atom_type: Tensor, pair_type: Tensor) -> tuple[Tensor, Tensor]:
        """Standardise raw input coefficients (item, matrix, coefficient)."""
        mean = self.input_mean[atom_type][:, :, self.channel]
        centred = diagonal - mean * self._is_scalar().to(diagonal.dtype)
        return (
            centred / self.input_diagonal_scale[atom_type][:, :, self.channel],
            pair / self.input_pair_scale[pair_type][:, :, self.channel],
        )

    def target(self, diagonal: Tensor, pair: Tensor, atom_type: Tensor, pair_type: Tensor) -> tuple[Tensor, Tensor]:
        """Standardise raw target coefficients (item, coefficient): what trace labels are made of."""
        mean = self.target_mean[atom_type][:, self.channel] * self._is_scalar().to(diagonal.dtype)
        return (
            (diagonal - mean) / self.target_diagonal_scale[atom_type][:, self.channel],
            pair / self.target_pair_scale[pair_type][:, self.channel],
        )

    def blocks(self, diagonal: Tensor, pair: Tensor, atom_type: Tensor, pair_type: Tensor) -> Tensor:
        """Network output (item, coefficient) -> blocks in hartree, all diagonal ones, then all pairs."""
        mean = self.target_mean[atom_type][:, self.channel] * self._is_scalar().to(diagonal.dtype)
        coefficients = torch.cat(
            [
                diagonal * self.target_diagonal_scale[atom_type][:, self.channel] + mean,
                pair * self.target_pair_scale[pair_type][:, self.channel],
            ]
        )
        matrix = self.expansion.to(coefficients.dtype)
        return (coefficients @ matrix.T).unflatten(1, (self.template, self.template))

    def _is_scalar(self) -> Tensor:
        return self.channel < self.n_scalars
