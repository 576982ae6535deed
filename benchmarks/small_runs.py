"""Short training runs of a small network that differ in one thing only; what comparisons of losses and modules share.

A variant lives beside the base run and shares its fitted reference and samples (``python -m training fit`` makes them). One
thread; resumable like any run.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

from training.fit.config import LossConfig, RunConfig
from training.fit.run import fit
from training.fit.state import saved_progress

SMALL = {
    "qhnet": {"node_channels": 32, "pair_channels": 24, "node_layers": 1, "pair_layers": 2, "hidden": 48},
    "qhnetv2": {
        "node_channels": 32,
        "pair_channels": 24,
        "exchange_channels": 16,
        "frame_channels": 24,
        "product_channels": 16,
        "layers": 2,
        "hidden": 48,
    },
}
"""Small enough for a dozen runs in an hour; two layers, so that TraceGrad can act between them."""
BATCH_BLOCKS = 350


def small_run(
    base: RunConfig,
    folder: str,
    name: str,
    *,
    steps: int,
    loss: LossConfig,
    backbone: str = "qhnet",
    changes: dict[str, Any] | None = None,
    tracegrad: dict[str, Any] | None = None,
    seed: int = 0,
) -> RunConfig:
    """A short run of a small network on the base set.

    Args:
        base: whose data, reference and optimiser it uses.
        folder: of the comparison.
        name: of the variant.
        steps: length.
        loss: weights.
        backbone: a key of ``SMALL``.
        changes: to it.
        tracegrad: its settings.
        seed: of weights and data order.
    """
    output = base.output.parent / folder / name.replace(" ", "_")
    output.mkdir(parents=True, exist_ok=True)
    for shared in ("reference.safetensors", "samples"):
        if not (output / shared).exists():
            (output / shared).symlink_to(base.output / shared)
    values = {"backbone": backbone, backbone: SMALL[backbone] | (changes or {}), "tracegrad": tracegrad or {}}
    return dataclasses.replace(
        base,
        name=name,
        output=output,
        network=type(base.network).from_mapping(values),
        loss=loss,
        data=dataclasses.replace(base.data, extra=()),
        seed=seed,
        threads=1,
        compile=False,
        start_from=None,
        validate_every=max(1, steps // 3),
        save_every=steps,
        optimiser=dataclasses.replace(base.optimiser, steps=steps, batch_blocks=BATCH_BLOCKS, warmup_steps=100),
    )


def train_whole(config: RunConfig, clock: Callable[[], float] = time.monotonic) -> None:
    """Run it (or resume, or do nothing if it is done) to its last step.

    Args:
        config: the run.
        clock: what tells the time that the run records, in seconds.

    Raises:
        SystemExit: a signal ended it before; what it has so far is no result.
    """
    fit(config, clock=clock)
    progress = saved_progress(config.output)
    if progress is None or progress["step"] < config.optimiser.steps:
        raise SystemExit(f"Stopped within {config.name}. The same command goes on.")


def last_validation(config: RunConfig) -> dict[str, float]:
    """Run it (or resume, or do nothing if it is done) and give its last validation."""
    train_whole(config)
    last: dict[str, float] = json.loads((config.output / "metrics.jsonl").read_text().splitlines()[-1])
    return last
