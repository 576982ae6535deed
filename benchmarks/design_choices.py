"""One thing changed at a time: what each choice of the default run is worth in short runs of a small network.

``python benchmarks/design_choices.py training/runs/default.toml [steps] [name ...]``. Every variant has equal steps, seed and
validation set; finished ones are kept in ``runs/design_choices_*/`` and not run again. docs/decisions/0008 holds the results.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import describe
from small_runs import last_validation, small_run

from training.fit.config import LossConfig, RunConfig, read_run

LOSS = LossConfig(mae=1.0, rmse=1.0, guess=2.0, trace=0.0)


@dataclass(frozen=True)
class Variant:
    """What is changed in the run file."""

    backbone: dict[str, Any] = field(default_factory=dict)
    tracegrad: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


VARIANTS = {
    "base": Variant(),
    "AdamW": Variant(optimiser={"kind": "adamw"}),
    "Muon, twice the rate": Variant(optimiser={"muon_rate": 4.0}),
    "no average of weights": Variant(optimiser={"ema_decay": 0.0}),
    "8 radial functions": Variant(backbone={"radial_size": 8}),
    "32 radial functions": Variant(backbone={"radial_size": 32}),
    "messages to 5 Å": Variant(backbone={"cutoff_angstrom": 5.0}),
    "nodes to l = 3": Variant(backbone={"node_lmax": 3}),
    "one pair layer": Variant(backbone={"pair_layers": 1}),
    "three pair layers": Variant(backbone={"pair_layers": 3}),
    "pair width 40": Variant(backbone={"pair_channels": 40}),
    "node width 64": Variant(backbone={"node_channels": 64}),
    "no TraceGrad": Variant(tracegrad={"mode": "none"}),
    "TraceGrad after every block, rank 32": Variant(tracegrad={"after": "every", "rank": 32}),
    "guess term from half-way": Variant(loss={"guess_from": 0.5}),
    "guess weight 4": Variant(loss={"guess": 4.0}),
    "level term in the last fifth": Variant(loss={"spectral": 0.5, "spectral_from": 0.8}),
    "half the molecules": Variant(data={"max_molecules": 292}),
}


def configure(base: RunConfig, name: str, variant: Variant, steps: int) -> RunConfig:
    """The short run of a variant."""
    config = small_run(
        base,
        f"design_choices_{steps}",
        name,
        steps=steps,
        loss=dataclasses.replace(LOSS, **variant.loss),
        changes=variant.backbone,
        tracegrad=variant.tracegrad,
    )
    return dataclasses.replace(
        config,
        optimiser=dataclasses.replace(config.optimiser, **variant.optimiser),
        data=dataclasses.replace(config.data, **variant.data),
    )


def main() -> None:
    """Run the variants and print the last validation of each."""
    base = read_run(Path(sys.argv[1]))
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 800
    names = sys.argv[3:] or list(VARIANTS)
    print(describe())
    header = f"{'changed':38}{'H MAE':>8}{'RMSE':>8}{'levels':>8}{'|D_ia|':>9}{'largest':>9}{'seconds':>9}"
    print(header + "   (µEh; validation)", flush=True)
    for name in names:
        last = last_validation(configure(base, name, VARIANTS[name], steps))
        print(
            f"{name:38}{last['mae_uEh']:8.0f}{last['rmse_uEh']:8.0f}{last['levels_uEh']:8.0f}"
            f"{last['density']:9.4f}{last['density_max']:9.4f}{last['seconds']:9.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
