"""The loop over steps: one step, a validation, a save, a stop that loses nothing."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any, Final

import torch

from model.hamiltonian_model import HamiltonianModel
from training.fit.augmentation import Augmentation
from training.fit.batches import TrainingSet
from training.fit.config import RunConfig
from training.fit.losses.objective import Objective, summarise
from training.fit.losses.term import Term
from training.fit.optimiser import make_optimisers
from training.fit.ranks import Part, Ranks, Share
from training.fit.run_log import RunLog, run_log
from training.fit.samples import Batch
from training.fit.schedule import RateControl
from training.fit.settings import settings_of
from training.fit.state import (
    BEST_FILE,
    MovingAverage,
    load_training_state,
    read_tensors,
    save_training_state,
    weights,
    write_tensors,
)

JUDGED_BY: Final = ("density_per_electron", "density_percent", "bands_uEh", "mae_uEh")
"""What the best weights of a run are lowest in: the first of these that its validation measures."""

COMPILED_TOLERANCE: Final = 1e-3
"""Largest relative deviation of a compiled gradient from the plain one; rounding makes 1e-5, wrong code 1 and more."""


class Trainer:
    """A run whose data and network are ready.

    Args:
        config: the run.
        model: on the device.
        training_set: on the same device.
        validation: batches, on the same device.
        measured: terms whose measures validation reports; the batches hold what they need.
        clock: seconds, from any moment on.
        ranks: the processes that train this run; they take the same steps, and the first one writes.
    """

    def __init__(
        self,
        config: RunConfig,
        model: HamiltonianModel,
        training_set: TrainingSet,
        validation: Sequence[Batch],
        measured: Sequence[Term],
        clock: Callable[[], float] = time.monotonic,
        ranks: Ranks | None = None,
    ) -> None:
        self.config = config
        self.ranks = ranks or Ranks()
        self.model = model
        self.network = model.network
        loss = config.loss
        if config.trains_second_stage_only:
            self.network.freeze_first_stage()
            loss = replace(loss, trace=0.0)  # traces are the first stage's
        self.objective = Objective.of(model, loss)
        self.augmentation = Augmentation(config.stages, config.seed, model.block_space.coefficients)
        self.measured = measured
        self.training_set = training_set
        self.validation = validation
        self.clock = clock
        # validation and everything else use the plain network: compiling a second graph would not pay
        self.step_model = with_network(model, torch.compile(model.network, dynamic=True)) if config.compile else model
        self.optimisers = make_optimisers(self.network, config.optimiser)
        self.average = MovingAverage(self.network, config.optimiser.ema_decay)
        self.rates = RateControl(config.optimiser)
        self.progress: dict[str, Any] = {
            "step": 0,
            "epoch": 0,
            "batch": 0,
            "best": math.inf,
            "best_step": 0,
            "seconds": 0.0,
            "settings": settings_of(config),
        }

    def run(
        self,
        until_step: int | None = None,
        deadline: float = math.inf,
        interrupted: Callable[[], str] = lambda: "",
    ) -> None:
        """Train to the end of the run, or to ``until_step``, or until the clock shows ``deadline`` or a signal came.

        However early the deadline, one step is taken, so that repeated calls come to an end.

        Args:
            until_step: stop early.
            deadline: on the clock.
            interrupted: name of the signal that came, empty for none.

        Raises:
            ConfigError: the folder's state belongs to other settings.
        """
        folder, config, ranks = self.config.output, self.config, self.ranks
        ranks.from_first(self.model.state_dict(keep_vars=True))
        stored = load_training_state(folder, self.network, self.optimisers, self.average)
        if stored is not None:
            self.progress.update(stored)
            if "rates" in stored:
                self.rates.take(stored["rates"])
        last = config.optimiser.steps if until_step is None else min(config.optimiser.steps, until_step)
        size = sum(parameter.numel() for parameter in self.network.parameters())
        held = f" ({self.training_set.n_bytes / 1e6:.0f} MB)" if self.training_set.n_bytes else ""
        shared = f", {ranks.size} processes" if ranks.size > 1 else ""
        self._print(
            f"{size} parameters, {len(self.training_set)} samples{held}{shared}, step {self.progress['step']} of {last}"
        )
        why = ""
        with run_log(folder, writes=ranks.is_first, first_step=self.progress["step"], last_step=last) as log:
            if self.progress["step"] == 0:
                self._validate(log)
            started = self.clock()
            if config.compile and self.progress["step"] < last:
                self._check_compiled()
            batches = self._batches()
            while self.progress["step"] < last and not why:
                if self.rates.is_spent(self.progress["step"]):
                    self._save()
                    self._print(f"the learning rate is spent at step {self.progress['step']} of {last}; done")
                    break
                parts = self._step(*next(batches))
                self.progress["step"] += 1
                step = self.progress["step"]
                log.step(step, parts)
                now = self.clock()
                self.progress["seconds"] += now - started
                started = now
                if step % config.validate_every == 0 or step == config.optimiser.steps:
                    self._validate(log)
                why = ranks.agreed(interrupted() or ("time is up" if self.clock() >= deadline else ""))
                if step % config.save_every == 0 or step == last or why:
                    self._save()
        if why and self.progress["step"] < last:
            self._print(
                f"{why} at step {self.progress['step']} of {last}; everything is saved in {folder}, "
                "and the same command goes on from there"
            )
        ranks.wait()

    def _print(self, text: str) -> None:
        if self.ranks.is_first:
            print(f"{self.config.name}: {text}")

    def _batches(self) -> Iterator[tuple[Batch, Share]]:
        """Endless batches, from the run's place in its data on, or what this process takes of each."""
        while True:
            groups = self.training_set.groups(self.config.seed, self.progress["epoch"], self.config.optimiser)
            shares = [self.ranks.share(group, self.training_set.sizes) for group in groups]
            while self.progress["batch"] < len(groups):
                place = self.progress["batch"]
                batch = self.training_set.batch([share.samples for share in shares[place:]])
                self.progress["batch"] += 1
                yield batch, shares[place]
            self.progress["epoch"] += 1
            self.progress["batch"] = 0

    def _check_compiled(self) -> None:
        """Hold the compiled gradient of one batch against the plain one: compilers have been wrong without a word.

        Of a linear functional of the network's output, not of the loss: where that has an absolute value, rounding turns
        the sign of errors that are near zero, the more of them the better the network is.

        Raises:
            RuntimeError: they differ by more than rounding.
        """
        config = self.config
        batch = self.training_set.batch(self.training_set.groups(config.seed, 0, config.optimiser))
        self.network.train()
        found: list[list[torch.Tensor]] = []
        with _without_zeros(self.network):
            for model in (self.model, self.step_model):
                self.network.zero_grad()
                _functional(self.objective, batch, model).backward()
                found.append([p.grad for p in self.network.parameters() if p.grad is not None])
        self.network.zero_grad()
        deviation = largest_deviation(*found)
        if not deviation <= COMPILED_TOLERANCE:
            raise RuntimeError(
                f"the compiled gradient deviates from the plain one by {deviation:.2g} of its norm (allowed: "
                f"{COMPILED_TOLERANCE:g}): torch {torch.__version__} compiles this network wrongly. Set [run] compile = "
                "false, or use another version of torch."
            )

    def _step(self, batch: Batch, share: Share) -> dict[str, float]:
        step = self.progress["step"]
        rate = self.rates.rate(step)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group["relative_rate"]
        self.network.train()
        progress = step / self.config.optimiser.steps
        batch = self.augmentation(batch, step, progress, share)
        part = Part.of(self.ranks, share, batch.graph.n_structures, batch.graph.n_blocks)
        total, parts = self.objective(batch, step, progress, self.step_model, part)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        total.backward()
        self.ranks.sum_gradients(list(self.network.parameters()))
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimiser.clip_norm)
        if not torch.isfinite(norm):
            raise RuntimeError(f"step {step}: the gradient is not finite; lower the learning rate or look at the data")
        for optimiser in self.optimisers:
            optimiser.step()
        self.average.update(self.network, step)
        return {**parts, "gradient_norm": float(norm)}

    @torch.no_grad()
    def _validate(self, log: RunLog) -> None:
        """Errors of the averaged weights; the best ones are kept, by the first of ``JUDGED_BY`` that is measured."""
        current = {name: value.detach().clone() for name, value in weights(self.network).items()}
        self.average.copy_to(self.network)
        self.network.eval()
        objective, ranks = self.objective, self.ranks
        own = self.validation[ranks.rank :: ranks.size]
        found = (objective.errors(batch, self.model(batch.graph, batch.inputs).blocks) for batch in own)
        measures = [objective.measures(errors, self.measured) for errors in found]
        values = summarise(ranks.in_turn(measures))
        step = self.progress["step"]
        log.validation(step, self.progress["seconds"], values)
        judged = next(values[name] for name in JUDGED_BY if name in values)
        if judged < self.progress["best"]:
            self.progress["best"], self.progress["best_step"] = judged, step
            modules = {"network": self.network, "standardisation": self.model.standardisation}
            tensors = {
                f"{part}/{name}": value
                for part, module in modules.items()
                for name, value in module.state_dict().items()
            }
            metadata = {"step": str(step), "validation": json.dumps(values)}
            if ranks.is_first:
                write_tensors(self.config.output / BEST_FILE, tensors, metadata)
        for name, weight in weights(self.network).items():
            weight.copy_(current[name])
        if self.rates.after_validation(values["rmse_uEh"] ** 2):
            self._revert(log)

    def _revert(self, log: RunLog) -> None:
        """Go on from the weights of the best validation."""
        step = self.progress["step"]
        self.ranks.wait()  # until the first process has written them
        log.say(f"step {step}: back to the weights of step {self.progress['best_step']}, with a lower rate")
        tensors, _ = read_tensors(self.config.output / BEST_FILE)
        for name, weight in weights(self.network).items():
            weight.copy_(tensors[f"network/{name}"])
            self.average.values[name].copy_(weight)

    def _save(self) -> None:
        self.progress["rates"] = self.rates.state()
        if not self.ranks.is_first:
            return
        save_training_state(self.config.output, self.network, self.optimisers, self.average, self.progress)


