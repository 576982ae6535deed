"""Which samples make a batch, in which order, and where they are kept.

The order depends on the seed and the epoch only, so a resumed run sees the batches that it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from training.fit.config import OptimiserConfig
from training.fit.samples import Batch, Sample, join
from training.fit.stream import StreamedSamples


class HasBlocks(Protocol):
    """Anything whose cost is known."""

    @property
    def n_blocks(self) -> int:
        """On-site blocks and listed pairs."""
        ...


class TrainingSet:
    """Training samples: all on the device for the whole run, or streamed and put there batch by batch.

    Args:
        samples: of the set; unless they are streamed, they are not needed afterwards.
        device: where batches are wanted.

    Attributes:
        sizes: the cost of each sample.
        n_bytes: memory on the device that the set takes for the whole run.
    """

    def __init__(self, samples: Sequence[Sample] | StreamedSamples, device: torch.device) -> None:
        self._device = device
        self._streamed = samples if isinstance(samples, StreamedSamples) else None
        self._held = [] if isinstance(samples, StreamedSamples) else [sample.to(device) for sample in samples]
        self.sizes: Sequence[HasBlocks] = self._held if self._streamed is None else self._streamed.sizes
        self.n_bytes = sum(sample.n_bytes for sample in self._held)

    def __len__(self) -> int:
        return len(self.sizes)

    def groups(self, seed: int, epoch: int, config: OptimiserConfig) -> list[list[int]]:
        """The samples of each batch of an epoch."""
        order = np.random.default_rng([seed, epoch]).permutation(len(self))
        return pack(order.tolist(), self.sizes, config.batch_blocks, config.batch_molecules)

    def batch(self, groups: Sequence[Sequence[int]]) -> Batch:
        """The first of these groups as a batch; if samples are streamed, workers begin with the next ones."""
        if self._streamed is None:
            return join([self._held[index] for index in groups[0]])
        self._streamed.prefetch(groups)
        return join([self._streamed[index].to(self._device) for index in groups[0]])


def batches_of(samples: Sequence[Sample], limit: int, device: torch.device) -> list[Batch]:
    """All samples in their order, in batches of at most ``limit`` blocks, on the device."""
    return [join([samples[i].to(device) for i in group]) for group in pack(range(len(samples)), samples, limit)]


def pack(order: Sequence[int], samples: Sequence[HasBlocks], limit: int, molecules: int = 0) -> list[list[int]]:
    """Group samples, in this order, into batches of at most ``limit`` blocks (a larger sample stands alone).

    Args:
        order: of the samples.
        samples: their costs.
        limit: blocks of a batch.
        molecules: samples of a batch, 0 for no limit.
    """
    groups: list[list[int]] = [[]]
    cost = 0
    for index in order:
        own = samples[index].n_blocks
        if groups[-1] and (cost + own > limit or len(groups[-1]) == molecules):
            groups.append([])
            cost = 0
        groups[-1].append(index)
        cost += own
    return [group for group in groups if group]
