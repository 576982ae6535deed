"""Which weights of the loss pay: short runs of a small network that differ in the loss only (docs/decisions/0003).

``python benchmarks/loss_weights.py training/runs/default.toml [steps]``; see ``small_runs`` for what it needs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from machine import describe
from small_runs import last_validation, small_run

from training.fit.config import LossConfig, read_run

VARIANTS = {
    "blocks only": LossConfig(mae=1.0, rmse=1.0, guess=0.0, trace=0.0),
    "blocks + guess 0.5": LossConfig(mae=1.0, rmse=1.0, guess=0.5, trace=0.0),
    "blocks + guess 2": LossConfig(mae=1.0, rmse=1.0, guess=2.0, trace=0.0),
    "blocks + guess 8": LossConfig(mae=1.0, rmse=1.0, guess=8.0, trace=0.0),
    "guess only": LossConfig(mae=0.0, rmse=0.0, guess=2.0, trace=0.0),
    "blocks + guess 2 + trace 0.2": LossConfig(mae=1.0, rmse=1.0, guess=2.0, trace=0.2),
}


def main() -> None:
    """Run every variant and print the last validation of each."""
    base = read_run(Path(sys.argv[1]))
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 1500
    rows = []
    for name, loss in VARIANTS.items():
        config = small_run(base, "loss_weights", name, steps=steps, loss=loss, changes={"pair_layers": 1})
        rows.append((name, last_validation(config)))
    print(describe())
    print(f"{'loss':32}{'MAE uEh':>10}{'RMSE uEh':>10}{'|D_ia|':>10}{'largest':>10}{'seconds':>9}")
    for name, last in rows:
        print(
            f"{name:32}{last['mae_uEh']:10.0f}{last['rmse_uEh']:10.0f}{last['density']:10.4f}"
            f"{last['density_max']:10.4f}{last['seconds']:9.0f}"
        )


if __name__ == "__main__":
    main()
