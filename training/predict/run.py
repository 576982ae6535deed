"""A job: all chunks of some files, or one part of them; what is done is not done again.

    files -> numbered chunks -> part i of n -> workers -> chunks/00000000.h5 -> index.csv, failures.jsonl, predictions.h5

Stop it at any moment, in any way, and start it again, with as many parts and workers as there are then. ``job.json`` says
what the folder is of; another checkpoint or other files want another folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from model.checkpoint.card import read_card
from training.atomic import write_json
from training.executors import Executor, Finishing
from training.parts import Part, require_all_done
from training.predict.merge import merge, write_index
from training.predict.pieces import chunks_of, files_of
from training.predict.work import ChunkFiles, Job, predict_chunk
from training.tables import ConfigError

JOB_FILE: Final = "job.json"


@dataclass(frozen=True)
class Summary:
    """What a call has done.

    Attributes:
        chunks: of the job's part.
        predicted: of these, by this call.
        answered, failed: structures of the whole job; None as long as it has chunks that are not done.
        merged: the one file of all, if it was asked for.
    """

    chunks: int
    predicted: int
    answered: int | None = None
    failed: int | None = None
    merged: Path | None = None


def predict(job: Job, inputs: Sequence[Path], *, chunk: int, part: Part, executor: Executor) -> Summary:
    """Predict one part of a job; of a job in one part, write its index too.

    Args:
        job: what is asked.
        inputs: files and folders of structures.
        chunk: structures in a file of results.
        part: of the chunks.
        executor: where it is computed.

    Raises:
        ConfigError: the folder belongs to another job.
        DatasetError: inputs that are not there.
        CheckpointError: a checkpoint that must not be used.
    """
    files = files_of(inputs)
    _claim(job, files, chunk)
    places = ChunkFiles(job.output)
    own = list(part.of(chunks_of(files, chunk)))
    pending = [item for item in own if not places.is_done(item)]
    for item in pending:
        places.started(item).unlink(missing_ok=True)  # of an earlier call, interrupted
    Finishing(executor, places, "predict").all_of(partial(predict_chunk, job=job), pending)
    if not part.is_whole:
        return Summary(len(own), len(pending))
    answered, failed = write_index(job.output, [places.result(item) for item in own])
    return Summary(len(own), len(pending), answered, failed)


def merge_parts(job: Job, inputs: Sequence[Path], *, chunk: int) -> Summary:
    """Index and one file of all parts.

    Raises:
        ConfigError: the folder belongs to another job, or chunks are not done yet.
        DatasetError: nothing has an answer.
    """
    files = files_of(inputs)
    _claim(job, files, chunk)
    places = ChunkFiles(job.output)
    everything = list(chunks_of(files, chunk))
    require_all_done(sum(not places.is_done(item) for item in everything), len(everything), "chunks")
    results = [places.result(item) for item in everything]
    answered, failed = write_index(job.output, results)
    return Summary(len(everything), 0, answered, failed, merge(job.output, results))


def _claim(job: Job, files: Sequence[Path], chunk: int) -> None:
    """Write what the folder is of, or compare."""
    card = read_card(job.checkpoint / "card.json")
    listing = hashlib.sha256()
    for path in files:
        listing.update(f"{path.name} {path.stat().st_size}\n".encode())
    said: dict[str, Any] = {
        "model": f"{card.name} {card.version}",
        "weights_sha256": card.weights_sha256,
        "files": len(files),
        "names_and_sizes_sha256": listing.hexdigest(),
        "chunk": chunk,
        "save": list(job.save),
        "dtype": job.dtype,
        "molecules": job.molecules,
        "max_orbitals": job.max_orbitals,
    }
    (job.output / "chunks").mkdir(parents=True, exist_ok=True)
    path = job.output / JOB_FILE
    if not path.is_file():
        write_json(path, said)
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    other = [f"{name} was {found.get(name)}, is {value}" for name, value in said.items() if found.get(name) != value]
    if other:
        raise ConfigError(
            f"{job.output} holds another job: {'; '.join(other)}. Put it back to go on, or give another folder with -o."
        )
