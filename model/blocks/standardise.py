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

from model.blocks.block_set import BlockSet
from model.blocks.spaces import BlockSpace
from model.blocks.template import TemplateMap
from model.orbitals.space import OrbitalSpace


class Encoder:
    """Cuts matrices into blocks and expands them in irreps.

    Args:
        space: the block space of the target; known matrices, which have no spin, are its spinless component.
    """

    def __init__(self, space: BlockSpace) -> None:
        self.space = space

    def encode(
        self, matrices: Sequence[NDArray[np.float64] | BlockSet], blocks: TemplateMap
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coefficients of some matrices of one structure.

        Args:
            matrices: dense, (ao, ao), or with the pairs of ``blocks``; all of one kind.
            blocks: where their entries belong.

        Returns:
            on-site (atom, matrix, coefficient) and pair (listed pair, matrix, coefficient).
        """
        dense = [matrix for matrix in matrices if not isinstance(matrix, BlockSet)]
        if dense:
            parts = blocks.cut(np.stack(dense))
        else:
            empty = np.zeros((blocks.n_items, 0, blocks.space.template_size, blocks.space.template_size))
            found = [blocks.of_entries(matrix.values) for matrix in matrices if isinstance(matrix, BlockSet)]
            parts = np.concatenate([empty, *found], axis=1)
        # S of both spins is S x 1: all of it in the first component
        scale = 1.0 if self.space.spin == "restricted" else np.sqrt(2.0)
        transform = scale * self.space.matrix[: parts.shape[2] * parts.shape[3]]
        # one product, not one for each block
        coefficients = (parts.reshape(-1, len(transform)) @ transform).reshape(*parts.shape[:2], transform.shape[1])
        n_atoms = blocks.pairs.n_atoms
        return coefficients[:n_atoms], coefficients[n_atoms:]

    def encode_target(self, target: BlockSet, blocks: TemplateMap) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coefficients of a label, spin included: on-site (atom, coefficient) and pair (listed pair, coefficient)."""
        parts = blocks.of_entries(self.space.to_components(target.values))
        coefficients = parts.reshape(len(parts), -1) @ self.space.matrix
        n_atoms = blocks.pairs.n_atoms
        return coefficients[:n_atoms], coefficients[n_atoms:]


class Standardisation(nn.Module):
    """Mean and scale tables of the inputs and of the target, by element (pair) and channel.

    Args:
        space: elements and template.
        n_inputs: number of input matrices.
        block_space: of the target; blocks without spin if it is not given.

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

    def __init__(self, space: OrbitalSpace, n_inputs: int, block_space: BlockSpace | None = None) -> None:
        super().__init__()
        blocks = BlockSpace.of(space.template) if block_space is None else block_space
        n_elements, n_channels = len(space.elements), len(blocks.coefficients.channels)
        self.register_buffer("input_mean", torch.zeros(n_elements, n_inputs, n_channels))
        self.register_buffer("input_diagonal_scale", torch.ones(n_elements, n_inputs, n_channels))
        self.register_buffer("input_pair_scale", torch.ones(n_elements**2, n_inputs, n_channels))
        self.register_buffer("target_mean", torch.zeros(n_elements, n_channels))
        self.register_buffer("target_diagonal_scale", torch.ones(n_elements, n_channels))
        self.register_buffer("target_pair_scale", torch.ones(n_elements**2, n_channels))
        self.register_buffer("channel", torch.from_numpy(blocks.channel_of_coefficient), persistent=False)
        self.register_buffer("expansion", torch.from_numpy(blocks.matrix), persistent=False)
        self.n_scalars = blocks.coefficients.multiplicity[0]
        self.shape = (blocks.n_components, space.template_size, space.template_size)

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
        """Network output (item, coefficient) -> blocks (item, component, row, column), hartree; on-site ones first."""
        mean = self.target_mean[atom_type][:, self.channel] * self._is_scalar().to(diagonal.dtype)
        coefficients = torch.cat(
            [
                diagonal * self.target_diagonal_scale[atom_type][:, self.channel] + mean,
                pair * self.target_pair_scale[pair_type][:, self.channel],
            ]
        )
        matrix = self.expansion.to(coefficients.dtype)
        return (coefficients @ matrix.T).unflatten(1, self.shape)

    def _is_scalar(self) -> Tensor:
        return self.channel < self.n_scalars
