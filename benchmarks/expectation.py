"""The error to expect of a guess: fitted to held-out molecules, tested on others.

``OMP_NUM_THREADS=1 python benchmarks/expectation.py --data focks.h5 --runs cases.jsonl [--cycles N] [--settings FILE]
[--write] [--record]``. Labels as in ``../shared/data/molecules``. A geometry is a line of the runs file, not predicted again;
``--cycles`` runs N more SCFs of the split it is fitted to, ``--settings`` adds the cycles of guess_settings.py's runs.
``--write`` puts ``expectation.json`` beside the checkpoint's weights, ``--record`` figures and picture in their places.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import scipy.linalg
from ase.build import molecule
from machine import DEFAULT_CHECKPOINT, describe
from recorded import Cell, Column, Table, as_markdown, record

from model.checkpoint.expectation import FILE, Expectation, signs_of
from model.checkpoint.store import save_json
from model.electronic.comparison import density_mixing
from model.integrals.pyscf_molecule import build_mole
from model.predictor import Predictor
from model.structure import Structure
from training.evaluate.scf import run_scf
from training.expectation import Case, fit_expectation, left_out_logs

FITTED: Final = "val"
SPLITS: Final = {
    FITTED: "val, fitted; each molecule as the others tell it",
    "test": "test: up to 7 heavy atoms",
    "ood67": "ood67: 6 to 7, minima",
    "ood": "ood: 8 to 9, never trained on",
}
PICTURE: Final = Path(__file__).parents[1] / "docs" / "pictures" / "expectation.png"
COLUMNS: Final = [
    Column(name="molecules"),
    Column(name="geometries"),
    Column(name="error, mean", digits=5),
    Column(name="expected, mean", digits=5),
    Column(name="typical factor between them", digits=2),
    Column(name="correlation of logarithms", digits=2),
    Column(name="inside the interval", unit="%", digits=0),
]


def main() -> None:
    """Predict what is missing, fit, print, and write if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--cycles", type=int, default=0)
    parser.add_argument("--settings", type=Path, help="runs of guess_settings.py, whose cycles count too")
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    predictor = Predictor.load(chosen.checkpoint, verify_golden=False)
    lines = [json.loads(line) for line in chosen.runs.read_text().splitlines()] if chosen.runs.is_file() else []
    known = {(line["molecule"], line["index"]): line for line in lines}
    for line in predicted(predictor, chosen.data, set(known), known, chosen.cycles):
        known[line["molecule"], line["index"]] = line
        with chosen.runs.open("a") as file:
            file.write(json.dumps(line) + "\n")
    cases = {split: [case_of(line) for line in known.values() if line["split"] == split] for split in SPLITS}
    fitted = cases[FITTED]
    others = [] if chosen.settings is None else with_cycles(predictor, chosen.settings)
    n_cycles, n_molecules = (
        sum(case.cycles_ratio is not None for case in fitted),
        len({case.molecule for case in fitted}),
    )
    text = (
        f"{len(fitted)} geometries of {n_molecules} molecules of up to 7 heavy atoms (H, C, N, O, F; minima and 300-500 K) "
        "that no weight was trained on, though the step of the training was chosen by them; cycles of "
        f"{n_cycles} of these geometries and of {len(others)} molecules of ASE's G2 set"
    )
    found = fit_expectation([*fitted, *others], weights_sha256=predictor.card.weights_sha256, fitted_on=text)
    table = Table(columns=[Column(name="split"), *COLUMNS], rows=[row(found, cases, split) for split in SPLITS])
    print(
        describe(),
        text,
        as_markdown(table),
        found.cycles_intercept,
        found.cycles_slope,
        found.cycles_interval,
        sep="\n",
    )
    if chosen.write:
        save_json(chosen.checkpoint / FILE, found.model_dump())
    if chosen.record:
        draw(found, cases)
        print(record("expectation", tables=[table], spread="none: it repeats", checkpoint=predictor.card.version))


