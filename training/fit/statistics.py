"""Fills the standardisation tables from training samples."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.blocks.standardise import Standardisation
from model.orbitals.space import OrbitalSpace
from training.fit.samples import Sample

FLOOR_RELATIVE = 1e-2
"""A channel's scale is at least this share of the table's median: a component that symmetry makes (almost) zero in a
small set must not be blown up."""


class _Moments:
    """Sums of values and squares per (type, ..., channel)."""

    def __init__(self, n_types: int, channel: NDArray[np.int64]) -> None:
        self.n_types = n_types
        self.channel = channel
        self.n_channels = int(channel.max()) + 1
        self.count = np.zeros(n_types)
        self.total: NDArray[np.float64] | None = None
        self.square: NDArray[np.float64] | None = None
        self.components = np.bincount(channel)

    def add(self, types: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        if self.total is None or self.square is None:
            shape = (self.n_types, *values.shape[1:-1], self.n_channels)
            self.total, self.square = np.zeros(shape), np.zeros(shape)
        grouped = np.zeros((2, *values.shape[:-1], self.n_channels))
        for target, source in zip(grouped, (values, values**2), strict=True):
            np.add.at(np.moveaxis(target, -1, 0), self.channel, np.moveaxis(source, -1, 0))
        np.add.at(self.total, types, grouped[0])
        np.add.at(self.square, types, grouped[1])
        np.add.at(self.count, types, 1)

    def mean(self, n_scalars: int) -> NDArray[np.float64]:
        """Mean of scalar channels, 0 elsewhere."""
        assert self.total is not None
        count = np.maximum(self.count, 1).reshape(-1, *[1] * (self.total.ndim - 1))
        mean = self.total / count
        mean[..., n_scalars:] = 0.0
        return np.asarray(mean)

    def scale(self, mean: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Root mean square about the mean; 1 where the shell does not exist."""
        assert self.square is not None
        count = np.maximum(self.count, 1).reshape(-1, *[1] * (self.square.ndim - 1))
        square = self.square / count / self.components
        if mean is not None:
            square = square - mean**2
        scale = np.sqrt(np.maximum(square, 0.0))
        present = scale > 1e-9
        if not present.any():  # without H0, all diagonal inputs are constants of their element
            return np.ones_like(scale)
        floor = FLOOR_RELATIVE * np.median(scale[present])
        return np.asarray(np.where(present, np.maximum(scale, floor), 1.0))


def fill(standardisation: Standardisation, samples: Iterable[Sample], basis: OrbitalSpace) -> None:
    """Write the training set's means and scales into the tables."""
    channel = standardisation.channel.numpy()
    elements = np.array(basis.elements)
    n_elements = len(elements)
    inputs_diagonal, inputs_pair = _Moments(n_elements, channel), _Moments(n_elements**2, channel)
    target_diagonal, target_pair = _Moments(n_elements, channel), _Moments(n_elements**2, channel)
    for sample in samples:
        types = np.searchsorted(elements, sample.graph.numbers.numpy())
        row, column = sample.graph.pair_index.numpy()
        pair_types = types[row] * n_elements + types[column]
        target = sample.target.numpy().astype(np.float64)
        inputs_diagonal.add(types, sample.inputs.diagonal.numpy().astype(np.float64))
        inputs_pair.add(pair_types, sample.inputs.pair.numpy().astype(np.float64))
        target_diagonal.add(types, target[: len(types)])
        target_pair.add(pair_types, target[len(types) :])
    mean = inputs_diagonal.mean(standardisation.n_scalars)
    target_mean = target_diagonal.mean(standardisation.n_scalars)

    def write(buffer: Tensor, values: NDArray[np.float64]) -> None:
        buffer.copy_(torch.from_numpy(values))

    write(standardisation.input_mean, mean)
    write(standardisation.input_diagonal_scale, inputs_diagonal.scale(mean))
    write(standardisation.input_pair_scale, inputs_pair.scale(None))
    write(standardisation.target_mean, target_mean)
    write(standardisation.target_diagonal_scale, target_diagonal.scale(target_mean))
    write(standardisation.target_pair_scale, target_pair.scale(None))
