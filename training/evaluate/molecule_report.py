"""Evaluate a checkpoint on molecules, one split."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from model.integrals.pyscf_molecule import build_mole
from model.predictor import Prediction, Predictor
from model.units import MICROHARTREE_PER_HARTREE
from training.data.sources import DatasetError, Frame
from training.evaluate.errors import ShellErrors
from training.evaluate.finished import Finished
from training.evaluate.molecules import Eigenpairs, FrameErrors, frame_errors
from training.evaluate.orbitals import minao_density
from training.evaluate.parity import ParityCounts
from training.evaluate.scf import Baselines, ScfComparison, ScfTask, compare_scf, comparison_of
from training.evaluate.summary import summarise
from training.pool import parallel_map

LEVELS_SHOWN: Final = 8
"""Orbital energies stored on each side of the gap."""
LEVEL_QUANTILES: Final = {"best": 0.0, "median": 0.5, "95th percentile": 0.95, "worst": 1.0}
"""Molecules whose levels are stored, by the larger of their HOMO and LUMO errors."""


def evaluate_molecules(
    predictor: Predictor,
    frames: Iterable[Frame],
    split: str,
    *,
    scf: bool,
    processes: int,
    known: Baselines,
    guesses: Sequence[str],
    finished: Finished,
) -> dict[str, Any]:
    """One split; see :func:`training.evaluate.report.evaluate` for arguments and result.

    A structure is finished when its figures are kept, and, with ``scf``, when its runs are.
    """
    shells, parity = ShellErrors(predictor.space), ParityCounts()
    found: list[FrameErrors] = []
    levels: list[dict[str, list[float] | None]] = []
    runs: dict[str, ScfComparison | None] = {}
    tasks: dict[str, ScfTask] = {}
    timed = set(guesses)
    for frame in tqdm(frames, desc=f"matrices, {split}", mininterval=5.0, delay=5.0):
        key = f"{split}/{frame.molecule}/{frame.index}"
        of_run = f"scf/{'+'.join(guesses)}/{key}"
        stored, run = finished.get(key), finished.get(of_run) if scf else None
        runs[of_run] = None if run is None else comparison_of(run["comparison"])
        if run is not None:
            timed -= set(run["known"])
        if stored is None or (scf and run is None):
            # one at a time: batches of 4 to 16 save a tenth of the CPU time, and no frame would have a time of its own
            frame = frame.in_space(predictor.space)
            started = time.process_time()
            prediction = predictor.predict([frame.structure])[0]
            seconds = time.process_time() - started
            stored = stored or finished.put(key, _one(predictor, frame, prediction))
            if scf:
                assert prediction.guess is not None
                density, error = prediction.guess.density_matrix, stored["errors"]["hamiltonian"]
                tasks[of_run] = ScfTask(frame, density, seconds, error, known.known(frame, guesses))
                timed -= set(tasks[of_run].known)
        found.append(FrameErrors(**stored["errors"]))
        shells.add_state(stored["shells"])
        parity.add_state(stored["parity"])
        levels.append(stored["levels"])
    if not found:
        raise DatasetError(f"Split {split!r} has no structures; name another one with --splits.")
    runs |= _run(tasks, predictor, split, processes, known, guesses, finished)
    all_runs = [run for run in runs.values() if run is not None]
    worst_sample = max(found, key=lambda item: item.hamiltonian)
    worst_block = shells.worst()
    return {
        "summary": summarise(found, all_runs, timed=sorted(timed), shells=shells),
        "frames": [asdict(item) for item in found],
        "scf": [asdict(item) for item in all_runs],
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


def _one(predictor: Predictor, frame: Frame, prediction: Prediction) -> dict[str, Any]:
    """What is kept of a structure, JSON-able."""
    solved = Eigenpairs.of(frame, prediction)
    minao = minao_density(build_mole(frame.structure, predictor.space.name))
    errors = frame_errors(frame, prediction, minao=minao, solved=solved)
    shells, parity = ShellErrors(predictor.space), ParityCounts()
    shells.add(frame.structure.numbers, MICROHARTREE_PER_HARTREE * np.abs(prediction.hamiltonian - frame.fock))
    parity.add(frame.fock, prediction.hamiltonian, None if solved.reference is None else prediction.reference)
    sides = {"label": solved.label, "predicted": prediction.orbitals, "h0": solved.reference}
    window = slice(max(0, errors.occupied - LEVELS_SHOWN), errors.occupied + LEVELS_SHOWN)
    return {
        "errors": asdict(errors),
        "shells": shells.state(),
        "parity": parity.state(),
        "levels": {name: None if side is None else side.energies[window].tolist() for name, side in sides.items()},
    }


def _run(
    tasks: Mapping[str, ScfTask],
    predictor: Predictor,
    split: str,
    processes: int,
    known: Baselines,
    guesses: Sequence[str],
    finished: Finished,
) -> dict[str, ScfComparison]:
    if not tasks:
        return {}
    work = partial(compare_scf, xc=predictor.card.xc, basis=predictor.card.basis.name, guesses=tuple(guesses))
    title = f"SCF, {split}"
    done = parallel_map(work, list(tasks.values()), total=len(tasks), processes=processes, title=title, chunk=1)
    runs = {}
    for (key, task), run in zip(tasks.items(), done, strict=True):
        runs[key] = run
        finished.put(key, {"comparison": asdict(run), "known": list(task.known)})
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