def predicted(
    predictor: Predictor, data: Path, known: set[tuple[str, int]], lines: dict[tuple[str, int], Any], n_cycles: int
) -> Iterator[dict[str, Any]]:
    """Geometries that are not known yet, with signs and error, and some of the fitted split with cycles."""
    with h5py.File(data) as file:
        for name, group in file.items():
            split = str(group.attrs["split"])
            for index in range(len(group["energy"]) if split in SPLITS else 0):
                line = lines.get((name, index))
                wants_cycles = split == FITTED and n_cycles > 0 and index < 2 and not (line and line["cycles"])
                if (name, index) in known and not wants_cycles:
                    continue
                structure = Structure(group["atomic_numbers"][:].astype(int), group["positions"][index])
                item = predictor.prepare(structure)
                answer = predictor.finish(item, predictor.forward([item])[0], orbitals=True, forward_ms=0.0)
                assert answer.guess is not None
                signs = signs_of(item, answer.hamiltonian, answer.guess)
                lower = np.zeros(answer.overlap.shape)
                lower[np.tril_indices(len(lower))] = group["fock_tril"][index]
                _, label = scipy.linalg.eigh(lower + np.tril(lower, -1).T, answer.overlap)
                n = answer.guess.orbitals.n_occupied
                error = density_mixing(answer.guess.density_matrix, answer.overlap, label, n) / np.sqrt(n)
                cycles = None
                if wants_cycles:
                    n_cycles -= 1
                    run = run_scf(build_mole(structure, "def2-svp"), "b3lyp", answer.guess.density_matrix)
                    cycles = run.cycles if run.converged else None
                minao = int(group["cycles_minao"][index])
                about = {"molecule": name, "index": index, "split": split, "minao": minao, "cycles": cycles}
                yield {**about, "error": float(error), "signs": signs}


def with_cycles(predictor: Predictor, runs: Path) -> list[Case]:
    """Molecules of guess_settings.py at the checkpoint's own level, whose errors are not known."""
    found = []
    for line in map(json.loads, runs.read_text().splitlines()):
        if line["setting"] == "B3LYP/def2-SVP" and line["converged"]:
            atoms = molecule(line["molecule"])
            item = predictor.prepare(Structure(atoms.numbers, atoms.positions))
            answer = predictor.finish(item, predictor.forward([item])[0], orbitals=True, forward_ms=0.0)
            assert answer.guess is not None
            signs = signs_of(item, answer.hamiltonian, answer.guess)
            assert signs is not None
            found.append(Case(line["molecule"], signs, None, line["ours"] / line["own"]))
    return found


def case_of(line: dict[str, Any]) -> Case:
    """A line of the runs file."""
    ratio = line["cycles"] / line["minao"] if line["cycles"] else None
    return Case(line["molecule"], line["signs"], line["error"], ratio)


def expected_logs(found: Expectation, cases: Sequence[Case], *, left_out: bool) -> np.ndarray:
    """Logarithms of the expected errors; of molecules that it is fitted to as the fit to the others has them."""
    return left_out_logs(cases) if left_out else np.array([found.log_error(case.signs) for case in cases])


def row(found: Expectation, cases: dict[str, list[Case]], split: str) -> list[Cell]:
    """Of a split, as in ``COLUMNS``."""
    of = cases[split]
    errors = np.array([case.error for case in of], dtype=np.float64)
    logs = expected_logs(found, of, left_out=split == FITTED)
    residual = np.log(errors) - logs
    inside = (residual >= found.interval[0]) & (residual <= found.interval[1])
    figures = [float(errors.mean()), float(np.exp(logs).mean()), float(np.exp(np.sqrt(np.mean(residual**2))))]
    correlation = float(np.corrcoef(logs, np.log(errors))[0, 1])
    count = len({case.molecule for case in of})
    return [SPLITS[split], count, len(of), *figures, correlation, float(100.0 * inside.mean())]


def draw(found: Expectation, cases: dict[str, list[Case]]) -> None:
    """Expected and true error of every geometry, with the interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.4), layout="constrained")
    scatter, coverage = figure.subplots(1, 2)
    ends = np.array([1e-4, 1e-2])
    scatter.plot(ends, ends, color="0.3", linewidth=1)
    scatter.fill_between(ends, ends * np.exp(found.interval[0]), ends * np.exp(found.interval[1]), color="0.9")
    for split, marker in zip(SPLITS, "o^sD", strict=True):
        logs = expected_logs(found, cases[split], left_out=split == FITTED)
        errors = np.array([case.error for case in cases[split]], dtype=np.float64)
        scatter.scatter(
            np.exp(logs), errors, s=14, marker=marker, alpha=0.7, label=SPLITS[split].split(",")[0].split(":")[0]
        )
        ranks = np.sort(np.log(errors) - logs)
        coverage.plot(ranks, np.arange(1, len(ranks) + 1) / len(ranks), label=split)
    scatter.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="expected error", ylabel="true error")
    scatter.legend(frameon=False)
    coverage.axvspan(*found.interval, color="0.9")
    coverage.set(xlabel="log(true error / expected)", ylabel="share of geometries below")
    coverage.axhline(0.05, color="0.6", linewidth=0.7)
    coverage.axhline(0.95, color="0.6", linewidth=0.7)
    coverage.legend(frameon=False)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
