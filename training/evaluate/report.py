"""Drive an evaluation and write what it found: report.json, table.txt and pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.level import UNKNOWN
from model.predictor import Predictor
from training.atomic import write_json, write_text
from training.data.sources import DatasetError, FrameSource, open_source, read_frames, select
from training.evaluate.crystal_report import evaluate_crystals
from training.evaluate.finished import FILE as FINISHED_FILE
from training.evaluate.finished import Finished
from training.evaluate.molecule_report import evaluate_molecules
from training.evaluate.scf import Baselines
from training.evaluate.summary import table


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
    spectra: bool = True,
    k_points: int = 60,
    kinetic_damping: float | None = None,
    finished: Path | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint of molecules or of crystals.

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
        spectra: of crystals: diagonalise too, for bands, gap, DOS, Fermi level and density.
        k_points: of crystals: along the path of bands.
        kinetic_damping: of crystals' predicted H(k), see ``model.electronic.kinetic_damping``; 0 for none,
            None for the card's.
        finished: file that keeps what has been done, so that the same call goes on where it was stopped; None keeps nothing.

    Returns:
        {"checkpoint", "weights_sha256", "splits": {name: {"summary", "frames", "scf", "challenging", "shells", ...}}},
        JSON-able; of molecules with "parity" and "levels", of crystals with "distances", "spectra" and "notes".

    Raises:
        DatasetError, ModelError: see the reader and the predictor.
    """
    predictor = Predictor.load(folder, device=device)
    take = partial(select, frames_per_molecule=frames_per_molecule, max_molecules=max_molecules)
    _refuse_foreign_labels(predictor, data, splits, take)
    guesses = tuple(dict.fromkeys(["minao", *guesses]))
    known = Baselines(baselines, f"{predictor.card.xc} {predictor.card.basis.name}")
    damping = predictor.card.kinetic_damping if kinetic_damping is None else kinetic_damping
    settings: dict[str, Any] = {"spectra": spectra, "k_points": k_points, "kinetic_damping": damping}
    done = Finished(finished, _evaluated(predictor, data, **settings))
    report: dict[str, Any] = {"checkpoint": predictor.card.name, "weights_sha256": predictor.card.weights_sha256}
    report["splits"] = {}
    for split in splits:
        frames = read_frames(data, [split], frames_per_molecule=frames_per_molecule, max_molecules=max_molecules)
        report["splits"][split] = (
            evaluate_crystals(
                predictor, frames, split, done, n_points=k_points, spectra=spectra, kinetic_damping=damping
            )
            if predictor.model.preparer.pairs.cutoffs_angstrom is not None
            else evaluate_molecules(
                predictor, frames, split, scf=scf, processes=processes, known=known, guesses=guesses, finished=done
            )
        )
    return report


def _evaluated(predictor: Predictor, data: Path, **settings: Any) -> dict[str, Any]:
    """What the figures of a structure depend on."""
    stat = data.stat()
    return {
        "weights_sha256": predictor.card.weights_sha256,
        "data": [str(data.resolve()), stat.st_size, stat.st_mtime_ns],
        **settings,
    }


def _refuse_foreign_labels(
    predictor: Predictor, data: Path, splits: Sequence[str], take: Callable[[FrameSource, str], NDArray[np.int64]]
) -> None:
    """Refuse labels that the checkpoint was not made for, before the work begins.

    Labels of another functional or basis measure the difference of the levels, not the checkpoint.
    """
    card = predictor.card
    with open_source(data) as source:
        level = source.level
        if level.basis == UNKNOWN and card.level.xc == UNKNOWN:  # neither says what it is: as when it was trained
            level = replace(level, basis=card.level.basis)
        found = level.describe_differences(card.level, own=str(data), others=f"checkpoint {card.name!r}")
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
        return [*written, *draw_report(report, path)]
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        return written


def draw_report(report: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the pictures of a report into a folder, which is made.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; it is in the extra ``training``.
    """
    from training.evaluate.plots import draw

    folder.mkdir(parents=True, exist_ok=True)
    return draw(report, folder)


def finished_file(output: Path) -> Path:
    """Where an evaluation with this output keeps what it has done: in the folder, or beside the JSON file."""
    return output.with_suffix(f".{FINISHED_FILE}") if output.suffix == ".json" else output / FINISHED_FILE
