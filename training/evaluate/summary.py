"""Averages, tails and ratios of a split, and the table that people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from training.evaluate.crystal_metrics import CRYSTAL_METRICS
from training.evaluate.errors import ShellErrors
from training.evaluate.metrics import METRICS, SCF_SECTION, Split, measure
from training.evaluate.molecules import FrameErrors
from training.evaluate.scf import GUESSES, ScfComparison

SCF_NAMES: Final = {"guess": "the prediction", "minao": "minao", "1e": "the core Hamiltonian (1e)", "atom": "atoms"}
"""Where an SCF started, for people."""


def summarise(
    found: Sequence[FrameErrors],
    runs: Sequence[ScfComparison],
    *,
    timed: bool | Sequence[str] = True,
    shells: ShellErrors | None = None,
) -> dict[str, float]:
    """Means, medians and worst cases of a split.

    Args:
        found: at least one.
        runs: SCFs of the same frames, or none.
        timed: whether both sides of a time ratio ran now; or the guesses for which they did.
        shells: gathered over the same frames; without it the figures per entry and per block are left out.
    """
    summary = measure(Split(found, shells))
    if runs:
        for guess in GUESSES:
            if guess == "minao" or all(guess in run.others for run in runs):
                with_times = timed if isinstance(timed, bool) else guess in timed
                summary |= scf_ratios(runs, guess, timed=with_times)
    return summary


def scf_ratios(runs: Sequence[ScfComparison], guess: str, *, timed: bool) -> dict[str, float]:
    """SCFs from our density against one of PySCF's guesses; names of other guesses than minao end in theirs.

    ``achieved_ratio``, ``error_level_ratio`` and ``optimal_ratio`` are QH9's, mean and standard deviation over
    molecules, cycles counted from 0 (arXiv:2306.09549, section 5). A molecule whose baseline has none to count, or
    whose log never reached the error level, is left out of that mean, and counted.
    """
    baselines = [run.baseline(guess) for run in runs]
    theirs = np.array([run.cycles for run in baselines], dtype=float)
    ours = np.array([run.guess.cycles for run in runs], dtype=float)
    builds = [float(np.mean([run.fock_builds for run in side])) for side in (baselines, [run.guess for run in runs])]
    end = "" if guess == "minao" else f"_{guess}"
    values: dict[str, float] = {
        f"cycles_{guess}": float(theirs.mean()),
        "cycles_guess": float(ours.mean()),
        f"cycles_ratio{end}": float(ours.mean() / theirs.mean()),
        f"cycles_ratio_mean{end}": float((ours / theirs).mean()),
        f"cycles_worst_difference{end}": float((ours - theirs).max()),
        f"share_worse{end}": float((ours > theirs).mean()),
        f"share_better{end}": float((ours < theirs).mean()),
        f"fock_builds_{guess}": builds[0],
        "fock_builds_guess": builds[1],
        f"fock_builds_ratio{end}": builds[1] / builds[0],
        f"energy_worst_difference_hartree{end}": float(
            max(abs(run.guess.energy - theirs.energy) for run, theirs in zip(runs, baselines, strict=True))
        ),
        "not_converged": float(sum(not run.guess.converged for run in runs)),
    }
    pairs = [(run, other) for run, other in zip(runs, baselines, strict=True) if other.published_cycles > 0]
    achieved = [run.guess.published_cycles / other.published_cycles for run, other in pairs]
    values |= _mean_and_std(f"achieved_ratio_{guess}", achieved)
    values |= _mean_and_std(f"optimal_ratio_{guess}", [1.0 / other.published_cycles for _, other in pairs])
    logged = [(run, other) for run, other in pairs if other.fock_errors]
    reached = [(other.cycles_to(run.error_level), other.published_cycles) for run, other in logged]
    levels = [cycle / total for cycle, total in reached if cycle is not None]
    values |= _mean_and_std(f"error_level_ratio_{guess}", levels)
    if len(levels) < len(runs):
        values[f"error_level_left_out_{guess}"] = float(len(runs) - len(levels))
    if timed:
        seconds = sum(run.seconds for run in baselines)
        prediction = sum(run.guess_seconds for run in runs)
        values[f"cpu_seconds_ratio{end}"] = (sum(run.guess.seconds for run in runs) + prediction) / seconds
        values[f"guess_cpu_seconds_share{end}"] = prediction / seconds
    return values


def _mean_and_std(name: str, values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {name: float(np.mean(values)), f"{name}_std": float(np.std(values))}


def table(report: Mapping[str, Any]) -> str:
    """The summaries as text, a column per split, with what each row means."""
    splits = list(report["splits"])
    present = dict.fromkeys(name for split in splits for name in report["splits"][split]["summary"])
    is_crystal = any("spectra" in report["splits"][split] for split in splits)
    metrics = CRYSTAL_METRICS if is_crystal else METRICS
    meanings = {metric.name: metric.meaning for metric in metrics}
    sections: dict[str, list[str]] = {}
    for metric in metrics:
        if metric.name in present:
            sections.setdefault(metric.section, []).append(metric.name)
    sections[SCF_SECTION] = [name for name in present if name not in meanings]
    width = max(len(name) for name in present) + 4
    lines = [f"{report.get('checkpoint', '')}, weights {str(report.get('weights_sha256', ''))[:16]}"]
    lines.append("".ljust(width) + "".join(split.rjust(12) for split in splits))
    for title, rows in sections.items():
        if not rows:
            continue
        lines += ["", title]
        for name in rows:
            values = [report["splits"][split]["summary"].get(name) for split in splits]
            cells = "".join(("" if value is None else f"{value:.4g}").rjust(12) for value in values)
            meaning = meanings.get(name, "")
            lines.append(f"  {name}".ljust(width) + cells + (f"  {meaning}" if meaning else ""))
    for split in splits:
        worst = report["splits"][split].get("challenging")
        if worst:
            sample, block = worst["sample"], worst["block"]
            kind = "crystal" if is_crystal else "molecule"
            lines += [
                "",
                f"{split}: worst {kind} {sample['molecule']}/{sample['index']} ({sample['smiles']}), "
                f"worst block {block['name']}",
            ]
        for row in report["splits"][split].get("distances", ()):
            near, far = row["from_angstrom"], row["to_angstrom"]
            where = f"{near:.0f} to {far:.0f} Å" if far else "on-site"
            lines.append(f"  {split}, {where}: {row['mae_meV']:.4g} meV over {row['entries']} elements")
        for name, note in report["splits"][split].get("notes", {}).items():
            lines.append(f"  {split}, {name} has no spectra: {note}")
    return "\n".join(lines)
