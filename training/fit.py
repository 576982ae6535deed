"""``python -m training fit run.toml``: fit the reference, make the samples, train, keep the best weights, resume exactly.

What a run folder holds: ``reference.safetensors`` (the fitted H0), ``samples/`` (cache), ``state.safetensors`` (to
resume), ``best.safetensors`` (averaged weights with the lowest validation density error), ``metrics.jsonl`` and
``tensorboard/``. Stopping at any moment loses at most ``save_every`` steps; the next call goes on as if nothing happened.
"""

from __future__ import annotations

import ctypes
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from model.basis import AOBasis
from model.checkpoint.io import Checkpoint, load
from model.electronic.molecule import load_basis
from model.hamiltonian.encoding import Standardisation
from model.hamiltonian.reference import INPUT_MATRICES, FittedReference, NoReference, Reference
from model.network import HamiltonianNetwork
from model.structure import SYMBOLS
from training import statistics
from training.config import ConfigError, DataConfig, OptimiserConfig, RunConfig
from training.datasets import Frame, composition, held_out_compositions, read_frames
from training.labels import Sample, collate, make_samples
from training.loss import errors, loss, predict
from training.optimiser import make_optimisers
from training.reference_fit import fit_reference
from training.state import MovingAverage, load_training_state, save_training_state, write_atomically
from training.stream import SampleSize, StreamedSamples

GLIBC_M_TRIM_THRESHOLD, GLIBC_M_MMAP_THRESHOLD = -1, -3


def fit(config: RunConfig, *, until_step: int | None = None) -> None:
    """Run, or resume, a training run.

    Args:
        config: the run.
        until_step: stop early (the schedule is still that of the whole run).
    """
    _keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    device = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    )
    config.output.mkdir(parents=True, exist_ok=True)
    basis = load_basis(config.basis, [SYMBOLS.index(symbol) for symbol in config.elements])
    data, cache = config.data, config.output / "samples"
    frames = [] if data.stream and config.reference.kind == "none" else list(_training_frames(config))
    reference = load_or_fit_reference(config, basis, frames)
    validation_frames = list(_frames(data, data.validation, max_frames=data.max_validation or None))
    validation = make_samples(validation_frames, basis, reference, cache=cache, processes=config.processes)
    samples: list[Sample] | StreamedSamples
    if data.stream:
        samples = StreamedSamples(data, basis, reference, processes=config.processes)
    else:
        samples = make_samples(frames, basis, reference, cache=cache, processes=config.processes)
    torch.manual_seed(config.seed)
    network = HamiltonianNetwork(config.network, basis).to(device)
    standardisation = Standardisation(basis, len(INPUT_MATRICES))
    try:
        if config.start_from is not None:
            checkpoint = load_start(config.start_from, config)
            network.load_state_dict(checkpoint.network.state_dict())
            standardisation.load_state_dict(checkpoint.standardisation.state_dict())
        else:
            some = samples.spread() if isinstance(samples, StreamedSamples) else samples
            statistics.fill(standardisation, some, basis)
        Trainer(config, network, standardisation.to(device), samples, validation, device).run(until_step)
    finally:
        if isinstance(samples, StreamedSamples):
            samples.close()


def _training_frames(config: RunConfig) -> Iterator[Frame]:
    """All training frames; of a streamed set as many as the reference is fitted to."""
    if not config.data.stream:
        return chain(
            _frames(config.data, config.data.train), *(_extra_frames(config, path) for path in config.data.extra)
        )
    few = replace(config.data, max_molecules=config.reference.max_molecules, frames_per_molecule=1)
    return _frames(few, few.train)


