"""What TraceGrad's two halves bring: none, trace label, gradient feature, both; and a wider network without either.

``python benchmarks/tracegrad_ablation.py training/runs/default.toml [steps] [seeds] [backbone] [variant ...]``. TraceGrad
follows every block at rank 32; "both, literal" is the paper's text (every pair of channels, f + v, raw traces). All
variants have equal steps, data, schedule and seeds; "none, wide" has the parameters of "both" in more channels instead. The
loss is that of the paper's ablation, blocks only: H is what is compared.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

from machine import describe
from small_runs import SMALL, last_validation, small_run

from model.integrals.pyscf_molecule import load_basis
from model.network import HamiltonianNetwork
from model.structure import SYMBOLS
from training.fit.config import LossConfig, RunConfig, read_run
from training.fit.labels import trained_on

MODES = ("none", "trace", "grad", "both")
WIDE = "none, wide"
LITERAL = "both, literal"
SETTINGS = {"after": "every", "rank": 32}
LITERALLY = {"contraction": "full", "residual": "plain", "labels": "raw"}


def parameters(config: RunConfig) -> int:
    """Trainable numbers that a prediction uses: the trace decoder is for training only."""
    network = HamiltonianNetwork(
        config.network,
        load_basis(trained_on(config).level.basis, [SYMBOLS.index(symbol) for symbol in config.elements]),
    )
    return sum(p.numel() for name, p in network.named_parameters() if "decoder" not in name)


def variant(
    base: RunConfig, backbone: str, name: str, seed: int, steps: int, changes: dict[str, Any] | None = None
) -> RunConfig:
    """One run of the comparison."""
    mode = {WIDE: "none", LITERAL: "both"}.get(name, name)
    loss = LossConfig(mae=1.0, rmse=1.0, guess=0.0, trace=0.2 if mode in ("trace", "both") else 0.0)
    return small_run(
        base,
        f"ablation_{backbone}_{steps}",
        f"{name} seed {seed}",
        steps=steps,
        loss=loss,
        backbone=backbone,
        changes=changes,
        tracegrad=SETTINGS | {"mode": mode} | (LITERALLY if name == LITERAL else {}),
        seed=seed,
    )


def wider(base: RunConfig, backbone: str) -> dict[str, int]:
    """Pair channels with which the network without TraceGrad has at least the parameters of the one with both halves."""
    target = parameters(variant(base, backbone, "both", 0, 1))
    channels = SMALL[backbone]["pair_channels"]
    while parameters(variant(base, backbone, "none", 0, 1, {"pair_channels": channels})) < target:
        channels += 1
    return {"pair_channels": channels}


def main() -> None:
    """Run the variants and print mean and spread over seeds."""
    base = read_run(Path(sys.argv[1]))
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 1500
    seeds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    backbone = sys.argv[4] if len(sys.argv) > 4 else "qhnet"
    variants = sys.argv[5:] or [*MODES, WIDE]
    changes = {WIDE: wider(base, backbone)}
    rows = []
    for seed in range(seeds):
        for name in variants:
            config = variant(base, backbone, name, seed, steps, changes.get(name))
            rows.append((name, parameters(config), last_validation(config)))
    print(describe())
    print(f"{backbone}, {steps} steps, {seeds} seeds, validation split; mean (smallest - largest)")
    print(f"{'TraceGrad':14}{'parameters':>11}{'H MAE, uEh':>24}{'H RMSE, uEh':>13}{'|D_ia|':>9}{'seconds':>9}")
    for name in variants:
        own = [(size, last) for found, size, last in rows if found == name]
        mae = [last["mae_uEh"] for _, last in own]
        spread = f"{statistics.mean(mae):.1f} ({min(mae):.1f} - {max(mae):.1f})"

        def mean(key: str, own: list[tuple[int, dict[str, float]]] = own) -> float:
            return statistics.mean(last[key] for _, last in own)

        print(
            f"{name:14}{own[0][0]:11d}{spread:>24}{mean('rmse_uEh'):13.1f}{mean('density'):9.4f}{mean('seconds'):9.0f}"
        )


if __name__ == "__main__":
    main()
