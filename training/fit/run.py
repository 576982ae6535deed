"""``python -m training fit run.toml``: fit the reference, make the samples, train, keep the best weights, resume exactly.

What a run folder holds: ``reference.safetensors`` (the fitted H0), ``samples/`` (cache), ``state.safetensors`` (to
resume), ``best.safetensors`` (averaged weights with the lowest validation density error), ``metrics.jsonl`` and
``tensorboard/``. Stopping at any moment loses at most ``save_every`` steps; the next call goes on as if nothing happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from model.checkpoint.store import Checkpoint, load
from model.hamiltonian_model import HamiltonianModel
from model.integrals.pyscf_molecule import load_basis
from model.orbitals.space import OrbitalSpace
from model.reference.fitted import FittedReference, NoReference, Reference
from model.structure import SYMBOLS
from training.data.sources import Frame, composition, held_out_compositions, read_frames
from training.fit import statistics
from training.fit.batches import TrainingSet, pack
from training.fit.config import ConfigError, DataConfig, RunConfig
from training.fit.device import choose_device, keep_freed_memory
from training.fit.reference import fit_reference
from training.fit.resident import join, to_device
from training.fit.samples import Sample, make_samples
from training.fit.state import write_atomically
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
    """
    deadline = math.inf if for_minutes is None else clock() + 60.0 * for_minutes
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    config.output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as closing:
        _prepare(config, device, clock, closing).run(until_step, deadline)


def _prepare(config: RunConfig, device: torch.device, clock: Callable[[], float], closing: ExitStack) -> Trainer:
    """Reference, samples and network, on the device; frames and samples in NumPy's memory are gone when it returns."""
    basis = load_basis(config.basis, [SYMBOLS.index(symbol) for symbol in config.elements])
    data, cache = config.data, config.output / "samples"
    frames = [] if data.stream and config.reference.kind == "none" else list(_training_frames(config))
    start = None if config.start_from is None else load_start(config.start_from, config)
    reference = load_or_fit_reference(config, basis, frames, start)
    validation_frames = list(_frames(data, data.validation, max_frames=data.max_validation or None))
    validation = make_samples(validation_frames, basis, reference, cache=cache, processes=config.processes)
    samples: list[Sample] | StreamedSamples
    if data.stream:
        samples = StreamedSamples(data, basis, reference, processes=config.processes)
        closing.callback(samples.close)
    else:
        samples = make_samples(frames, basis, reference, cache=cache, processes=config.processes)
    torch.manual_seed(config.seed)
    model = HamiltonianModel(config.network, basis, reference=reference).to(device)
    network, standardisation = model.network, model.standardisation.cpu()
    if start is not None:
        network.take_weights(start.model.network)
        standardisation.load_state_dict(start.model.standardisation.state_dict())
    else:
        some = samples.spread() if isinstance(samples, StreamedSamples) else samples
        statistics.fill(standardisation, some, basis)
    put = partial(
        to_device,
        cutoff_angstrom=config.network.backbone_config.cutoff_angstrom,
        template=basis.template_size,
        device=device,
    )
    groups = pack(range(len(validation)), validation, config.optimiser.batch_blocks)
    batches = [join([put(validation[index]) for index in group]) for group in groups]
    return Trainer(config, network, standardisation.to(device), TrainingSet(samples, put), batches, clock)


def _training_frames(config: RunConfig) -> Iterator[Frame]:
    """All training frames; of a streamed set as many as the reference is fitted to."""
    if not config.data.stream:
        return chain(_frames(config.data, config.data.train), _extra_frames(config))
    few = replace(config.data, max_molecules=config.reference.max_molecules, frames_per_molecule=1)
    return _frames(few, few.train)


def _extra_frames(config: RunConfig) -> Iterator[Frame]:
    """Training frames of the additional files, which must not hold a formula that the main file holds out."""
    data = config.data
    if not data.extra:
        return
    held_out = held_out_compositions(data.file, data.train, data.format, data.split)
    for path in data.extra:
        for frame in read_frames(path, data.train):
            if composition(frame.structure.numbers) in held_out:
                raise ConfigError(
                    f"{path}: {frame.smiles or frame.molecule} has a chemical formula that {data.file} holds out of "
                    "training; take it out of the file's recipe."
                )
            yield frame


def _frames(data: DataConfig, splits: Sequence[str], *, max_frames: int | None = None) -> Iterator[Frame]:
    return read_frames(
        data.file,
        splits,
        frames_per_molecule=data.frames_per_molecule or None,
        max_molecules=data.max_molecules or None,
        max_frames=max_frames,
        format=data.format,
        scheme=data.split,
    )


def load_or_fit_reference(
    config: RunConfig, basis: OrbitalSpace, frames: Sequence[Frame], start: Checkpoint | None = None
) -> Reference:
    """The run's reference Hamiltonian; that of ``start``, or fitted once to one geometry of each molecule; then read back."""
    if config.reference.kind == "none":
        return NoReference()
    path = config.output / "reference.safetensors"
    if path.is_file():
        stored = {name: value.numpy() for name, value in load_file(path).items()}
        return FittedReference(basis, stored["exponents"], stored["step1"], stored["step2"])
    if start is not None:
        if not isinstance(start.model.reference, FittedReference):
            raise ConfigError(f'{config.start_from} has no fitted reference; set [reference] kind = "none".')
        return _keep_reference(path, start.model.reference)
    one_each = list({frame.molecule: frame for frame in frames}.values())
    settings = config.reference
    if len(one_each) > settings.max_molecules:
        one_each = [one_each[i] for i in np.linspace(0, len(one_each) - 1, settings.max_molecules).astype(int)]
    exponents = np.array([settings.smallest_exponent * settings.ratio**k for k in range(settings.n_exponents)])
    reference = fit_reference(
        one_each, basis, exponents=exponents, density_weight=settings.density_weight, processes=config.processes
    )
    return _keep_reference(path, reference)


def _keep_reference(path: Path, reference: FittedReference) -> FittedReference:
    write_atomically(
        path, {name: torch.from_numpy(getattr(reference, name)) for name in ("exponents", "step1", "step2")}
    )
    return reference


def load_start(folder: Path, config: RunConfig) -> Checkpoint:
    """The checkpoint that a run starts from.

    Raises:
        ConfigError: its backbone is another one.
        CheckpointError: it cannot be loaded.
    """
    checkpoint = load(folder)
    if not checkpoint.model.network.config.shares_backbone(config.network):
        raise ConfigError(
            f"start_from {folder} has the architecture {checkpoint.model.network.config.to_mapping()}, "
            f"the run asks for {config.network.to_mapping()}; give [network] the same backbone with the same settings, or "
            "start without it."
        )
    return checkpoint


def run_record(config: RunConfig) -> dict[str, Any]:
    """The run as JSON-able values, for the card; paths become file names."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return value.name
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    record: dict[str, Any] = plain(asdict(config))
    record["network"] = config.network.to_mapping()
    return record
