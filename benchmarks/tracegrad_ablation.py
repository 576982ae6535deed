"""What TraceGrad's two halves bring: none, trace label, gradient feature, both; and a wider network without either.

``python benchmarks/tracegrad_ablation.py training/runs/default.toml [steps] [seeds]``. All variants have equal steps, data,
schedule and seeds; "none, wide" has the parameters of "both" in more channels instead. The loss is that of the paper's
ablation, blocks only: H is what is compared.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from machine import describe
from small_runs import SMALL, last_validation, small_run

from model.electronic.molecule import load_basis
from model.network import HamiltonianNetwork
from model.structure import SYMBOLS
from training.config import LossConfig, RunConfig, read_run

MODES = ("none", "trace", "grad", "both")
WIDE = "none, wide"


def parameters(config: RunConfig) -> int:
    """Trainable numbers that a prediction uses: the trace decoder is for training only."""
    network = HamiltonianNetwork(
        config.network, load_basis(config.basis, [SYMBOLS.index(symbol) for symbol in config.elements])
    )
    return sum(p.numel() for name, p in network.named_parameters() if "decoder" not in name)


def variant(base: RunConfig, mode: str, seed: int, steps: int, **widths: int) -> RunConfig:
    """One run of the comparison."""
    name = f"{mode} seed {seed}" if not widths else f"{WIDE} seed {seed}"
    loss = LossConfig(mae=1.0, rmse=1.0, guess=0.0, trace=0.2 if mode in ("trace", "both") else 0.0)
    return small_run(
        base,
        f"ablation_{steps}",
        name,
        steps=steps,
        loss=loss,
        backbone=SMALL | widths,
        tracegrad={"mode": mode},
        seed=seed,
    )


def wider(base: RunConfig, target: int) -> int:
    """Pair channels with which the network without TraceGrad has at least ``target`` parameters."""
    channels = SMALL["pair_channels"]
    while parameters(variant(base, "none", 0, 1, pair_channels=channels)) < target:
        channels += 1
    return channels


def main() -> None:
    """Run all variants and print mean and spread over seeds."""
    base = read_run(Path(sys.argv[1]))
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 1500
    seeds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    channels = wider(base, parameters(variant(base, "both", 0, 1)))
    variants = [(mode, {}) for mode in MODES] + [(WIDE, {"pair_channels": channels})]
    rows = []
    for seed in range(seeds):
        for name, widths in variants:
            config = variant(base, "none" if widths else name, seed, steps, **widths)
            rows.append((name, parameters(config), last_validation(config)))
    print(describe())
    print(f"{steps} steps, {seeds} seeds, validation split; mean (smallest - largest)")
    print(f"{'TraceGrad':12}{'parameters':>11}{'H MAE, uEh':>24}{'H RMSE, uEh':>13}{'|D_ia|':>9}{'seconds':>9}")
    for name, _ in variants:
        own = [(size, last) for found, size, last in rows if found == name]
        mae = [last["mae_uEh"] for _, last in own]
        spread = f"{statistics.mean(mae):.1f} ({min(mae):.1f} - {max(mae):.1f})"

        def mean(key: str, own: list[tuple[int, dict[str, float]]] = own) -> float:
            return statistics.mean(last[key] for _, last in own)

        print(
            f"{name:12}{own[0][0]:11d}{spread:>24}{mean('rmse_uEh'):13.1f}{mean('density'):9.4f}{mean('seconds'):9.0f}"
        )


if __name__ == "__main__":
    main()
