"""All chunks of a job -> one HDF5 file, ``index.csv`` and ``failures.jsonl``; a chunk at a time is in memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from training.atomic import replaced
from training.data.sources import DatasetError
from training.predict.results import SINGLE, START, TEXTS, Results

MERGED_FILE: Final = "predictions.h5"
INDEX_FILE: Final = "index.csv"
FAILURES_FILE: Final = "failures.jsonl"
COLUMNS: Final = ("file", "frame", "atoms", "in_domain", "chunk", "row")


def write_index(output: Path, chunks: Sequence[Path]) -> tuple[int, int]:
    """``index.csv``, a line for each structure with its chunk and row, and ``failures.jsonl``.

    Args:
        output: folder of the job.
        chunks: files of all its chunks, in order.

    Returns:
        structures with an answer and without one.
    """
    answered = failed = 0
    with (
        replaced(output / INDEX_FILE) as index,
        replaced(output / FAILURES_FILE) as failures,
        index.open("w", newline="", encoding="utf-8") as index_file,
        failures.open("w", encoding="utf-8") as failure_file,
    ):
        table = csv.writer(index_file)
        table.writerow(COLUMNS)
        for path in chunks:
            with Results(path) as results:
                for row, (name, frame, atoms, in_domain) in enumerate(results.places()):
                    table.writerow([name, frame, atoms, int(in_domain), path.name, row])
                answered += len(results)
                for failure in results.failures:
                    failure_file.write(json.dumps(asdict(failure)) + "\n")
                    failed += 1
    return answered, failed


def merge(output: Path, chunks: Sequence[Path]) -> Path:
    """One file of all chunks.

    Raises:
        DatasetError: chunks of different weights or outputs, or none with an answer; nothing is written.
    """
    target = output / MERGED_FILE
    with replaced(target) as partial, h5py.File(partial, "w") as file:
        for path in chunks:
            with h5py.File(path) as chunk:
                if "frame" not in chunk:
                    continue
                attributes = {name: value for name, value in chunk.attrs.items() if name != "failures"}
                if "frame" not in file:
                    file.attrs.update(attributes)
                    for name, data in chunk.items():
                        _like(file, name, data)
                elif attributes != dict(file.attrs) or set(file) != set(chunk):
                    raise DatasetError(
                        f"{path.name} is of another model or has other arrays than the chunks before it."
                    )
                for name, data in chunk.items():
                    _append(file[name], data, is_start=name.endswith(START))
        if "frame" not in file:
            raise DatasetError(f"No structure has an answer; {output / FAILURES_FILE} says why.")
    return target


def _like(file: h5py.File, name: str, data: h5py.Dataset) -> None:
    """An empty array of the same kind; of the beginnings, one that begins."""
    is_start, is_text = name.endswith(START), name in TEXTS
    packed: dict[str, Any] = (
        {} if name in SINGLE or is_start else {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    )
    file.create_dataset(
        name,
        data=np.zeros(1, dtype=data.dtype) if is_start else None,
        shape=None if is_start else (0, *data.shape[1:]),
        maxshape=(None, *data.shape[1:]),
        dtype=h5py.string_dtype() if is_text else data.dtype,
        **packed,
    )


def _append(target: h5py.Dataset, data: h5py.Dataset, *, is_start: bool) -> None:
    values = data[1:] + target[-1] if is_start else data[:]
    begin = len(target)
    target.resize(begin + len(values), axis=0)
    target[begin:] = values
