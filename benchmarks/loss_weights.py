"""Which weights of the loss pay: short runs of a small network that differ in the loss only (docs/decisions/0003).

``python benchmarks/loss_weights.py training/runs/default.toml [steps]``. The run's fitted reference and samples must be there
(``python -m training fit`` makes them). One thread; resumable like any run.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from machine import describe

from training.config import LossConfig, RunConfig, read_run
from training.fit import fit

VARIANTS = {
    "blocks only": LossConfig(mae=1.0, rmse=1.0, guess=0.0, trace=0.0),
    "blocks + guess 0.5": LossConfig(mae=1.0, rmse=1.0, guess=0.5, trace=0.0),
    "blocks + guess 2": LossConfig(mae=1.0, rmse=1.0, guess=2.0, trace=0.0),
    "blocks + guess 8": LossConfig(mae=1.0, rmse=1.0, guess=8.0, trace=0.0),
    "guess only": LossConfig(mae=0.0, rmse=0.0, guess=2.0, trace=0.0),
    "blocks + guess 2 + trace 0.2": LossConfig(mae=1.0, rmse=1.0, guess=2.0, trace=0.2),
}


def variant_of(base: RunConfig, name: str, loss: LossConfig, steps: int) -> RunConfig:
    """A short run of a small network with another loss, beside the base run."""
    output = base.output.parent / "loss_weights" / name.replace(" ", "_")
    output.mkdir(parents=True, exist_ok=True)
    for shared in ("reference.safetensors", "samples"):
        if not (output / shared).exists():
            (output / shared).symlink_to(base.output / shared)
    network = dataclasses.replace(
        base.network,
        backbone_config=dataclasses.replace(
            base.network.backbone_config, node_channels=32, pair_channels=24, hidden=48, pair_layers=1
        ),
    )
    return dataclasses.replace(
        base,
        name=name,
        output=output,
        network=network,
        loss=loss,
        threads=1,
        validate_every=steps,
        save_every=steps,
        optimiser=dataclasses.replace(base.optimiser, steps=steps, batch_blocks=350, warmup_steps=100),
    )


def main() -> None:
    """Run every variant and print the last validation of each."""
    base = read_run(Path(sys.argv[1]))
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 1500
    rows = []
    for name, loss in VARIANTS.items():
        config = variant_of(base, name, loss, steps)
        fit(config)
        rows.append((name, json.loads((config.output / "metrics.jsonl").read_text().splitlines()[-1])))
    print(describe())
    print(f"{'loss':32}{'MAE uEh':>10}{'RMSE uEh':>10}{'|D_ia|':>10}{'largest':>10}{'seconds':>9}")
    for name, last in rows:
        print(
            f"{name:32}{last['mae_uEh']:10.0f}{last['rmse_uEh']:10.0f}{last['density']:10.4f}"
            f"{last['density_max']:10.4f}{last['seconds']:9.0f}"
        )


if __name__ == "__main__":
    main()
