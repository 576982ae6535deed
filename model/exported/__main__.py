"""``python -m model.exported CHECKPOINT [-o FOLDER]``: compile a checkpoint's forward pass, and compare it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from model.checkpoint import store
from model.checkpoint.golden import GOLDEN_TOLERANCE_HARTREE, golden_structure
from model.errors import CheckpointError, ModelError
from model.exported import package
from model.exported.program import compile_package
from model.exported.runner import ExportedForward
from model.hamiltonian_model import HamiltonianModel
from model.nn import kernel_files
from model.preparation import Prepared

EXAMPLE_BLOCKS: Final = 60
"""Atoms and pairs of the batch that is exported, at least: ethanol has so many. Other sizes are taken all the same."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile; returns the exit code: 2 with a sentence on standard error if there is no package."""
    parser = argparse.ArgumentParser(prog="python -m model.exported", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("checkpoint", type=Path, help="folder of the checkpoint")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("compiled"), metavar="FOLDER", help="of packages; default: compiled"
    )
    parser.add_argument(
        "--level", help="of processors: x86-64-v3 (AVX2) or x86-64-v4; default: the best that this one has"
    )
    parser.add_argument("--force", action="store_true", help="compile even if the package is there")
    chosen = parser.parse_args(arguments)
    try:
        checkpoint = store.load(chosen.checkpoint)
        level = chosen.level or next(iter(kernel_files.levels()), "x86-64-v3")
        path = chosen.output / package.file_name(checkpoint.model, level)
        if path.is_file() and not chosen.force:
            print(f"{path} is there already; --force compiles it again.")
            return 0
        print(make(checkpoint, chosen.output, level))
    except ModelError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def make(checkpoint: store.Checkpoint, folder: Path, level: str) -> str:
    """Compile the forward pass of a checkpoint, run it on the golden structures, and say what came of it.

    Raises:
        CheckpointError: there can be no package, or it does not give what the network gives.
    """
    card, model = checkpoint.card, checkpoint.model
    if card.periodic:
        raise CheckpointError(
            f"Packages are of molecules' networks, and {card.name!r} is for crystals.", hint="It is served as it is."
        )
    golden = [model.prepare(golden_structure(entry)) for entry in checkpoint.golden["structures"]]
    if not golden:
        raise CheckpointError(f"Checkpoint {card.name!r} has no golden structure.", hint="Release it again.")
    example = list(golden)
    while sum(item.cost for item in example) < EXAMPLE_BLOCKS:
        example += golden
    started = time.perf_counter()
    path = compile_package(model, example, folder, level)
    seconds = time.perf_counter() - started
    deviation = _deviation(model, example, path)
    if not deviation <= GOLDEN_TOLERANCE_HARTREE:
        path.unlink()
        raise CheckpointError(
            f"The package differs from the network by {deviation:.1e} hartree, {GOLDEN_TOLERANCE_HARTREE:.0e} is allowed.",
            hint="It has been removed; the checkpoint is served as it is.",
        )
    size = path.stat().st_size / 1e6
    return (
        f"{path}: {card.name} {card.version}, {size:.0f} MB, compiled in {seconds:.0f} s; differs from the network by "
        f"{deviation:.1e} hartree at most on the golden structures."
    )


def _deviation(model: HamiltonianModel, batch: Sequence[Prepared], path: Path) -> float:
    """Largest difference of the blocks of a batch from the network's, hartree.

    Raises:
        CheckpointError: the package does not load or does not run.
    """
    graph, raw = model.batch(batch)
    reads_edges = model.network.config.edge_cutoff_angstrom > 0
    forward = ExportedForward(path, reads_edges=reads_edges)
    with torch.inference_mode():
        expected = model(graph, raw).blocks
        found = forward(graph, raw)
    if found is None:
        raise CheckpointError(f"{path.name} was made and does not run.", hint="The log says why.")
    return float((found - expected).abs().max())


if __name__ == "__main__":
    sys.exit(main())
