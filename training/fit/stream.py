"""Training samples made while training: for sets whose samples do not fit in memory (QH9: a megabyte a molecule).

``StreamedSamples`` stands where the list of samples stands. What a batch needs is read and cut into coefficients by
worker processes a few batches ahead; order, and with it exact resuming, is the trainer's, not the workers'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Final, overload

import numpy as np

from model.preparation import Preparer
from training.data.frame import Gauge
from training.data.sources import FrameSource, open_source, select
from training.fit.config import DataConfig
from training.fit.losses.term import Term
from training.fit.samples import Arrays, Sample, sample_arrays
from training.pool import start_worker

LOOKAHEAD_BATCHES: Final = 4
STATISTICS_SAMPLES: Final = 2000
"""Means and scales are taken from so many samples, spread evenly over the set."""


@dataclass(frozen=True)
class SampleSize:
    """Blocks that a sample not made yet has at most: which pairs are computed depends on its elements."""

    n_blocks: int


@dataclass(frozen=True)
class Recipe:
    """How a sample is made of a frame; what every worker gets."""

    source: FrameSource
    preparer: Preparer
    terms: tuple[Term, ...]
    gauge: Gauge

    def make(self, index: int, split: str) -> Arrays:
        """The sample of one frame, as arrays."""
        return sample_arrays(self.source.frame(index, split).in_gauge(self.gauge), self.preparer, self.terms)


class StreamedSamples(Sequence[Sample]):
    """Samples of a run's training splits; closes its file and its workers at ``close``.

    Args:
        data: the run's data.
        preparer: the model's.
        terms: of the loss.
        processes: worker processes; 0 makes every sample when it is asked for.

    Attributes:
        sizes: the cost of each sample, from above.
    """

    def __init__(self, data: DataConfig, preparer: Preparer, terms: Sequence[Term], *, processes: int) -> None:
        source = open_source(data.file, data.format)
        limits = {"frames_per_molecule": data.frames_per_molecule or None, "max_molecules": data.max_molecules or None}
        self._frames = [
            (int(index), split) for split in data.train for index in select(source, split, scheme=data.split, **limits)
        ]
        counts = source.atom_counts()
        self.sizes = [SampleSize(int(n * n)) for n in (counts[index] for index, _ in self._frames)]
        self._recipe = Recipe(source, preparer, tuple(terms), data.gauge)
        self._pending: dict[int, Future[Arrays]] = {}
        self._pool = (
            ProcessPoolExecutor(
                processes, mp_context=get_context("spawn"), initializer=_start, initargs=(self._recipe,)
            )
            if processes
            else None
        )

    def __len__(self) -> int:
        return len(self._frames)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        pending = self._pending.pop(index, None)
        return Sample.of(self._recipe.make(*self._frames[index]) if pending is None else pending.result())

    def prefetch(self, groups: Sequence[Sequence[int]]) -> None:
        """Have the workers make the samples of the next batches."""
        if self._pool is None:
            return
        for group in groups[:LOOKAHEAD_BATCHES]:
            for index in group:
                if index not in self._pending:
                    self._pending[index] = self._pool.submit(_make, *self._frames[index])

    def spread(self, count: int = STATISTICS_SAMPLES) -> Iterator[Sample]:
        """Some samples, spread evenly; one at a time."""
        indices = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int)).tolist()
        chunks = [indices[start : start + 32] for start in range(0, len(indices), 32)]
        for number, chunk in enumerate(chunks):
            self.prefetch(chunks[number:])
            yield from (self[index] for index in chunk)

    def close(self) -> None:
        """Stop the workers and close the file."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._recipe.source.close()


_recipe: Recipe | None = None
"""A worker process's own."""


def _start(recipe: Recipe) -> None:
    global _recipe
    start_worker()
    _recipe = recipe


def _make(index: int, split: str) -> Arrays:
    assert _recipe is not None
    return _recipe.make(index, split)
