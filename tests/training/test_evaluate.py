"""The figures of merit: zero for a perfect prediction, known for a known error; SCF runs are counted, not assumed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from model.electronic.eigensolve import Orbitals, density_matrix, solve
from model.electronic.molecule import build_mole, integrals, load_basis
from model.predictor import Prediction
from training.datasets import Frame
from training.evaluate import (
    FrameErrors,
    evaluate,
    frame_errors,
    summarise,
    table,
    write_report,
)
from training.generate import Summary
from training.scf_runs import ScfComparison, ScfRun, run_scf

WATER = 4
"""Index of H2O's first frame in the tiny training set (CH4, H2, H2O, NH3, two frames each)."""


def prediction_of(frame: Frame, hamiltonian: np.ndarray, orbitals: Orbitals | None = None) -> Prediction:
    data = integrals(frame.structure, "def2-svp")
    basis = load_basis("def2-svp", [1, 6, 7, 8, 9])
    return Prediction(
        structure=frame.structure,
        hamiltonian=hamiltonian,
        reference=frame.fock,
        overlap=data.overlap,
        ao_labels=data.ao_labels,
        atom_offsets=tuple(int(i) for i in basis.atom_offsets(frame.structure.numbers.tolist())),
        orbitals=orbitals or solve(hamiltonian, data.overlap, frame.structure.n_electrons),
        guess=None,
        checks=None,
        in_domain=True,
        warnings=(),
        timings_ms={"integrals": 1.0, "forward": 2.0},
    )


@pytest.fixture
def water(tiny_frames: list[Frame]) -> Frame:
    return tiny_frames[WATER]


def test_a_perfect_prediction_has_no_errors(tiny_frames: list[Frame]) -> None:
    for frame in tiny_frames:
        found = dataclasses.asdict(frame_errors(frame, prediction_of(frame, frame.fock)))
        assert found.pop("prediction_ms") == 3.0
        assert (found.pop("atoms"), found.pop("orbitals")) == (len(frame.structure), len(frame.fock))
        for name in ("molecule", "index", "smiles", "heavy_atoms"):
            assert found.pop(name) == getattr(frame, name)
        assert found.pop("subspace") < 1e-6
        assert max(abs(value) for value in found.values()) < 1e-6, found


def test_a_shift_of_all_levels_moves_energies_but_no_density(water: Frame) -> None:
    """F + s S has the orbitals of F and every level higher by s."""
    shift = 1e-3
    overlap = integrals(water.structure, "def2-svp").overlap
    found = frame_errors(water, prediction_of(water, water.fock + shift * overlap))
    assert found.homo == pytest.approx(1e6 * shift, rel=1e-6)
    assert found.lumo == pytest.approx(1e6 * shift, rel=1e-6)
    assert found.occupied_energies == pytest.approx(1e6 * shift, rel=1e-6)
    assert abs(found.gap) < 1e-3
    assert found.hamiltonian == pytest.approx(1e6 * shift * np.abs(overlap).mean(), rel=1e-6)
    assert max(found.subspace, found.density) < 1e-6


def test_a_known_rotation_of_two_orbitals_is_the_subspace_error(water: Frame) -> None:
    """HOMO and LUMO mixed by an angle: one principal angle, so the error is its sine."""
    overlap = integrals(water.structure, "def2-svp").overlap
    energies, orbitals = scipy.linalg.eigh(water.fock, overlap)
    n_occupied, angle = water.structure.n_electrons // 2, 0.1
    mixed = orbitals.copy()
    mixed[:, n_occupied - 1] = np.cos(angle) * orbitals[:, n_occupied - 1] + np.sin(angle) * orbitals[:, n_occupied]
    mixed[:, n_occupied] = np.cos(angle) * orbitals[:, n_occupied] - np.sin(angle) * orbitals[:, n_occupied - 1]
    occupations = np.where(np.arange(len(energies)) < n_occupied, 2.0, 0.0)
    found = frame_errors(water, prediction_of(water, water.fock, Orbitals(energies, mixed, occupations)))
    assert found.subspace == pytest.approx(np.sin(angle), rel=1e-6)


