"""One chunk: read, sorted by size, predicted in batches, written; a structure that cannot be predicted costs itself alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch

from model.errors import ModelError
from model.predictor import CrystalPrediction, Prediction, Predictor
from model.structure import Structure
from training.atomic import write_text
from training.predict.pieces import Chunk
from training.predict.reading import Place, said, structures_of
from training.predict.results import Rows, row_of

ALONE_FROM_ATOMS: Final = 40
"""Batches of larger structures gain nothing: their integrals are most of the time."""


@dataclass(frozen=True)
class Job:
    """What is asked of every chunk; what its results depend on.

    Attributes:
        checkpoint: folder.
        output: folder of the results.
        save: what is kept of molecules.
        dtype: of matrices, "float32" or "float64".
        batch_blocks: most blocks (atoms and pairs) in one forward pass.
        max_orbitals: of a structure; larger ones are failures.
        molecules: cells are boxes around molecules.
        device: of the network.
    """

    checkpoint: Path
    output: Path
    save: tuple[str, ...]
    dtype: str
    batch_blocks: int
    max_orbitals: int
    molecules: bool
    device: str


@dataclass(frozen=True)
class ChunkFiles:
    """Where a chunk leaves its traces.

    Attributes:
        output: folder of the job.
    """

    output: Path

    def result(self, chunk: Chunk) -> Path:
        """Its results."""
        return self.output / "chunks" / f"{chunk.number:08d}.h5"

    def started(self, chunk: Chunk) -> Path:
        """That a worker has taken it, and the place of the structure that it is at if it goes one by one."""
        return self.output / "chunks" / f"{chunk.number:08d}.started"

    def deadly(self, chunk: Chunk) -> Path:
        """Places of structures that took their worker along, a line each."""
        return self.output / "chunks" / f"{chunk.number:08d}.deadly"

    def is_done(self, chunk: Chunk) -> bool:
        """Whether it has results."""
        return self.result(chunk).is_file()

    def is_suspect(self, chunk: Chunk) -> bool:
        """Whether a worker took it and did not come back."""
        return self.started(chunk).is_file() and not self.is_done(chunk)

    def give_up(self, chunk: Chunk) -> None:
        """Its worker died again: from now on it goes structure by structure, without the one that it died over."""
        place = self.started(chunk).read_text(encoding="utf-8")
        with self.deadly(chunk).open("a", encoding="utf-8") as file:
            file.write(place + "\n")


def predict_chunk(chunk: Chunk, job: Job) -> None:
    """Predict all structures of a chunk and write its file."""
    files = ChunkFiles(job.output)
    write_text(files.started(chunk), "")
    predictor = predictor_of(job.checkpoint, job.device)
    deadly = files.deadly(chunk).read_text(encoding="utf-8").split("\n") if files.deadly(chunk).is_file() else None
    reasons: dict[int, tuple[Place, str]] = {}
    asked: list[tuple[int, Place, Structure]] = []
    for number, found in enumerate(structures_of(chunk, molecules=job.molecules)):
        structure = found.structure
        if isinstance(structure, Structure) and (reason := _refused(structure, predictor, job)):
            structure = reason
        if deadly is not None and str(number) in deadly:
            structure = "The worker process died over this structure twice (out of memory?)."
        if isinstance(structure, Structure):
            asked.append((number, found.place, structure))
        else:
            reasons[number] = found.place, structure
    answers: dict[int, dict[str, Any]] = {}
    for batch in batches(asked, predictor, 0 if deadly is not None else job.batch_blocks):
        if deadly is not None:
            write_text(files.started(chunk), str(batch[0][0]))
        for (number, place, _), answer in zip(batch, _answers(batch, predictor, job), strict=True):
            if isinstance(answer, str):
                reasons[number] = place, answer
            else:
                answers[number] = row_of(place, answer, job.save, job.dtype)
    rows = Rows()
    for number in sorted(answers):
        rows.add(answers[number])
    for number in sorted(reasons):
        rows.fail(*reasons[number])
    card = predictor.card
    attributes = {
        "model": card.name,
        "version": card.version,
        "weights_sha256": card.weights_sha256,
        "basis": predictor.space.name,
        "units": "hartree, angstrom",
    }
    rows.write(files.result(chunk), attributes)
    for trace in (files.started(chunk), files.deadly(chunk)):
        trace.unlink(missing_ok=True)


def batches(
    asked: Sequence[tuple[int, Place, Structure]], predictor: Predictor, limit: int
) -> list[list[tuple[int, Place, Structure]]]:
    """Structures of like size together, at most ``limit`` blocks in a batch; 0 for each alone."""
    costs = [(predictor.count_blocks(structure), index) for index, (_, _, structure) in enumerate(asked)]
    found: list[list[tuple[int, Place, Structure]]] = []
    total = 0
    for cost, index in sorted(costs):
        item = asked[index]
        if not found or total + cost > limit or len(item[2]) >= ALONE_FROM_ATOMS:
            found.append([])
            total = 0
        found[-1].append(item)
        total += cost
    return found


def _answers(
    batch: Sequence[tuple[int, Place, Structure]], predictor: Predictor, job: Job
) -> list[Prediction | CrystalPrediction | str]:
    """An answer or a reason for each; a batch that fails is halved."""
    structures = [structure for _, _, structure in batch]
    try:
        if predictor.card.periodic:
            return list(predictor.predict_crystals(structures))
        orbitals = any(name != "hamiltonian" for name in job.save)
        return list(predictor.predict(structures, orbitals=orbitals))
    except (ModelError, ArithmeticError, ValueError, RuntimeError, MemoryError) as error:
        if len(batch) == 1:
            return [said(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"]
    half = len(batch) // 2
    return _answers(batch[:half], predictor, job) + _answers(batch[half:], predictor, job)


def _refused(structure: Structure, predictor: Predictor, job: Job) -> str:
    """Why this model does not take a structure; empty if it does."""
    try:
        predictor.check(structure)
        count = predictor.count_orbitals(structure)
    except ModelError as error:
        return said(error)
    if count > job.max_orbitals:
        return f"too_many_orbitals: {count} atomic orbitals; --max-orbitals allows {job.max_orbitals}."
    return ""


@cache
def predictor_of(checkpoint: Path, device: str) -> Predictor:
    """The predictor of a checkpoint folder, loaded once in each worker."""
    torch.set_float32_matmul_precision("highest")
    return Predictor.load(checkpoint, device=device)