def with_network(model: HamiltonianModel, network: Any) -> HamiltonianModel:
    """The same model, its parts shared, with another form of its network."""
    other = copy(model)
    other._modules = {**model._modules, "network": network}
    return other


def _functional(objective: Objective, batch: Batch, model: HamiltonianModel) -> torch.Tensor:
    """A linear functional of everything a network puts out, with fixed random coefficients."""
    output = objective.predict(batch, model).network
    generator = torch.Generator().manual_seed(0)  # its own: a run's random numbers stay as they are
    parts = [part for part in (output.diagonal, output.pair, output.trace) if part is not None]
    coefficients = [torch.randn(part.shape, generator=generator).to(part) for part in parts]
    return torch.stack([(a * b).sum() for a, b in zip(parts, coefficients, strict=True)]).sum()


def largest_deviation(plain: Sequence[torch.Tensor], compiled: Sequence[torch.Tensor]) -> float:
    """Largest |compiled - plain| / |plain| of any parameter; a thousandth of the whole norm is the least divisor."""
    whole = float(torch.stack([gradient.norm() for gradient in plain]).norm())
    deviations = [(two - one).norm() / (one.norm() + 1e-3 * whole) for one, two in zip(plain, compiled, strict=True)]
    return float(torch.stack(deviations).max())


@contextmanager
def _without_zeros(network: torch.nn.Module) -> Iterator[None]:
    """Parameters that are all zero, such as a read-out's at the start, are random meanwhile: nothing passes them."""
    generator = torch.Generator().manual_seed(0)
    zeros = [parameter for parameter in network.parameters() if not bool(parameter.detach().any())]
    with torch.no_grad():
        for parameter in zeros:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter in zeros:
                parameter.zero_()