def _extra_frames(config: RunConfig, path: Path) -> Iterator[Frame]:
    """Training frames of an additional file, which must not hold a formula that the main file holds out."""
    data = config.data
    held_out = held_out_compositions(data.file, data.train, data.format, data.split)
    for frame in read_frames(path, data.train):
        if composition(frame.structure.numbers) in held_out:
            raise ConfigError(
                f"{path}: {frame.smiles or frame.molecule} has a chemical formula that {data.file} holds out of training; "
                "take it out of the file's recipe."
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


def load_or_fit_reference(config: RunConfig, basis: AOBasis, frames: Sequence[Frame]) -> Reference:
    """The run's reference Hamiltonian; fitted once, to one geometry of each training molecule, then read back."""
    if config.reference.kind == "none":
        return NoReference()
    path = config.output / "reference.safetensors"
    if path.is_file():
        stored = {name: value.numpy() for name, value in load_file(path).items()}
        return FittedReference(basis, stored["exponents"], stored["step1"], stored["step2"])
    if config.start_from is not None:
        reference = load_start(config.start_from, config).reference
        if not isinstance(reference, FittedReference):
            raise ConfigError(f'{config.start_from} has no fitted reference; set [reference] kind = "none".')
        return _keep_reference(path, reference)
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
        ConfigError: its architecture is another one.
        CheckpointError: it cannot be loaded.
    """
    checkpoint = load(folder)
    if checkpoint.network.config != config.network:
        raise ConfigError(
            f"start_from {folder} has the architecture {checkpoint.network.config.to_mapping()}, "
            f"the run asks for {config.network.to_mapping()}; make [network] the same, or start without it."
        )
    return checkpoint


class Trainer:
    """The loop over steps."""

    def __init__(
        self,
        config: RunConfig,
        network: HamiltonianNetwork,
        standardisation: Standardisation,
        samples: Sequence[Sample] | StreamedSamples,
        validation: Sequence[Sample],
        device: torch.device,
    ) -> None:
        self.config = config
        self.network = network
        self.standardisation = standardisation
        self.samples = samples
        self.device = device
        self.template = standardisation.template
        self.cutoff = config.network.backbone_config.cutoff_angstrom
        # validation and everything else use the plain network: compiling a second graph would not pay
        self.step_network: Any = torch.compile(network, dynamic=True) if config.compile else network
        self.validation = [
            self._collate([validation[i] for i in group])
            for group in pack(range(len(validation)), validation, config.optimiser.batch_blocks)
        ]
        self.optimisers = make_optimisers(network, config.optimiser)
        self.average = MovingAverage(network, config.optimiser.ema_decay)
        self.progress: dict[str, Any] = {
            "step": 0,
            "epoch": 0,
            "batch": 0,
            "best": math.inf,
            "best_step": 0,
            "seconds": 0.0,
        }

    def run(self, until_step: int | None) -> None:
        """Train to the end of the run, or to ``until_step``."""
        folder, config = self.config.output, self.config
        stored = load_training_state(folder, self.network, self.optimisers, self.average)
        if stored is not None:
            self.progress.update(stored)
        last = config.optimiser.steps if until_step is None else min(config.optimiser.steps, until_step)
        size = sum(parameter.numel() for parameter in self.network.parameters())
        print(f"{config.name}: {size} parameters, {len(self.samples)} samples, step {self.progress['step']} of {last}")
        with (
            SummaryWriter(str(folder / "tensorboard")) as board,
            (folder / "metrics.jsonl").open("a") as log,
            tqdm(total=last, initial=self.progress["step"], desc="fit", mininterval=10.0) as bar,
        ):
            if self.progress["step"] == 0:
                self._validate(board, log)
            started = time.monotonic()
            for batch_samples in self._batches():
                if self.progress["step"] >= last:
                    break
                parts = self._step(batch_samples)
                self.progress["step"] += 1
                step = self.progress["step"]
                bar.update()
                if step % 20 == 0:
                    bar.set_postfix({name: f"{value:.4g}" for name, value in parts.items()})
                    for name, value in parts.items():
                        board.add_scalar(f"train/{name}", value, step)
                now = time.monotonic()
                self.progress["seconds"] += now - started
                started = now
                if step % config.validate_every == 0 or step == config.optimiser.steps:
                    self._validate(board, log)
                if step % config.save_every == 0 or step == last:
                    self._save()

    def _batches(self) -> Iterator[list[Sample]]:
        """Endless batches; the order depends on (seed, epoch) only, so a resumed run sees the same ones."""
        while True:
            order = np.random.default_rng([self.config.seed, self.progress["epoch"]]).permutation(len(self.samples))
            sizes = self.samples.sizes if isinstance(self.samples, StreamedSamples) else self.samples
            optimiser = self.config.optimiser
            groups = pack(order.tolist(), sizes, optimiser.batch_blocks, optimiser.batch_molecules)
            while self.progress["batch"] < len(groups):
                group = groups[self.progress["batch"]]
                if isinstance(self.samples, StreamedSamples):
                    self.samples.prefetch(groups[self.progress["batch"] :])
                self.progress["batch"] += 1
                yield [self.samples[index] for index in group]
            self.progress["epoch"] += 1
            self.progress["batch"] = 0

    def _step(self, samples: Sequence[Sample]) -> dict[str, float]:
        step = self.progress["step"]
        rate = learning_rate(step, self.config.optimiser)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group["relative_rate"]
        self.network.train()
        progress = step / self.config.optimiser.steps
        batch = self._collate(samples)
        total, parts = loss(self.step_network, self.standardisation, batch, self.config.loss, step, progress)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimiser.clip_norm)
        if not torch.isfinite(norm):
            raise RuntimeError(f"step {step}: the gradient is not finite; lower the learning rate or look at the data")
        for optimiser in self.optimisers:
            optimiser.step()
        self.average.update(self.network, step)
        return {**parts, "loss": float(total.detach()), "gradient_norm": float(norm)}

    @torch.no_grad()
    def _validate(self, board: SummaryWriter, log: Any) -> None:
        """Errors of the averaged weights; the best by density error are kept."""
        current = {name: value.detach().clone() for name, value in self.network.named_parameters()}
        self.average.copy_to(self.network)
        self.network.eval()
        found = [
            errors(predict(self.network, self.standardisation, batch, with_trace=False)[1], batch)
            for batch in self.validation
        ]
        values = {
            "mae_uEh": 1e6 * float(torch.cat([e.mae for e in found]).mean()),
            "rmse_uEh": 1e6 * float(torch.cat([e.rmse for e in found]).mean()),
            "density": float(torch.cat([e.density for e in found]).mean()),
            "density_max": float(torch.cat([e.density for e in found]).max()),
            "density_per_electron": float(torch.cat([e.density_per_electron for e in found]).mean()),
            "levels_uEh": 1e6 * float(torch.cat([e.levels for e in found]).mean()),
        }
        step = self.progress["step"]
        for name, value in values.items():
            board.add_scalar(f"validation/{name}", value, step)
        log.write(json.dumps({"step": step, "seconds": round(self.progress["seconds"], 1), **values}) + "\n")
        log.flush()
        tqdm.write(f"step {step}: " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()))
        if values["density_per_electron"] < self.progress["best"]:
            self.progress["best"], self.progress["best_step"] = values["density_per_electron"], step
            tensors = {f"network/{name}": value for name, value in self.network.state_dict().items()}
            tensors |= {f"standardisation/{name}": value for name, value in self.standardisation.state_dict().items()}
            metadata = {"step": str(step), "validation": json.dumps(values)}
            write_atomically(self.config.output / "best.safetensors", tensors, metadata)
        for name, parameter in self.network.named_parameters():
            parameter.copy_(current[name])

    def _save(self) -> None:
        save_training_state(self.config.output, self.network, self.optimisers, self.average, self.progress)

    def _collate(self, samples: Sequence[Sample]) -> Any:
        return collate(samples, cutoff_angstrom=self.cutoff, template=self.template, device=self.device)


def pack(
    order: Sequence[int], samples: Sequence[Sample | SampleSize], limit: int, molecules: int = 0
) -> list[list[int]]:
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


def learning_rate(step: int, config: OptimiserConfig) -> float:
    """Linear warm-up, then half a cosine, or a straight line, down to the final rate."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = min(1.0, (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))
    swing = 1.0 - progress if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * swing


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


def _keep_freed_memory() -> None:
    """Tell glibc to reuse freed blocks instead of giving them back: a step's page faults cost a fifth of its time."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(GLIBC_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(GLIBC_M_TRIM_THRESHOLD, (1 << 31) - 1)
    except (OSError, AttributeError):  # not glibc: nothing to tune
        return
