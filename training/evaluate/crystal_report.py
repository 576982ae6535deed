"""Evaluate a checkpoint on crystals: the same report as of molecules, with its own figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from model.predictor import CrystalPrediction, Predictor
from training.data.sources import DatasetError, Frame
from training.evaluate.crystal_metrics import CRYSTAL_METRICS, CrystalSplit
from training.evaluate.crystals import (
    DISTANCE_BINS,
    DISTANCE_STEP_ANGSTROM,
    CrystalComparison,
    CrystalErrors,
    compare_crystal,
)
from training.evaluate.errors import ShellErrors
from training.evaluate.finished import Finished
from training.evaluate.metrics import measure

QUANTILES: Final = {"best": 0.0, "median": 0.5, "worst": 1.0}
"""Structures whose bands and DOS are kept, by the error of their bands."""


def evaluate_crystals(
    predictor: Predictor,
    frames: Iterable[Frame],
    split: str,
    finished: Finished,
    *,
    n_points: int,
    spectra: bool,
    kinetic_damping: float = 0.0,
) -> dict[str, Any]:
    """One split.

    Args:
        predictor: of crystals.
        frames: of the split.
        split: its name.
        finished: structures that need not be repeated.
        n_points: k-points of the path.
        spectra: diagonalise too.
        kinetic_damping: of predicted H(k), see ``compare_crystal``.

    Returns:
        {"summary", "frames", "scf", "challenging", "shells", "distances", "spectra", "notes"}, JSON-able; energies in meV.
    """
    shells = ShellErrors(predictor.space)
    compare = partial(compare_crystal, n_points=n_points, spectra=spectra, kinetic_damping=kinetic_damping)
    found: list[CrystalErrors] = []
    sums, counts = np.zeros(DISTANCE_BINS), np.zeros(DISTANCE_BINS)
    curves: list[dict[str, Any] | None] = []
    notes: dict[str, str] = {}
    for frame in tqdm(frames, desc=f"crystals, {split}", mininterval=5.0, delay=5.0):
        key = f"{split}/{frame.molecule}/{frame.index}"
        stored = finished.get(key)
        if stored is None:
            stored = finished.put(key, _one(predictor, frame, compare))
        found.append(CrystalErrors(**stored["errors"]))
        shells.add_state(stored["shells"])
        sums, counts = sums + np.array(stored["distances"][0]), counts + np.array(stored["distances"][1])
        curves.append(stored["spectra"])
        if stored["note"]:
            notes[frame.molecule] = stored["note"]
    if not found:
        raise DatasetError(f"Split {split!r} has no structures; name another one with --splits.")
    worst_sample, worst_block = max(found, key=lambda item: item.hamiltonian), shells.worst()
    return {
        "summary": measure(CrystalSplit(found, shells), CRYSTAL_METRICS),
        "frames": [asdict(item) for item in found],
        "scf": [],
        "challenging": {
            "sample": {
                "molecule": worst_sample.molecule,
                "index": worst_sample.index,
                "smiles": worst_sample.formula,
                "mae_meV": worst_sample.hamiltonian,
            },
            "block": {"name": worst_block.name, **asdict(worst_block)},
        },
        "shells": shells.to_json("meV"),
        "distances": [
            {
                "from_angstrom": max(0.0, (place - 1) * DISTANCE_STEP_ANGSTROM),
                "to_angstrom": place * DISTANCE_STEP_ANGSTROM,
                "entries": int(count),
                "mae_meV": float(total / count),
            }
            for place, (total, count) in enumerate(zip(sums, counts, strict=True))
            if count
        ],
        "spectra": _chosen(found, curves),
        "notes": notes,
    }


def _one(
    predictor: Predictor, frame: Frame, compare: Callable[[Frame, CrystalPrediction], CrystalComparison]
) -> dict[str, Any]:
    frame = frame.in_space(predictor.space)
    given = {"overlap": frame.overlap} if frame.overlap is not None else {}
    prediction = predictor.predict_crystals([frame.structure], [given])[0]
    compared = compare(frame, prediction)
    shells = ShellErrors(predictor.space)
    shells.add_blocks(compared.absolute)
    curves = compared.spectra
    return {
        "errors": asdict(compared.errors),
        "shells": shells.state(),
        "distances": [part.tolist() for part in compared.by_distance()],
        "spectra": None if curves is None else {"bands": curves.bands, "dos": curves.dos},
        "note": compared.note,
    }


def _chosen(found: list[CrystalErrors], curves: list[dict[str, Any] | None]) -> list[dict[str, Any]]:
    """Bands and DOS of a few structures from best to worst."""
    ranked = sorted((item.bands_rms or 0.0, place) for place, item in enumerate(found) if curves[place] is not None)
    chosen = {ranked[round(share * (len(ranked) - 1))][1]: rank for rank, share in QUANTILES.items()} if ranked else {}
    return [
        {
            "rank": rank,
            "molecule": found[place].molecule,
            "formula": found[place].formula,
            "bands_rms_meV": found[place].bands_rms,
            "dos_distance": found[place].dos,
            **(curves[place] or {}),
        }
        for place, rank in chosen.items()
    ]
