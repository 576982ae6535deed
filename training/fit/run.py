"""``python -m training fit run.toml``: fit the reference, make the samples, train, keep the best weights, resume exactly.

What a run folder holds: ``reference.safetensors`` (the fitted H0), ``integrals.safetensors`` (two-centre tables, if the run
has them), ``samples/`` (cache), ``labels.json`` (level and charges of what is trained on), ``state.safetensors`` (to resume),
``best.safetensors`` (averaged weights of the best validation, ``trainer.JUDGED_BY``), ``metrics.jsonl`` and ``tensorboard/``.
Stopping at any moment loses at most ``save_every`` steps; the next call goes on as if nothing happened. Started by
``torchrun``, several processes train it together (``training.fit.ranks``): the first one prepares, holds the folder, writes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import chain

import torch

from training.fit import statistics
from training.fit.batches import TrainingSet, batches_of
from training.fit.config import RunConfig
from training.fit.device import choose_device, keep_freed_memory
from training.fit.domain import Domain, with_valence
from training.fit.interruption import StopSignals, locked
from training.fit.labels import (
    every_training_frame,
    keep_labels,
    trained_on,
    training_frames,
    validation_frames,
    with_level,
)
from training.fit.losses.objective import measured_terms, terms_of
from training.fit.model import (
    build_model,
    load_or_fit_reference,
    load_or_fit_tables,
    orbital_space,
    pair_rule,
)
from training.fit.ranks import Ranks, joined, own_device, refuse_batch_statistics
from training.fit.samples import Sample, make_samples
from training.fit.settings import refuse_other_settings, settings_of
from training.fit.start import load_start
from training.fit.state import saved_progress
from training.fit.stream import StreamedSamples
from training.fit.trainer import Trainer


def fit(
    config: RunConfig,
    *,
    until_step: int | None = None,
    for_minutes: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run, or resume, a training run.

    Args:
        config: the run.
        until_step: stop early (the schedule is still that of the whole run).
        for_minutes: stop after so much time, preparation included, but not before a step is done.
        clock: what tells the time, in seconds.

    Raises:
        ConfigError: data, levels of theory and settings that do not fit each other or the folder's saved state.
        StoppedError: a signal came before there was anything to save; a later one ends the run as ``for_minutes`` does.
        DatasetError: data that cannot be read.
    """
    deadline = math.inf if for_minutes is None else clock() + 60.0 * for_minutes
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    device = choose_device(own_device(config.device))
    config.output.mkdir(parents=True, exist_ok=True)
    stops = StopSignals()
    with stops.caught(), joined(device) as ranks, ExitStack() as closing:
        with ranks.first_first():
            if ranks.is_first:
                closing.enter_context(locked(config.output))
            trainer = _prepare(config, device, clock, closing, ranks)
        with stops.at_a_step():
            trainer.run(until_step, deadline, lambda: stops.received)


def _prepare(
    config: RunConfig, device: torch.device, clock: Callable[[], float], closing: ExitStack, ranks: Ranks
) -> Trainer:
    """Reference, samples and model, on the device; frames and samples in NumPy's memory are gone when it returns."""
    labels = trained_on(config)
    config = with_level(config, labels.level)
    stored = saved_progress(config.output)
    if stored is not None:
        refuse_other_settings(stored.get("settings", settings_of(config)), config)
    start = None if config.start_from is None else load_start(config.start_from, config, labels.level)
    if ranks.is_first:
        keep_labels(config.output, labels)
    data, cache = config.data, config.output / "samples"
    # of a streamed set some frames are read for H0, or for orbitals and pairs that only the data know
    needed = not data.stream or config.reference.kind != "none" or not config.model.integrals.startswith("pyscf")
    frames = list(training_frames(config)) if needed else []
    space = with_valence(orbital_space(config, frames), labels.level)
    frames = [frame.in_space(space) for frame in frames]
    reference = load_or_fit_reference(config, space, frames, start)
    held_back = list(validation_frames(config))
    tables = load_or_fit_tables(
        config, space, chain(every_training_frame(config) if data.stream else frames, held_back)
    )
    pairs = pair_rule(config, frames)
    if pairs.cutoffs_angstrom is not None and ranks.is_first:
        Domain.of(frames, space, pairs).save(config.output)
    model = build_model(config, space, reference, pairs, tables)
    refuse_batch_statistics(model.network, ranks)
    molecular = all(frame.is_molecular for frame in held_back)
    measured = measured_terms(molecular=molecular, loss=config.loss)
    validation = make_samples(held_back, model.preparer, measured, cache=cache, processes=config.processes)
    samples: list[Sample] | StreamedSamples
    terms = terms_of(config.loss)
    if data.stream:
        samples = StreamedSamples(data, model.preparer, terms, processes=config.processes)
        closing.callback(samples.close)
    else:
        samples = make_samples(frames, model.preparer, terms, cache=cache, processes=config.processes)
    if start is not None:
        start.put_into(model)
    elif ranks.is_first:  # the others get everything from it before the first step
        some = samples.spread() if isinstance(samples, StreamedSamples) else samples
        statistics.fill(model.standardisation, some, space)
    batches = batches_of(validation, config.optimiser.batch_blocks, device)
    return Trainer(config, model.to(device), TrainingSet(samples, device), batches, measured, clock, ranks)
