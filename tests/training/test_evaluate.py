"""The figures of merit: zero for a perfect prediction, known for a known error; SCF runs are counted, not assumed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.linalg

from model.electronic.solve import Orbitals, density_matrix, solve
from model.integrals.pyscf_molecule import build_mole, integrals, load_basis
from model.predictor import Prediction
from training.__main__ import main
from training.data.sources import DatasetError, Frame
from training.evaluate.molecules import FrameErrors, frame_errors
from training.evaluate.plots import draw
from training.evaluate.report import evaluate, write_report
from training.evaluate.scf import ScfComparison, ScfTask, compare_scf, run_scf
from training.evaluate.summary import summarise, table
from training.generate.run import Summary

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
        ao_labels=data.labels,
        space=basis,
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
        assert found.pop("occupied") == frame.structure.n_electrons // 2
        for name in ("molecule", "index", "smiles", "heavy_atoms"):
            assert found.pop(name) == getattr(frame, name)
        assert found.pop("density_minao") is None, "nobody gave a minao density"
        assert found.pop("intruder") is False
        assert found.pop("psi") == pytest.approx(100.0)
        assert found.pop("psi_overlap") == pytest.approx(100.0)
        for name in ("subspace", "homo_distance", "lumo_distance"):
            assert found.pop(name) < 1e-6
        assert max(abs(value) for value in found.values()) < 1e-6, found


def test_without_a_reference_its_figures_are_left_out(water: Frame) -> None:
    """A checkpoint that predicts all of H has H0 = 0, which is nobody's Hamiltonian."""
    bare = dataclasses.replace(prediction_of(water, water.fock), reference=np.zeros_like(water.fock))
    found = frame_errors(water, bare)
    assert (found.hamiltonian_reference, found.density_reference, found.density_reference_exact) == (None, None, None)
    assert not [name for name in summarise([found], []) if "reference" in name]


def test_a_level_pulled_below_the_lumo_is_an_intruder(water: Frame) -> None:
    """An empty orbital moved under the LUMO: the virtual-virtual block is wrong alone, the density is perfect."""
    overlap = integrals(water.structure, "def2-svp").overlap
    energies, orbitals = scipy.linalg.eigh(water.fock, overlap)
    n = water.structure.n_electrons // 2
    vector = overlap @ orbitals[:, n + 4]
    shift = energies[n] - 0.05 - energies[n + 4]
    found = frame_errors(water, prediction_of(water, water.fock + shift * np.outer(vector, vector)))
    assert found.intruder
    assert found.lumo_distance == pytest.approx(1.0)
    assert found.homo_distance < 1e-6
    assert found.lumo == pytest.approx(-5e4, rel=1e-6)
    assert found.error_vv == pytest.approx(1.0)
    assert max(found.density, found.density_exact) < 1e-6
    values = summarise([found], [])
    assert (values["intruder_rate"], values["intruder_rate_occupied"], values["gross_failure_rate"]) == (1.0, 0.0, 1.0)


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
    names = [field.name for field in dataclasses.fields(FrameErrors)]
    template = FrameErrors(**(dict.fromkeys(names, 0.0) | {"molecule": "a", "smiles": "", "intruder": False}))  # type: ignore[arg-type]
    template = dataclasses.replace(template, occupied=4, density_minao=2.0)
    found = [
        dataclasses.replace(template, molecule=name, index=index, homo=homo, density=abs(homo), hamiltonian=abs(homo))
        for name, index, homo in (("a", 0, -1.0), ("a", 1, 2.0), ("b", 0, 6.0))
    ]
    values = summarise(found, [])
    assert (values["frames"], values["molecules"]) == (3, 2)
    assert values["homo_mae_uEh"] == pytest.approx(3.0)
    assert (values["homo_median_uEh"], values["homo_max_uEh"], values["density_max"]) == (2.0, 6.0, 6.0)
    assert values["homo_p95_uEh"] == pytest.approx(np.percentile([1.0, 2.0, 6.0], 95))
    assert values["challenging_sample_mae_uEh"] == 6.0
    assert values["density_minao_per_electron"] == 1.0
    assert values["gross_failure_rate"] == 0.0
    bad = [*found, dataclasses.replace(template, gap=-2.5e4)]
    assert summarise(bad, [])["gross_failure_rate"] == 0.25
    assert summarise([*found, dataclasses.replace(template, density_minao=None)], []).get("density_minao") is None
    assert not [name for name in values if name.startswith(("cycles", "share", "cpu", "achieved"))]


