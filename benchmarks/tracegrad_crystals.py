"""What TraceGrad brings to DeepH-E3 on crystals, at equal steps and at equal parameters, over several seeds.

``python benchmarks/tracegrad_crystals.py RUN.toml DATA OUTPUT [--seeds 3] [--steps 1500 | --minutes 10] [--variants ...]``

RUN.toml (``tracegrad_crystals.toml`` beside this file is one) gives network, loss and optimiser, DATA the labels.
Variants: "none"; "trace" (label only), "grad" (gradient feature only) and "both", after every block at the default
rank; "none, wide": no TraceGrad, the parameters of "both" in more channels; "both, last": after the last block only;
"both, narrow": half the rank and width; "both, literal": the paper's form (25 times the parameters). Data, order,
schedule and seeds are equal, and so are steps; with ``--minutes`` each variant has as many steps as fit into this CPU
time, by a trial of its own. The decoder of trace labels is for training only and not counted.

Everything is kept in OUTPUT: a run folder each, and results.json, written anew after every run. The same command goes on
where it stopped. Figures are of the averaged weights at the end, over the validation and test splits together: no choice
was made with either.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from equal_parameters import widened
from machine import describe
from small_runs import train_whole

from model.blocks.spaces import BlockSpace
from model.network import HamiltonianNetwork
from model.network_config import NetworkConfig
from model.tracegrad.config import LITERAL, TraceGradConfig
from model.units import EV_PER_HARTREE
from training.atomic import write_json
from training.data.sources import open_source, read_frames
from training.fit.config import RunConfig, read_run
from training.fit.labels import trained_on, with_level
from training.fit.model import orbital_space, pair_rule
from training.fit.run import fit

MEV_PER_MICROHARTREE: Final = EV_PER_HARTREE * 1e-3
WIDE: Final = "none, wide"
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "none": {"mode": "none"},
    "trace": {"mode": "trace", "after": "every"},
    "grad": {"mode": "grad", "after": "every"},
    "both": {"mode": "both", "after": "every"},
    "both, last": {"mode": "both", "after": "last"},
    "both, narrow": {"mode": "both", "after": "every", "rank": 8, "hidden": 32},
    "both, literal": dict(LITERAL),
    WIDE: {"mode": "none"},
}
TRIAL_STEPS: Final = 25
"""Of which the last 20 are timed."""
VALIDATIONS: Final = 6
"""Points of a curve."""


def main() -> None:
    """Run what is not done yet, and print the table."""
    options = _options()
    torch.set_num_threads(1)
    study = Study(options)
    results: list[dict[str, Any]] = []
    words = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    for seed in range(options.seeds):
        for name in options.variants:
            results.append(study.finished(name, seed))
            whole = {"machine": describe(), "options": words, "runs": results}
            write_json(options.output / "results.json", whole)
    print(describe(), _table(results, options.variants), sep="\n")


class Study:
    """The runs of one comparison.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        run = read_run(options.run)
        with open_source(options.data, run.data.format) as source:
            splits = source.splits(run.data.split or source.schemes[0])
        data = dataclasses.replace(
            run.data, file=options.data.resolve(), validation=tuple(name for name in ("val", "test") if name in splits)
        )
        base = dataclasses.replace(run, data=data, threads=1, device="cpu", processes=0, start_from=None)
        self.base = with_level(base, trained_on(base).level)
        frames = list(
            read_frames(
                data.file, data.train, format=data.format, scheme=data.split, max_molecules=data.max_molecules or None
            )
        )
        self.space = orbital_space(self.base, frames)
        cutoffs = pair_rule(self.base, frames).table(self.space.elements)
        self.cutoffs = None if cutoffs is None else torch.from_numpy(cutoffs)
        options.output.mkdir(parents=True, exist_ok=True)

    def parameters(self, network: NetworkConfig) -> int:
        """That a prediction uses."""
        model = self.base.model
        blocks = BlockSpace.of(self.space.template, model.spin or "restricted", time_reversal=model.time_reversal)
        built = HamiltonianNetwork(network, self.space, blocks, self.cutoffs)
        return sum(value.numel() for name, value in built.named_parameters() if "decoder" not in name)

    def network(self, name: str) -> NetworkConfig:
        """Of a variant."""
        settings: dict[str, Any] = {"n_scalars": len(self.space.template) ** 2, **SETTINGS[name]}
        network = dataclasses.replace(self.base.network, tracegrad=TraceGradConfig(**settings))
        return widened(network, self.parameters(self.network("both")), self.parameters) if name == WIDE else network

    def finished(self, name: str, seed: int) -> dict[str, Any]:
        """Run a variant, or resume it, or do nothing if it is done; and what came out."""
        network = self.network(name)
        steps = self.options.steps if self.options.minutes is None else self._steps_within(name, network)
        config = self._config(f"{name} seed {seed} {steps} steps", network, seed, steps)
        started = time.process_time()
        train_whole(config)
        curve = [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]
        last = curve[-1]
        return {
            "variant": name,
            "seed": seed,
            "steps": steps,
            "parameters": self.parameters(network),
            "mae_meV": MEV_PER_MICROHARTREE * last["mae_uEh"],
            "rmse_meV": MEV_PER_MICROHARTREE * last["rmse_uEh"],
            "training_seconds": last["seconds"],
            "cpu_seconds_of_this_call": time.process_time() - started,
            "curve": [[point["step"], MEV_PER_MICROHARTREE * point["mae_uEh"]] for point in curve],
        }

    def _config(self, name: str, network: NetworkConfig, seed: int, steps: int) -> RunConfig:
        base = self.base
        output = self.options.output / name.replace(", ", "_").replace(" ", "_")
        trace = base.loss.trace if network.tracegrad.has_trace else 0.0
        optimiser = dataclasses.replace(
            base.optimiser, steps=steps, warmup_steps=min(base.optimiser.warmup_steps, steps // 10)
        )
        loss = dataclasses.replace(base.loss, trace=trace, trace_ramp_steps=steps // 5)
        every = max(1, steps // VALIDATIONS)
        return dataclasses.replace(
            base, name=name, output=output, network=network, seed=seed, optimiser=optimiser, loss=loss,
            validate_every=every, save_every=max(1, min(every, 100)),
        )  # fmt: skip

    def _steps_within(self, name: str, network: NetworkConfig) -> int:
        """Steps of the CPU time asked for; measured once, then read back, so that a resumed run keeps its length."""
        path = self.options.output / "seconds_per_step.json"
        known: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
        if name not in known:
            trial = self._config(f"trial {name}", network, 0, TRIAL_STEPS)
            trial = dataclasses.replace(trial, validate_every=TRIAL_STEPS + 1)
            fit(trial, until_step=5)
            started = time.process_time()
            fit(trial, until_step=TRIAL_STEPS - 1)
            known[name] = (time.process_time() - started) / (TRIAL_STEPS - 6)
            write_json(path, known)
        minutes: float = self.options.minutes
        return max(1, round(60.0 * minutes / known[name]))


def _table(results: Sequence[dict[str, Any]], variants: Sequence[str]) -> str:
    """Mean and range over seeds, and the difference to "none" seed by seed."""
    plain = {run["seed"]: run["mae_meV"] for run in results if run["variant"] == "none"}
    lines = [
        f"{'variant':16}{'parameters':>12}{'steps':>8}{'H MAE, meV':>28}{'RMSE':>9}{'s a step':>10}  paired with none, %"
    ]
    for name in variants:
        own = [run for run in results if run["variant"] == name]
        mae = [run["mae_meV"] for run in own]
        spread = f"{statistics.mean(mae):.3f} ({min(mae):.3f} - {max(mae):.3f})"
        paired = [100 * (run["mae_meV"] / plain[run["seed"]] - 1) for run in own if run["seed"] in plain]
        seconds = statistics.mean(run["training_seconds"] / run["steps"] for run in own)
        lines.append(
            f"{name:16}{own[0]['parameters']:12d}{own[0]['steps']:8d}{spread:>28}"
            f"{statistics.mean(run['rmse_meV'] for run in own):9.3f}{seconds:10.3f}  "
            + ", ".join(f"{value:+.1f}" for value in paired)
        )
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, default=1500)
    length.add_argument("--minutes", type=float, help="CPU minutes of every run, instead of equal steps")
    parser.add_argument("--variants", nargs="+", choices=list(SETTINGS), default=["none", "both", WIDE])
    return parser.parse_args()


if __name__ == "__main__":
    main()
