"""Drive an evaluation and write what it found: report.json, table.txt and pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.integrals.pyscf_molecule import build_mole
from model.predictor import Predictor
from model.units import MICROHARTREE_PER_HARTREE
from training.atomic import write_json, write_text
from training.data.sources import DatasetError, Frame, FrameSource, open_source, read_frames, select
from training.evaluate.errors import ShellErrors
from training.evaluate.molecules import Eigenpairs, FrameErrors, frame_errors
from training.evaluate.orbitals import minao_density
from training.evaluate.parity import ParityCounts
from training.evaluate.scf import Baselines, ScfComparison, ScfTask, compare_scf
from training.evaluate.summary import summarise, table
from training.pool import parallel_map

LEVELS_SHOWN: Final = 8
"""Orbital energies stored on each side of the gap."""
LEVEL_QUANTILES: Final = {"best": 0.0, "median": 0.5, "95th percentile": 0.95, "worst": 1.0}
"""Molecules whose levels are stored, by the larger of their HOMO and LUMO errors."""


def evaluate(
    folder: Path,
    data: Path,
    splits: Sequence[str],
    *,
    scf: bool,
    processes: int,
    frames_per_molecule: int | None = None,
    max_molecules: int | None = None,
    device: str = "cpu",
    baselines: Path | None = None,
    guesses: Sequence[str] = ("minao",),
) -> dict[str, Any]:
    """Evaluate a checkpoint.

    Args:
        folder: checkpoint.
        data: labelled structures.
        splits: of the data file.
        scf: run the SCFs too (minutes for a hundred molecules).
        processes: worker processes for them.
        frames_per_molecule, max_molecules: limits, None for all.
        device: of the network.
        baselines: file that keeps the runs from PySCF's guesses between evaluations. Their seconds are then of another
            hour, and the time ratios are left out.
        guesses: of PySCF, to compare with (``scf.GUESSES``); minao is always one.

    Returns:
        {"checkpoint", "weights_sha256", "splits": {name: {"summary", "frames", "scf", "challenging", "shells",
        "parity", "levels"}}}, JSON-able.

    Raises:
        DatasetError, ModelError: see the reader and the predictor.
    """
    predictor = Predictor.load(folder, device=device)
    take = partial(select, frames_per_molecule=frames_per_molecule, max_molecules=max_molecules)
    _refuse_foreign_labels(predictor, data, splits, take)
    guesses = tuple(dict.fromkeys(["minao", *guesses]))
    known = Baselines(baselines, f"{predictor.card.xc} {predictor.card.basis.name}")
    report: dict[str, Any] = {"checkpoint": predictor.card.name, "weights_sha256": predictor.card.weights_sha256}
    report["splits"] = {}
    for split in splits:
        frames = read_frames(data, [split], frames_per_molecule=frames_per_molecule, max_molecules=max_molecules)
        report["splits"][split] = _evaluate_split(
            predictor, frames, split, scf=scf, processes=processes, known=known, guesses=guesses
        )
    return report


def _refuse_foreign_labels(
    predictor: Predictor, data: Path, splits: Sequence[str], take: Callable[[FrameSource, str], NDArray[np.int64]]
) -> None:
    """Refuse labels that the checkpoint was not made for, before the work begins.

    Labels of another functional or basis measure the difference of the levels, not the checkpoint.
    """
    card = predictor.card
    with open_source(data) as source:
        found = source.level.describe_differences(card.level, own=str(data), others=f"checkpoint {card.name!r}")
        if found:
            raise DatasetError(f"{found}; evaluate the checkpoint on labels of its own level.")
        for split in splits:
            states = source.charge_states(take(source, split))
            for what, part, allowed in (("charge", 0, card.charges), ("multiplicity", 1, card.multiplicities)):
                foreign = sorted({state[part] for state in states} - set(allowed))
                if foreign:
                    raise DatasetError(
                        f"Split {split!r} of {data} has {what} {', '.join(map(str, foreign))}; checkpoint {card.name!r} is "
                        f"for {what} {', '.join(map(str, allowed))}."
                    )


def _evaluate_split(
    predictor: Predictor,
    frames: Iterable[Frame],
    split: str,
    *,
    scf: bool,
    processes: int,
    known: Baselines,
    guesses: Sequence[str],
) -> dict[str, Any]:
    shells, parity = ShellErrors(predictor.space), ParityCounts()
    found: list[FrameErrors] = []
    levels: list[dict[str, list[float] | None]] = []
    tasks: list[ScfTask] = []
    for frame in tqdm(frames, desc=f"matrices, {split}", mininterval=5.0, delay=5.0):
        # one at a time: batches of 4 to 16 save a tenth of the CPU time, and no frame would have a time of its own
        frame = frame.in_space(predictor.space)
        started = time.process_time()
        prediction = predictor.predict([frame.structure])[0]
        seconds = time.process_time() - started
        solved = Eigenpairs.of(frame, prediction)
        minao = minao_density(build_mole(frame.structure, predictor.space.name))
        found.append(frame_errors(frame, prediction, minao=minao, solved=solved))
        shells.add(frame.structure.numbers, MICROHARTREE_PER_HARTREE * np.abs(prediction.hamiltonian - frame.fock))
        parity.add(frame.fock, prediction.hamiltonian, None if solved.reference is None else prediction.reference)
        assert prediction.orbitals is not None
        assert prediction.guess is not None
        sides = {"label": solved.label, "predicted": prediction.orbitals, "h0": solved.reference}
        window = slice(max(0, found[-1].occupied - LEVELS_SHOWN), found[-1].occupied + LEVELS_SHOWN)
        levels.append({k: None if v is None else v.energies[window].tolist() for k, v in sides.items()})
        if scf:
            density = prediction.guess.density_matrix
            tasks.append(ScfTask(frame, density, seconds, found[-1].hamiltonian, known.known(frame, guesses)))
    if not found:
        raise DatasetError(f"Split {split!r} has no structures; name another one with --splits.")
    runs = _run(tasks, predictor, split, processes, known, guesses)
    timed = [name for name in guesses if not any(name in task.known for task in tasks)]
    worst_sample = max(found, key=lambda item: item.hamiltonian)
    worst_block = shells.worst()
    return {
        "summary": summarise(found, runs, timed=timed, shells=shells),
        "frames": [asdict(item) for item in found],
        "scf": [asdict(item) for item in runs],
        "challenging": {
            "sample": {
                "molecule": worst_sample.molecule,
                "index": worst_sample.index,
                "smiles": worst_sample.smiles,
                "mae_uEh": worst_sample.hamiltonian,
            },
            "block": {"name": worst_block.name, **asdict(worst_block)},
        },
        "shells": shells.to_json(),
        "parity": parity.to_json(),
        "levels": _chosen_levels(found, levels),
    }


def _run(
    tasks: Sequence[ScfTask],
    predictor: Predictor,
    split: str,
    processes: int,
    known: Baselines,
    guesses: Sequence[str],
) -> list[ScfComparison]:
    if not tasks:
        return []
    work = partial(compare_scf, xc=predictor.card.xc, basis=predictor.card.basis.name, guesses=tuple(guesses))
    done = parallel_map(work, tasks, total=len(tasks), processes=processes, title=f"SCF, {split}", chunk=1)
    runs = []
    for task, run in zip(tasks, done, strict=True):
        runs.append(run)
        for name in guesses:
            if name not in task.known:
                known.put(task.frame, run.baseline(name), name)
    return runs


def _chosen_levels(
    found: Sequence[FrameErrors], levels: Sequence[dict[str, list[float] | None]]
) -> list[dict[str, Any]]:
    """Orbital energies around the gap, hartree, of a few frames from best to worst."""
    order = np.argsort([max(abs(item.homo), abs(item.lumo)) for item in found], kind="stable")
    chosen = {int(order[round(quantile * (len(order) - 1))]): rank for rank, quantile in LEVEL_QUANTILES.items()}
    return [
        {
            "rank": rank,
            "molecule": found[index].molecule,
            "index": found[index].index,
            "smiles": found[index].smiles,
            "occupied": min(found[index].occupied, LEVELS_SHOWN),
            **levels[index],
        }
        for index, rank in sorted(chosen.items(), key=lambda item: list(LEVEL_QUANTILES).index(item[1]))
    ]


def write_report(report: dict[str, Any], path: Path) -> list[Path]:
    """Write a report.

    Args:
        report: from :func:`evaluate`.
        path: a file ``*.json``; or a folder, which gets report.json, table.txt and the pictures.

    Returns:
        what was written; no pictures where matplotlib is not installed.
    """
    if path.suffix == ".json":
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, report)
        return [path]
    path.mkdir(parents=True, exist_ok=True)
    text = path / "table.txt"
    write_text(text, table(report) + "\n")
    written = [*write_report(report, path / "report.json"), text]
    try:
        from training.evaluate.plots import draw
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        return written
    return [*written, *draw(report, path)]