@pytest.fixture(scope="module")
def evaluated(tiny_checkpoint: Path, tiny: Summary, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """The random checkpoint on one HF frame with SCFs, and the file that keeps minao's."""
    kept = tmp_path_factory.mktemp("evaluated") / "b.json"
    report = evaluate(
        tiny_checkpoint,
        tiny.file,
        ["val"],
        scf=True,
        processes=0,
        frames_per_molecule=1,
        baselines=kept,
        guesses=["1e"],
    )
    return report, kept


def test_evaluation_of_a_checkpoint(
    evaluated: tuple[dict, Path], tiny_checkpoint: Path, tiny: Summary, tmp_path: Path
) -> None:
    """Random weights: nothing is good, but every figure is there, and runs from minao are kept and used again."""
    report, kept = evaluated
    part = report["splits"]["val"]
    assert [frame["smiles"] for frame in part["frames"]] == ["HF"]
    run = part["scf"][0]
    assert run["minao"]["fock_builds"] == run["minao"]["cycles"] + 2
    assert len(run["minao"]["fock_errors"]) == run["minao"]["cycles"]
    assert run["others"]["1e"]["energy"] == pytest.approx(run["minao"]["energy"], abs=1e-7)
    summary = part["summary"]
    assert {"cpu_seconds_ratio", "cycles_1e", "achieved_ratio_minao", "achieved_ratio_1e"} <= set(summary)
    assert summary["challenging_sample_mae_uEh"] == part["challenging"]["sample"]["mae_uEh"] == run["error_level"]
    assert summary["challenging_block_mae_uEh"] == part["challenging"]["block"]["mae"]
    assert summary["hamiltonian_mae_entries_uEh"] == pytest.approx(summary["hamiltonian_mae_uEh"]), "one frame"
    assert summary["density_minao"] > 0.0
    assert {"density_reference", "density_reference_exact", "psi_percent", "intruder_rate"} <= set(summary)

    again = evaluate(tiny_checkpoint, tiny.file, ["val"], scf=True, processes=0, frames_per_molecule=1, baselines=kept)[
        "splits"
    ]["val"]
    assert again["scf"][0]["minao"] == run["minao"]
    assert again["scf"][0]["others"] == {}, "only what was asked for"
    assert "cpu_seconds_ratio" not in again["summary"], "seconds of two different hours are not compared"


def test_a_stopped_evaluation_goes_on(
    tiny_checkpoint: Path, tiny: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first structure's figures and SCF are there when the second one's SCF is stopped; the rest is done once."""
    file = tmp_path / "finished.jsonl"
    tried: list[int] = []

    def once(task: ScfTask, **settings: Any) -> ScfComparison:
        tried.append(task.frame.index)
        if len(tried) == 2:
            raise KeyboardInterrupt
        return compare_scf(task, **settings)

    def run(path: Path | None) -> dict[str, Any]:
        return evaluate(tiny_checkpoint, tiny.file, ["val"], scf=True, processes=0, finished=path)["splits"]["val"]

    monkeypatch.setattr("training.evaluate.molecule_report.compare_scf", once)
    with pytest.raises(KeyboardInterrupt):
        run(file)
    file.write_text(file.read_text() + '{"key": "val/x", "val')  # a line that a kill cut off
    found = run(file)
    assert len(tried) == 3, "one SCF, one that was stopped, and that one again"
    assert [item["index"] for item in found["scf"]] == [item["index"] for item in found["frames"]] == [0, 1]

    def never(*arguments: object, **settings: object) -> None:
        raise AssertionError("everything was finished")

    for name in ("compare_scf", "frame_errors"):
        monkeypatch.setattr(f"training.evaluate.molecule_report.{name}", never)
    assert run(file) == found
    with pytest.raises(AssertionError, match="finished"):
        run(None)


def test_a_report_as_one_file(evaluated: tuple[dict, Path], tmp_path: Path) -> None:
    report, _ = evaluated
    assert write_report(report, tmp_path / "deep" / "report.json") == [tmp_path / "deep" / "report.json"]
    assert json.loads((tmp_path / "deep" / "report.json").read_text())["weights_sha256"] == report["weights_sha256"]
    text = table(report)
    for name in report["splits"]["val"]["summary"]:
        assert f"  {name} " in text, "the table leaves nothing out"
    assert f"(HF), worst block {report['splits']['val']['challenging']['block']['name']}" in text


def test_a_report_as_a_folder_has_pictures(evaluated: tuple[dict, Path], tmp_path: Path) -> None:
    report, _ = evaluated
    written = write_report(report, tmp_path / "out")
    assert sorted(path.name for path in written) == [
        "blocks-val.png",
        "cycles-val.png",
        "levels-val.png",
        "parity-val.png",
        "report.json",
        "table.txt",
    ]
    for path in written:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    before = (tmp_path / "out" / "levels-val.png").read_bytes()
    draw(stored, tmp_path / "out")
    assert (tmp_path / "out" / "levels-val.png").read_bytes() == before, "drawn from the stored report alone"


def test_without_matplotlib_there_is_everything_but_pictures(
    evaluated: tuple[dict, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "training.evaluate.plots", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    written = write_report(evaluated[0], tmp_path)
    assert [path.name for path in written] == ["report.json", "table.txt"]


def test_the_command_writes_a_folder(
    tiny: Summary, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "figures"
    assert (
        main(["evaluate", str(tiny_checkpoint), str(tiny.file), "--splits", "val", "--no-scf", "-o", str(output)]) == 0
    )
    said = capsys.readouterr().out
    for name in ("report.json", "table.txt", "parity-val.png"):
        assert (output / name).is_file()
        assert str(output / name) in said
    assert not (output / "cycles-val.png").exists(), "no SCF, no cycles"


def test_charges_that_the_checkpoint_does_not_know_are_refused(
    tiny: Summary, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    other = tmp_path / "ions.h5"
    shutil.copy(tiny.file, other)
    with h5py.File(other, "a") as file:
        for group in file.values():
            if group.attrs["split"] == "train":
                group.attrs["charge"] = 2
    with pytest.raises(DatasetError, match=r"Split 'train' of .* has charge 2; checkpoint 'tiny' is for charge 0\."):
        evaluate(tiny_checkpoint, other, ["val", "train"], scf=False, processes=0)
    assert evaluate(tiny_checkpoint, other, ["val"], scf=False, processes=0)["splits"]["val"]["summary"]["frames"] == 2


def test_labels_of_another_level_are_refused(tiny: Summary, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A b3lyp5 or PBE set measures the difference of the functionals, not the checkpoint."""
    other = tmp_path / "pbe.h5"
    shutil.copy(tiny.file, other)
    with h5py.File(other, "a") as file:
        file.attrs["xc"] = "pbe"
    with pytest.raises(DatasetError, match=r"xc is pbe .* b3lyp in checkpoint"):
        evaluate(tiny_checkpoint, other, ["val"], scf=False, processes=0)
