"""Averages, tails and ratios of a split, and the table that people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from training.evaluate.errors import ShellErrors
from training.evaluate.frames import FrameErrors
from training.evaluate.orbitals import INTRUDER_DISTANCE
from training.evaluate.scf import GUESSES, ScfComparison

GROSS_UEH: Final = {"homo": 1e4, "lumo": 2e4, "gap": 2e4}
"""Frontier errors from which on a prediction is grossly wrong, µEh."""

SCF_NAMES: Final = {"guess": "the prediction", "minao": "minao", "1e": "the core Hamiltonian (1e)", "atom": "atoms"}
"""Where an SCF started, for people."""

SECTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "Data": {"frames": "", "molecules": ""},
    "Hamiltonian": {
        "hamiltonian_mae_uEh": "mean |dH| per molecule, then over molecules (QH9)",
        "hamiltonian_diagonal_mae_uEh": "the same, blocks of one atom",
        "hamiltonian_off_diagonal_mae_uEh": "the same, blocks of two atoms",
        "hamiltonian_mae_entries_uEh": "mean over all entries of all molecules",
        "hamiltonian_diagonal_mae_entries_uEh": "",
        "hamiltonian_off_diagonal_mae_entries_uEh": "",
        "hamiltonian_reference_mae_uEh": "H0 alone",
        "challenging_sample_mae_uEh": "the worst molecule",
        "challenging_block_mae_uEh": "the worst shell-pair block (element pair, kind)",
        "error_share_oo": "of the squared error, in the reference's eigenbasis",
        "error_share_ov": "the only part that moves the density",
        "error_share_vv": "",
    },
    "Orbitals": {
        "occupied_energies_mae_uEh": "occupied orbital energies (QH9's eps)",
        "psi_percent": "mean |cos| of occupied orbitals, no overlap (QH9's psi)",
        "psi_overlap_percent": "mean |cos| of occupied orbitals, overlap metric",
        **{
            f"{level}_{kind}_uEh": f"{level.upper() if level != 'gap' else 'gap'}, {meaning}"
            for level in ("homo", "lumo", "gap")
            for kind, meaning in (("mae", "mean"), ("median", "median"), ("p95", "95th percentile"), ("max", "worst"))
        },
        "intruder_rate": "share with a wrong HOMO or LUMO (window distance > 0.7)",
        "intruder_rate_occupied": "share with a wrong HOMO",
        "protected_rate": "share whose guess was protected from an intruder",
        "gross_failure_rate": "share with an intruder, or |HOMO| > 10, |LUMO| or |gap| > 20 mEh",
    },
    "Density": {
        "subspace": "distance of the occupied spaces, mean",
        "subspace_max": "worst; near 1 and above: a wrong orbital is filled",
        "density": "|D_ia| to first order, mean",
        "density_max": "worst",
        "density_per_electron": "over sqrt(occupied orbitals)",
        "density_reference": "H0, to first order",
        "density_reference_per_electron": "",
        "density_exact": "|D_ia| of the predicted density itself",
        "density_exact_per_electron": "",
        "density_exact_max": "worst",
        "density_reference_exact": "H0",
        "density_minao": "minao",
        "density_minao_per_electron": "",
    },
    "Cost of a prediction": {"prediction_ms_median": "wall time, one molecule at a time"},
    "SCF, PySCF's defaults": {},
}
"""Rows of the table: section -> name -> meaning; what is not listed follows at the end."""


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
    summary: dict[str, float] = {"frames": len(found), "molecules": len({item.molecule for item in found})}

    def put(key: str, name: str) -> None:
        """Mean of a field, unless a frame has none."""
        values = [getattr(item, name) for item in found]
        if all(value is not None for value in values):
            summary[key] = float(np.mean(values))

    for name in (
        "hamiltonian",
        "hamiltonian_diagonal",
        "hamiltonian_off_diagonal",
        "hamiltonian_reference",
        "occupied_energies",
    ):
        put(f"{name}_mae_uEh", name)
    if shells is not None:
        names = ("hamiltonian", "hamiltonian_diagonal", "hamiltonian_off_diagonal")
        for name, value in zip(names, shells.entry_means(), strict=True):
            summary[f"{name}_mae_entries_uEh"] = value
        summary["challenging_block_mae_uEh"] = shells.worst().mae
    summary["challenging_sample_mae_uEh"] = max(item.hamiltonian for item in found)
    for part in ("oo", "ov", "vv"):
        put(f"error_share_{part}", f"error_{part}")
    for name in ("homo", "lumo", "gap"):
        errors = np.abs([getattr(item, name) for item in found])
        summary[f"{name}_mae_uEh"] = float(errors.mean())
        summary[f"{name}_median_uEh"] = float(np.median(errors))
        summary[f"{name}_p95_uEh"] = float(np.percentile(errors, 95))
        summary[f"{name}_max_uEh"] = float(errors.max())
    put("psi_percent", "psi")
    put("psi_overlap_percent", "psi_overlap")
    summary["intruder_rate"] = float(np.mean([item.intruder for item in found]))
    summary["protected_rate"] = float(np.mean([item.protected for item in found]))
    summary["intruder_rate_occupied"] = float(np.mean([wrong_homo(item) for item in found]))
    summary["gross_failure_rate"] = float(np.mean([gross(item) for item in found]))
    for name in (
        "subspace",
        "density",
        "density_per_electron",
        "density_reference",
        "density_exact",
        "density_reference_exact",
        "density_minao",
    ):
        put(name, name)
    for name in ("density_reference", "density_exact", "density_minao"):
        if name in summary:
            summary[f"{name}_per_electron"] = float(
                np.mean([getattr(item, name) / np.sqrt(item.occupied) for item in found])
            )
    for name in ("subspace", "density", "density_exact"):
        summary[f"{name}_max"] = float(max(getattr(item, name) for item in found))
    summary["prediction_ms_median"] = float(np.median([item.prediction_ms for item in found]))
    if runs:
        for guess in GUESSES:
            if guess == "minao" or all(guess in run.others for run in runs):
                with_times = timed if isinstance(timed, bool) else guess in timed
                summary |= scf_ratios(runs, guess, timed=with_times)
    return summary


def wrong_homo(item: FrameErrors) -> bool:
    """Whether the HOMO's level is another one: the intruder is among the occupied orbitals."""
    return item.homo_distance > INTRUDER_DISTANCE


def gross(item: FrameErrors) -> bool:
    """Whether a prediction is grossly wrong around the gap."""
    return item.intruder or any(abs(getattr(item, name)) > limit for name, limit in GROSS_UEH.items())


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
    sections = {title: [name for name in rows if name in present] for title, rows in SECTIONS.items()}
    listed = {name for rows in sections.values() for name in rows}
    sections[list(SECTIONS)[-1]] += [name for name in present if name not in listed]
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
            meaning = SECTIONS[title].get(name, "")
            lines.append(f"  {name}".ljust(width) + cells + (f"  {meaning}" if meaning else ""))
    for split in splits:
        worst = report["splits"][split].get("challenging")
        if worst:
            sample, block = worst["sample"], worst["block"]
            lines += [
                "",
                f"{split}: worst molecule {sample['molecule']}/{sample['index']} ({sample['smiles']}), "
                f"worst block {block['name']}",
            ]
    return "\n".join(lines)
