"""HarmoSE's second stage on a crystal: faithful against exact against the first stage trained on, at equal CPU time.

``python benchmarks/harmose_trials.py DATA OUTPUT [--seeds 3] [--first-minutes 4] [--minutes 2] [--tracegrad none both]``

A small DeepH-E3 (``harmose_trials.toml``) is trained for ``--first-minutes`` CPU minutes and then frozen; or ``--first``
names a run folder that is there. Each variant then has ``--minutes`` CPU minutes, as many steps as fit by a trial of its own.
Errors are of all elements of H over the test split, by the averaged weights with the lowest validation error; "turned" are
those of the same structures in random orientations, turned back. Everything is kept in OUTPUT: a run folder each, and
results.json, written anew after every run. The same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from machine import machine, versions
from recorded import Cell, Column, Result, Table, as_markdown
from scipy.spatial.transform import Rotation
from small_runs import train_whole

from model.hamiltonian_model import HamiltonianModel
from model.network_config import NetworkConfig
from model.reference.none import NoReference
from model.units import EV_PER_HARTREE
from training.atomic import write_json
from training.data.sources import read_frames
from training.fit.augmentation import turned
from training.fit.config import RunConfig, read_run
from training.fit.labels import trained_on, with_level
from training.fit.losses.objective import Objective
from training.fit.model import build_model, orbital_space, pair_rule
from training.fit.run import fit
from training.fit.samples import Sample, join, make_samples
from training.fit.stages import StagesConfig
from training.fit.state import BEST_FILE, read_tensors, saved_progress

MEV: Final = EV_PER_HARTREE * 1e3
ON: Final = "first stage trained on"
FULL: Final = {"augmentation": "full", "augment_from": 0.0}
VARIANTS: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    ON: ({}, {}),
    "faithful": ({"mode": "faithful"}, {}),
    "faithful, published rotations": ({"mode": "faithful"}, {"augmentation": "published"}),
    "faithful, all rotations": ({"mode": "faithful"}, FULL),
    "exact, in the global frame": ({"mode": "exact", "bond_frames": False}, {}),
    "exact": ({"mode": "exact"}, {}),
    "exact, both stages": ({"mode": "exact"}, {"train": "both"}),
}
"""Settings of the second stage, and of its training."""
TRACEGRAD: Final[dict[str, dict[str, Any]]] = {
    "none": {"mode": "none"},
    "both": {"mode": "both", "after": "every"},
}
TRIAL: Final = (4, 16)
"""Steps before and at the end of what is timed."""
COLUMNS: Final = (
    Column(name="TraceGrad"),
    Column(name="variant"),
    Column(name="parameters trained"),
    Column(name="steps"),
    Column(name="CPU", unit="s", digits=0),
    Column(name="test", unit="meV", digits=3),
    Column(name="smallest", unit="meV", digits=3),
    Column(name="largest", unit="meV", digits=3),
    Column(name="turned", unit="meV", digits=3),
    Column(name="gain over the first stage", unit="%", digits=1),
)


class Trials:
    """One comparison.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        run = read_run(Path(__file__).with_suffix(".toml"))
        data = dataclasses.replace(run.data, file=options.data.resolve())
        base = dataclasses.replace(run, data=data, threads=1, device="cpu", processes=0)
        self.base = with_level(base, trained_on(base).level)
        if options.first is not None:
            self.base = dataclasses.replace(self.base, network=_network_of(options.first))
        frames = [list(read_frames(data.file, [split], format=data.format)) for split in ("train", "test")]
        self.space = orbital_space(self.base, frames[0])
        self.pairs = pair_rule(self.base, frames[0])
        model = self._model(self.base)
        self.test = make_samples(
            [frame.in_gauge(data.gauge).in_space(self.space) for frame in frames[1]],
            model.preparer,
            (),
            cache=None,
            processes=0,
        )

    def first_stage(self, tracegrad: str, seed: int) -> RunConfig:
        """Train it, or resume, or do nothing if it is done."""
        if self.options.first is not None:
            return dataclasses.replace(self.base, name="first", output=self.options.first)
        network = self.base.network
        settings = dataclasses.replace(network.tracegrad, **TRACEGRAD[tracegrad])
        config = dataclasses.replace(
            self.base,
            name=f"first {tracegrad} {seed}",
            network=dataclasses.replace(network, tracegrad=settings),
            seed=seed,
        )
        return self._trained(config, self.options.first_minutes)

    def variant(self, name: str, first: RunConfig) -> RunConfig:
        """A variant on top of a first stage."""
        stage, stages = VARIANTS[name]
        mapping = first.network.to_mapping() | ({"second_stage": stage} if stage else {})
        optimiser = dataclasses.replace(self.base.optimiser, learning_rate=self.options.rate)
        config = dataclasses.replace(
            first,
            name=f"{first.name} {name}",
            network=NetworkConfig.from_mapping(mapping),
            stages=StagesConfig(**stages),
            start_from=first.output,
            optimiser=self.base.optimiser if name == ON else optimiser,
        )
        if name == ON:  # a new schedule at the full rate would first undo what is learned
            tuned = dataclasses.replace(optimiser, learning_rate=self.options.rate_on)
            config = dataclasses.replace(config, optimiser=tuned)
        return self._trained(config, self.options.minutes)

    def _trained(self, config: RunConfig, minutes: float) -> RunConfig:
        output = self.options.output / config.name.replace(", ", "_").replace(" ", "_")
        config = dataclasses.replace(config, output=output)
        steps = max(1, round(60.0 * minutes / self._seconds_per_step(config)))
        optimiser = dataclasses.replace(
            config.optimiser, steps=steps, warmup_steps=min(config.optimiser.warmup_steps, steps // 10)
        )
        loss = dataclasses.replace(config.loss, trace_ramp_steps=steps // 5)
        config = dataclasses.replace(
            config, optimiser=optimiser, loss=loss, validate_every=max(1, steps // 8), save_every=max(1, steps // 16)
        )
        train_whole(config, time.process_time)
        return config

    def _seconds_per_step(self, config: RunConfig) -> float:
        """Measured once and kept, so that a resumed run keeps its length."""
        path = self.options.output / "seconds_per_step.json"
        known: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
        if config.name not in known:
            trial = dataclasses.replace(
                config,
                output=config.output.with_name(config.output.name + "_trial"),
                validate_every=TRIAL[1] + 1,
                optimiser=dataclasses.replace(config.optimiser, steps=TRIAL[1] + 1),
            )
            spent = []
            for step in TRIAL:
                fit(trial, until_step=step, clock=time.process_time)
                progress = saved_progress(trial.output)
                assert progress is not None
                spent.append(float(progress["seconds"]))
            known[config.name] = (spent[1] - spent[0]) / (TRIAL[1] - TRIAL[0])
            write_json(path, known)
        return known[config.name]

    def _model(self, config: RunConfig) -> HamiltonianModel:
        return build_model(config, self.space, NoReference(), self.pairs)

    def errors(self, config: RunConfig) -> tuple[float, float]:
        """Mean absolute error of all elements of H, meV: as the structures lie, and turned."""
        model = self._model(config)
        tensors, _ = read_tensors(config.output / BEST_FILE)
        for part, module in (("network/", model.network), ("standardisation/", model.standardisation)):
            module.load_state_dict(
                {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}
            )
        model.eval()
        matrices = Rotation.random(len(self.test), random_state=0).as_matrix()
        still = [self._error(model, sample, None) for sample in self.test]
        moved = [self._error(model, sample, matrix) for sample, matrix in zip(self.test, matrices, strict=True)]
        return statistics.mean(still), statistics.mean(moved)

    @torch.inference_mode()
    def _error(self, model: HamiltonianModel, sample: Sample, matrix: np.ndarray[Any, Any] | None) -> float:
        batch, layout = join([sample]), model.block_space.coefficients
        seen = batch if matrix is None else turned(batch, matrix[None], layout)
        blocks = model(seen.graph, seen.inputs).blocks
        if matrix is not None:  # back to where the label is: a mean of absolute values depends on the axes
            expansion = model.standardisation.expansion.to(blocks.dtype)
            said = dataclasses.replace(seen, target=blocks.flatten(1) @ expansion)
            blocks = (turned(said, matrix.T[None], layout).target @ expansion.T).view_as(blocks)
        return MEV * float(Objective.of(model, self.base.loss).errors(batch, blocks).mae.mean())

    def row(self, tracegrad: str, name: str, config: RunConfig) -> dict[str, Any]:
        """What came out of a run."""
        progress = saved_progress(config.output)
        assert progress is not None
        network = self._model(config).network
        if config.trains_second_stage_only:
            network.freeze_first_stage()
        still, moved = self.errors(config)
        return {
            "tracegrad": tracegrad,
            "variant": name,
            "seed": config.seed,
            "parameters": sum(
                value.numel()
                for key, value in network.named_parameters()
                if value.requires_grad and "decoder" not in key
            ),
            "steps": progress["step"],
            "seconds": progress["seconds"],
            "test": still,
            "turned": moved,
        }


def main() -> None:
    """Run what is not done yet, and print the table."""
    options = _options()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    trials = Trials(options)
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        for tracegrad in options.tracegrad:
            first = trials.first_stage(tracegrad, seed)
            rows.append(trials.row(tracegrad, "first stage", first))
            for name in options.variants:
                rows.append(trials.row(tracegrad, name, trials.variant(name, first)))
                result = _result(rows, options)
                write_json(options.output / "runs.json", rows)
                write_json(options.output / "results.json", json.loads(result.model_dump_json(exclude_defaults=True)))
    print(as_markdown(_table(rows)))


def _table(rows: list[dict[str, Any]]) -> Table:
    """Means over seeds; gains are means of each seed's own."""
    found: list[list[Cell]] = []
    for tracegrad, name in dict.fromkeys((row["tracegrad"], row["variant"]) for row in rows):
        own = [row for row in rows if (row["tracegrad"], row["variant"]) == (tracegrad, name)]
        firsts = {
            row["seed"]: row["test"]
            for row in rows
            if row["tracegrad"] == tracegrad and row["variant"] == "first stage"
        }
        test = [row["test"] for row in own]
        gains = [100.0 * (1.0 - row["test"] / firsts[row["seed"]]) for row in own]
        found.append(
            [
                tracegrad, name, own[0]["parameters"], own[0]["steps"], statistics.mean(row["seconds"] for row in own),
                statistics.mean(test), min(test), max(test), statistics.mean(row["turned"] for row in own),
                None if name == "first stage" else statistics.mean(gains),
            ]
        )  # fmt: skip
    return Table(columns=list(COLUMNS), rows=found)


def _result(rows: list[dict[str, Any]], options: argparse.Namespace) -> Result:
    seeds = len({row["seed"] for row in rows})
    return Result(
        title="HarmoSE's second stage on a crystal",
        command=shlex.join(["python", "benchmarks/harmose_trials.py", *sys.argv[1:]]),
        date=datetime.date.today(),
        machine=machine(),
        versions=versions(),
        spread=f"smallest and largest over {seeds} seed{'s' * (seeds > 1)}",
        text=(
            f"{options.data.name}: mean absolute error of all elements of H over the test split. Every variant starts from "
            f"the first stage's weights and has {options.minutes:g} CPU minutes more."
        ),
        tables=[_table(rows)],
    )


def _network_of(folder: Path) -> NetworkConfig:
    progress = saved_progress(folder)
    assert progress is not None, f"{folder} is no run folder"
    return NetworkConfig.from_mapping(progress["settings"]["network"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-minutes", type=float, default=4.0)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--first", type=Path, help="folder of a trained run to start from, instead of training one")
    parser.add_argument("--tracegrad", nargs="+", choices=list(TRACEGRAD), default=list(TRACEGRAD))
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--rate", type=float, default=3e-3, help="learning rate of a second stage")
    parser.add_argument("--rate-on", type=float, default=5e-3, help="learning rate of a first stage that is trained on")
    return parser.parse_args()


if __name__ == "__main__":
    main()
