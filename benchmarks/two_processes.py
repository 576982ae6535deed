"""Does a run trained by two processes have the curve of one?

``python benchmarks/two_processes.py [--data ../shared/data/molecules/focks.h5] [--steps 40] [--record]``: a few minutes. Both
train the default checkpoint's network from scratch on the same molecules; every process has one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from recorded import Column, Figure, Table, as_markdown, record

ROOT: Final = Path(__file__).resolve().parents[1]
COMPARED: Final = ("mae_uEh", "density_per_electron", "levels_uEh")
RUN: Final = """
[run]
output = "run"
seed = 1
threads = 1
device = "cpu"
validate_every = {every}
save_every = 1000

[data]
file = "{data}"
max_molecules = 60
frames_per_molecule = 1
max_validation = 12

[reference]
n_exponents = 6
ratio = 4.0
max_molecules = 30

[network]
backbone = "qhnetv2"
qhnetv2 = {{ node_channels = 64, pair_channels = 48, layers = 2 }}
tracegrad = {{ after = "last", rank = 16 }}

[loss]
trace_ramp_steps = 10

[optimiser]
kind = "muon"
steps = {steps}
batch_blocks = 500
warmup_steps = 5
"""


def trained(folder: Path, processes: int, data: Path, steps: int) -> list[dict[str, Any]]:
    """Validations of a run by so many processes."""
    folder.mkdir()
    run = folder / "run.toml"
    run.write_text(RUN.format(data=data, steps=steps, every=max(1, steps // 8)))
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command = [sys.executable, "-m", *(launcher if processes > 1 else []), "training", "fit", str(run)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment)
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def main() -> None:
    """Train twice and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data/molecules/focks.h5")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        one, two = (trained(Path(folder) / str(n), n, chosen.data.resolve(), chosen.steps) for n in (1, 2))
    table = Table(
        columns=[
            Column(name="step"),
            Column(name="H, one process", unit="µEh", digits=2),
            Column(name="two", unit="µEh", digits=2),
            Column(name="density, one process", digits=7),
            Column(name="two", digits=7),
        ],
        rows=[
            [a["step"], a["mae_uEh"], b["mae_uEh"], a["density_per_electron"], b["density_per_electron"]]
            for a, b in zip(one, two, strict=True)
        ],
    )
    worst = max(abs(a[k] - b[k]) / abs(a[k]) for a, b in zip(one, two, strict=True) for k in COMPARED)
    name = f"largest relative difference of {', '.join(COMPARED)}"
    figures = [Figure(name=name, value=float(f"{worst:.2g}"))]
    print(as_markdown(table), *figures, sep="\n")
    if chosen.record:
        record("two_processes", tables=[table], figures=figures, spread="one run each", checkpoint=None)


if __name__ == "__main__":
    main()
