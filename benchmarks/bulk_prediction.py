"""What a structure costs in ``training predict``, in batches of like size and alone: CPU seconds of one process.

``python benchmarks/bulk_prediction.py [--count 200] [--record]``; half a minute. Small molecules in geometries of their own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from ase.build import molecule
from ase.io import write
from recorded import Column, Table, as_markdown, record

from model.predictor import Predictor
from training.executors import ProcessPool
from training.parts import Part
from training.predict import work
from training.predict.run import predict
from training.predict.work import Job

CHECKPOINT: Final = Path(__file__).resolve().parents[1] / "checkpoints" / "default"
NAMES: Final = ("H2O", "CH3OH", "CH3CH2OH", "NH3", "CH4", "C2H4", "H2CO", "HCN")


def cost_ms(predictor: Predictor, file: Path, output: Path, batch_blocks: int, count: int) -> tuple[float, float]:
    """CPU milliseconds a structure, and kilobytes that are kept of it."""
    job = Job(CHECKPOINT, output, ("hamiltonian", "orbital_energies"), "float32", batch_blocks, 1000, False, "cpu")
    begun = time.process_time()
    done = predict(job, [file], chunk=256, part=Part(), executor=ProcessPool(0))
    taken = time.process_time() - begun
    assert (done.answered, done.failed) == (count, 0)
    stored = sum(path.stat().st_size for path in (output / "chunks").iterdir())
    return 1e3 * taken / count, stored / count / 1e3


def main() -> None:
    """Both, in turns."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    predictor = Predictor.load(CHECKPOINT)
    setattr(work, "predictor_of", lambda checkpoint, device: predictor)  # noqa: B010  loading is not what is measured
    rows: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        atoms = []
        for number in range(chosen.count):
            own = molecule(NAMES[number % len(NAMES)])
            own.rattle(0.02, seed=number)
            atoms.append(own)
        write(folder / "many.extxyz", atoms, format="extxyz")
        cost_ms(predictor, folder / "many.extxyz", folder / "warm", 1000, chosen.count)
        for turn in range(2):
            for label, blocks in (("batches of like size", 1000), ("alone", 1)):
                cost, kept = cost_ms(
                    predictor, folder / "many.extxyz", folder / f"{turn}-{blocks}", blocks, chosen.count
                )
                rows.append([label, round(cost, 2), round(kept, 2)])
    table = Table(
        columns=[Column(name=""), Column(name="CPU a structure", unit="ms"), Column(name="kept of it", unit="kB")],
        rows=sorted(rows, key=lambda row: str(row[0])),
    )
    print(as_markdown(table))
    if chosen.record:
        record("bulk_prediction", tables=[table], spread="two turns, each a row", checkpoint=predictor.card.version)


if __name__ == "__main__":
    main()