def test_diagonal_and_off_diagonal_blocks_make_up_the_whole(water: Frame, rng: np.random.Generator) -> None:
    noise = 1e-4 * rng.normal(size=water.fock.shape)
    found = frame_errors(water, prediction_of(water, water.fock + noise + noise.T))
    sizes = np.array([14, 5, 5])
    share = (sizes**2).sum() / sizes.sum() ** 2
    whole = share * found.hamiltonian_diagonal + (1 - share) * found.hamiltonian_off_diagonal
    assert found.hamiltonian == pytest.approx(whole, rel=1e-9)


def test_fock_builds_are_cycles_and_two(water: Frame) -> None:
    """One build for the guess, one a cycle, one after the extra diagonalisation."""
    mole = build_mole(water.structure, "def2-svp")
    minao = run_scf(mole, "b3lyp", None)
    overlap = integrals(water.structure, "def2-svp").overlap
    ready = density_matrix(solve(water.fock, overlap, water.structure.n_electrons))
    guess = run_scf(mole, "b3lyp", ready)
    for run in (minao, guess):
        assert run.converged
        assert run.fock_builds == run.cycles + 2
        assert run.energy == pytest.approx(water.energy, abs=1e-7)
    assert minao.cycles == water.cycles_minao
    assert guess.cycles <= 3 < minao.cycles


def test_a_summary_of_known_errors() -> None:
    template = FrameErrors("a", 0, "", 1, 3, 24, *[0.0] * 13)
    found = [
        dataclasses.replace(template, molecule=name, index=index, homo=homo, density=abs(homo), hamiltonian=abs(homo))
        for name, index, homo in (("a", 0, -1.0), ("a", 1, 2.0), ("b", 0, 6.0))
    ]

    def compared(minao: int, guess: int) -> ScfComparison:
        run = ScfRun(minao, minao + 2, 10.0, -1.0, True)
        other = dataclasses.replace(run, cycles=guess, fock_builds=guess + 2, seconds=4.0, energy=-1.0 + 1e-9)
        return ScfComparison("a", 0, run, other, 1.0)

    runs = [compared(10, 5), compared(8, 8), compared(6, 8)]
    values = summarise(found, runs)
    assert (values["frames"], values["molecules"]) == (3, 2)
    assert values["homo_mae_uEh"] == pytest.approx(3.0)
    assert (values["homo_median_uEh"], values["homo_max_uEh"], values["density_max"]) == (2.0, 6.0, 6.0)
    assert values["cycles_ratio"] == pytest.approx(21 / 24)
    assert values["cycles_ratio_mean"] == pytest.approx((0.5 + 1 + 8 / 6) / 3)
    assert values["fock_builds_ratio"] == pytest.approx(27 / 30)
    assert (values["share_worse"], values["share_better"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert values["cycles_worst_difference"] == 2
    assert values["cpu_seconds_ratio"] == pytest.approx(15 / 30), "the guess's own cost is counted"
    assert values["energy_worst_difference_hartree"] == pytest.approx(1e-9, rel=1e-3)
    assert not [name for name in summarise(found, []) if name.startswith(("cycles", "share", "cpu"))]


def test_evaluation_of_a_checkpoint(tiny_checkpoint: Path, tiny: Summary, tmp_path: Path) -> None:
    """Random weights: nothing is good, but every figure is there, and runs from minao are kept and used again."""
    report = evaluate(
        tiny_checkpoint, tiny.file, ["val"], scf=True, processes=0, frames_per_molecule=1, baselines=tmp_path / "b.json"
    )
    part = report["splits"]["val"]
    assert [frame["smiles"] for frame in part["frames"]] == ["HF"]
    assert part["scf"][0]["minao"]["fock_builds"] == part["scf"][0]["minao"]["cycles"] + 2
    assert "cpu_seconds_ratio" in part["summary"]
    write_report(report, tmp_path / "deep" / "report.json")
    assert json.loads((tmp_path / "deep" / "report.json").read_text())["weights_sha256"] == report["weights_sha256"]
    assert "hamiltonian_mae_uEh" in table(report)

    again = evaluate(
        tiny_checkpoint, tiny.file, ["val"], scf=True, processes=0, frames_per_molecule=1, baselines=tmp_path / "b.json"
    )["splits"]["val"]
    assert again["scf"][0]["minao"] == part["scf"][0]["minao"]
    assert "cpu_seconds_ratio" not in again["summary"], "seconds of two different hours are not compared"
