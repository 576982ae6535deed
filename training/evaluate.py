"""``python -m training evaluate``: what a checkpoint is worth on labelled structures, by every figure that matters.

For each frame, against the stored converged Fock matrix F (orbitals C, energies e):

* Hamiltonian error: mean |dH| of all entries, of diagonal blocks and of off-diagonal blocks;
* orbital energies: mean |de| of occupied orbitals, HOMO, LUMO and gap errors (mean, median, largest);
* occupied subspace: sqrt(sum of sin^2 of the principal angles) between predicted and reference occupied space, in the
  overlap metric (degenerate levels do not matter); first-order density error |D_ia|;
* SCF: cycles and Fock builds from the guess, from minao, final energy difference, and seconds, guess included.

SCF runs are PySCF's with default thresholds; Fock builds are counted, not assumed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from model.predictor import Prediction, Predictor
from training.datasets import Frame, read_frames
from training.pool import parallel_map
from training.scf_runs import Baselines, ScfComparison, compare_scf

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class FrameErrors:
    """Errors of one prediction; energies and matrices in µEh (1e-6 hartree)."""

    molecule: str
    index: int
    smiles: str
    heavy_atoms: int
    atoms: int
    orbitals: int
    hamiltonian: float
    hamiltonian_diagonal: float
    hamiltonian_off_diagonal: float
    hamiltonian_reference: float
    occupied_energies: float
    homo: float
    lumo: float
    gap: float
    subspace: float
    density: float
    density_per_electron: float
    density_reference: float
    prediction_ms: float


def frame_errors(frame: Frame, prediction: Prediction) -> FrameErrors:
    """Compare a prediction with a label."""
    difference = 1e6 * np.abs(prediction.hamiltonian - frame.fock)
    atom = np.repeat(np.arange(len(frame.structure)), np.diff(prediction.atom_offsets))
    diagonal = atom[:, None] == atom[None, :]
    energies, orbitals = scipy.linalg.eigh(frame.fock, prediction.overlap)
    n_occupied = frame.structure.n_electrons // 2
    assert prediction.orbitals is not None
    predicted = prediction.orbitals
    d_energies = 1e6 * (predicted.energies - energies[: len(predicted.energies)])
    projection = orbitals[:, :n_occupied].T @ prediction.overlap @ predicted.coefficients[:, :n_occupied]
    has_virtual = n_occupied < len(energies)
    homo = float(d_energies[n_occupied - 1])
    lumo = float(d_energies[n_occupied]) if has_virtual else 0.0
    density = first_order_density(prediction.hamiltonian - frame.fock, energies, orbitals, n_occupied)
    return FrameErrors(
        molecule=frame.molecule,
        index=frame.index,
        smiles=frame.smiles,
        heavy_atoms=frame.heavy_atoms,
        atoms=len(frame.structure),
        orbitals=len(energies),
        hamiltonian=float(difference.mean()),
        hamiltonian_diagonal=float(difference[diagonal].mean()),
        hamiltonian_off_diagonal=float(difference[~diagonal].mean()) if len(frame.structure) > 1 else 0.0,
        hamiltonian_reference=float(1e6 * np.abs(prediction.reference - frame.fock).mean()),
        occupied_energies=float(np.abs(d_energies[:n_occupied]).mean()),
        homo=homo,
        lumo=lumo,
        gap=lumo - homo,
        subspace=float(np.sqrt(max(0.0, n_occupied - np.square(projection).sum()))),
        density=density,
        density_per_electron=density / np.sqrt(n_occupied),
        density_reference=first_order_density(prediction.reference - frame.fock, energies, orbitals, n_occupied),
        prediction_ms=float(sum(prediction.timings_ms.values())),
    )


def first_order_density(error: Matrix, energies: Matrix, orbitals: Matrix, n_occupied: int) -> float:
    """|D_ia| with D_ia = C_i^T dF C_a / (e_a - e_i)."""
    rotated = orbitals[:, :n_occupied].T @ error @ orbitals[:, n_occupied:]
    gaps = energies[None, n_occupied:] - energies[:n_occupied, None]
    return float(np.linalg.norm(rotated / gaps))


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
) -> dict[str, Any]:
    """Evaluate a checkpoint.

    Args:
        folder: checkpoint.
        data: labelled structures.
        splits: of the data file.
        scf: run the SCFs too (minutes for a hundred molecules).
        processes: worker processes for them.
        frames_per_molecule, max_molecules: limits, None for all.
        baselines: file that keeps the runs from minao between evaluations. Their seconds are then of another hour, and
            the time ratios are left out.

    Returns:
        {"splits": {name: {"summary": ..., "frames": [...], "scf": [...]}}, ...}, JSON-able.
    """
    predictor = Predictor.load(folder, device=device)
    report: dict[str, Any] = {"checkpoint": predictor.card.name, "weights_sha256": predictor.card.weights_sha256}
    report["splits"] = {}
    known = Baselines(baselines, f"{predictor.card.xc} {predictor.card.basis.name}")
    for split in splits:
        frames = list(read_frames(data, [split], frames_per_molecule=frames_per_molecule, max_molecules=max_molecules))
        found, items = [], []
        for frame in frames:
            started = time.process_time()
            prediction = predictor.predict([frame.structure])[0]
            seconds = time.process_time() - started
            found.append(frame_errors(frame, prediction))
            assert prediction.guess is not None
            items.append((frame, prediction.guess.density_matrix, seconds, known.get(frame)))
        runs: list[ScfComparison] = []
        if scf:
            work = partial(compare_scf, xc=predictor.card.xc, basis=predictor.card.basis.name)
            done = parallel_map(work, items, total=len(items), processes=processes, title=f"SCF, {split}", chunk=1)
            for frame, run in zip(frames, done, strict=True):
                runs.append(run)
                if known.get(frame) is None:
                    known.put(frame, run.minao)
        report["splits"][split] = {
            "summary": summarise(found, runs, timed=all(item[3] is None for item in items)),
            "frames": [asdict(item) for item in found],
            "scf": [asdict(item) for item in runs],
        }
    return report


def summarise(found: Sequence[FrameErrors], runs: Sequence[ScfComparison], *, timed: bool = True) -> dict[str, float]:
    """Means, medians and worst cases of a split; time ratios only if both sides ran now."""

    def mean(name: str) -> float:
        return float(np.mean([getattr(item, name) for item in found]))

    summary: dict[str, float] = {"frames": len(found), "molecules": len({item.molecule for item in found})}
    for name in (
        "hamiltonian",
        "hamiltonian_diagonal",
        "hamiltonian_off_diagonal",
        "hamiltonian_reference",
        "occupied_energies",
    ):
        summary[f"{name}_mae_uEh"] = mean(name)
    for name in ("homo", "lumo", "gap"):
        errors = np.abs([getattr(item, name) for item in found])
        summary[f"{name}_mae_uEh"] = float(errors.mean())
        summary[f"{name}_median_uEh"] = float(np.median(errors))
        summary[f"{name}_max_uEh"] = float(errors.max())
    for name in ("subspace", "density", "density_per_electron", "density_reference"):
        summary[name] = mean(name)
    summary["density_max"] = float(max(item.density for item in found))
    if runs:
        minao = np.array([run.minao.cycles for run in runs], dtype=float)
        ours = np.array([run.guess.cycles for run in runs], dtype=float)
        summary |= {
            "cycles_minao": float(minao.mean()),
            "cycles_guess": float(ours.mean()),
            "cycles_ratio": float(ours.mean() / minao.mean()),
            "cycles_ratio_mean": float((ours / minao).mean()),
            "cycles_worst_difference": float((ours - minao).max()),
            "share_worse": float((ours > minao).mean()),
            "share_better": float((ours < minao).mean()),
            "fock_builds_ratio": float(
                np.mean([run.guess.fock_builds for run in runs]) / np.mean([run.minao.fock_builds for run in runs])
            ),
            "energy_worst_difference_hartree": float(max(abs(run.guess.energy - run.minao.energy) for run in runs)),
            "not_converged": float(sum(not run.guess.converged for run in runs)),
        }
    if runs and timed:
        minao_seconds = sum(run.minao.seconds for run in runs)
        guess_seconds = sum(run.guess_seconds for run in runs)
        summary["cpu_seconds_ratio"] = (sum(run.guess.seconds for run in runs) + guess_seconds) / minao_seconds
        summary["guess_cpu_seconds_share"] = guess_seconds / minao_seconds
    return summary


def table(report: dict[str, Any]) -> str:
    """The summaries as text, one column per split."""
    splits = list(report["splits"])
    names = list(dict.fromkeys(name for split in splits for name in report["splits"][split]["summary"]))
    width = max(len(name) for name in names) + 2
    lines = ["".ljust(width) + "".join(split.rjust(12) for split in splits)]
    for name in names:
        values = [report["splits"][split]["summary"].get(name) for split in splits]
        lines.append(name.ljust(width) + "".join(("" if v is None else f"{v:.4g}").rjust(12) for v in values))
    return "\n".join(lines)


def write_report(report: dict[str, Any], path: Path) -> None:
    """Report as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
