"""Crystals: figures are zero for a perfect prediction and for one with another zero of energy, and known for known errors."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from model.blocks.block_set import BlockSet
from model.blocks.gauge import gauge_shift, shifted
from model.blocks.matrices import cut_matrix
from model.electronic.fermi import FermiLevel
from model.formats.deeph import write_deeph
from model.formats.matrices import Matrices
from model.integrals.pyscf_crystal import CrystalIntegrals, PySCFCrystal
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.predictor import CrystalPrediction, Predictor
from model.structure import Structure
from tests.model.test_crystals import CUTOFFS, sheet, space, structure_of, write_checkpoint
from training.__main__ import main
from training.data.sources import DatasetError, Frame
from training.evaluate.crystals import CrystalComparison, compare_crystal
from training.evaluate.errors import ShellErrors
from training.evaluate.spectra import WINDOW_EV, _misplaced, compare_spectra

RNG = np.random.default_rng(3)
ZERO = 1e-6


def labelled(seed: int) -> Frame:
    """A shaken sheet of boron nitride: PySCF's overlap, and a made-up H with boron's orbitals above nitrogen's."""
    structure = structure_of(sheet(seed))
    pairs = PairList.within(structure, lambda a, b: 6.0)
    overlap = PySCFCrystal(space()).integrals(structure, pairs, {}).overlap
    assert isinstance(overlap, BlockSet)
    rng = np.random.default_rng(seed)
    sizes = np.diff(overlap.starts)
    on_site = (pairs.first == pairs.second) & ~pairs.shift.any(axis=1)
    levels = np.repeat(on_site * np.where(structure.numbers[pairs.first] == 5, 0.07, -0.07), sizes)
    noise = 0.01 * rng.normal(size=overlap.values.shape) * np.exp(-np.repeat(pairs.distances_angstrom, sizes))
    h = overlap.with_values((levels - 0.6) * overlap.values + noise).hermitised()
    return Frame(f"bn{seed}", 0, structure, h, overlap, fermi_energy_hartree=0.0)


@pytest.fixture(scope="module")
def frame() -> Frame:
    return labelled(1)


def in_gauge(blocks: BlockSet, overlap: BlockSet) -> BlockSet:
    return shifted(blocks, overlap, -gauge_shift(blocks, overlap))


class NoIntegrals:
    warnings = ()


def compared(frame: Frame, predicted: BlockSet) -> CrystalComparison:
    prediction = CrystalPrediction(frame.structure, predicted, NoIntegrals(), True, (), {"forward": 2.0})  # type: ignore[arg-type]
    return compare_crystal(frame, prediction, n_points=12)


def test_perfect_and_with_another_zero(frame: Frame) -> None:
    assert frame.overlap is not None
    for mu in (0.0, 0.7):
        moved = frame.hamiltonian.with_values(frame.hamiltonian.values + mu * frame.overlap.values)
        errors = asdict(compared(frame, moved).errors)
        assert errors["zero"] == pytest.approx(27211.386 * mu, rel=1e-6)
        for name in ("hamiltonian", "hamiltonian_rms", "on_site", "off_site", "bands_rms", "bands_max", "gap", "fermi"):
            assert abs(errors[name]) < ZERO, name
        assert max(errors["density"], errors["dos"]) < 1e-9


def test_known_errors_of_elements(frame: Frame) -> None:
    """On-site and off-site means, distances and the map, against sums over dense matrices."""
    error = frame.hamiltonian.with_values(1e-4 * RNG.normal(size=frame.hamiltonian.values.shape)).hermitised()
    assert frame.overlap is not None
    error = in_gauge(error, frame.overlap)
    found = compared(frame, frame.hamiltonian.with_values(frame.hamiltonian.values + error.values))
    size = 27211.386 * np.abs(error.values[0])
    pairs = error.pairs
    on_site = np.repeat((pairs.first == pairs.second) & ~pairs.shift.any(axis=1), np.diff(error.starts))
    assert found.errors.hamiltonian == pytest.approx(size.mean(), rel=1e-6)
    assert found.errors.on_site == pytest.approx(size[on_site].mean(), rel=1e-6)
    assert found.errors.off_site == pytest.approx(size[~on_site].mean(), rel=1e-6)
    sums, counts = found.by_distance()
    assert sums.sum() == pytest.approx(size.sum(), rel=1e-6)
    assert counts[0] == on_site.sum()
    distances = np.repeat(pairs.distances_angstrom, np.diff(error.starts))
    second = ~on_site & (distances >= 2.0) & (distances < 3.0)
    assert sums[3] / counts[3] == pytest.approx(size[second].mean(), rel=1e-6)
    shells = ShellErrors(space())
    shells.add_blocks(found.absolute)
    assert shells.entry_means() == pytest.approx(
        (found.errors.hamiltonian, found.errors.on_site, found.errors.off_site), rel=1e-9
    )
    again = ShellErrors(space())
    again.add_state(json.loads(json.dumps(shells.state())))
    assert again.to_json("meV") == shells.to_json("meV")


def test_the_map_of_blocks_is_that_of_a_matrix() -> None:
    """Of atoms without neighbours in other cells, blocks and dense matrix are one thing."""
    numbers = np.array([5, 7, 7, 5])
    structure = Structure(numbers, np.array([[0.0, 0, 0], [1.4, 0, 0], [0, 1.5, 0.2], [1.5, 1.5, 0.9]]))
    dense = np.abs(RNG.normal(size=(16, 16)))
    whole, blocks = ShellErrors(space()), ShellErrors(space())
    whole.add(numbers, dense)
    blocks.add_blocks(cut_matrix(space(), numbers, PairList.complete(structure), dense))
    assert np.allclose(whole.sums, blocks.sums)
    assert np.array_equal(whole.counts, blocks.counts)


def test_stretched_levels(frame: Frame) -> None:
    """(1 + x) H moves every level by x times its distance from the zero, the gap by x of it, and no electron."""
    assert frame.overlap is not None
    fixed = in_gauge(frame.hamiltonian, frame.overlap)
    stretched = fixed.with_values(1.01 * fixed.values)
    found = compare_spectra(frame.structure, fixed, stretched, frame.overlap, 8.0, 12).errors
    assert found.gap_label is not None
    assert found.gap_label > 100.0, "a gap to speak of"
    assert found.gap == pytest.approx(0.01 * found.gap_label, rel=1e-9)
    assert found.bands_max is not None
    assert 0.0 < found.bands_max <= 10.0 * WINDOW_EV + 0.005 * found.gap_label + 1e-9
    assert found.density < 1e-9
    assert 0.0 < found.dos < 0.5


def test_electrons_in_wrong_places() -> None:
    """An occupied orbital turned by an angle t into an empty one: 2 sin t electrons; wholly wrong: 2."""
    level = FermiLevel(0.0, 1.0, False, -0.5, 0.5)
    energies = np.array([-0.5, 0.5])
    for angle in (0.0, 0.3, np.pi / 2):
        turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        mesh = [(None, [[(energies, np.eye(2))]]), (None, [[(energies, turned)]])]
        found = _misplaced(mesh, [level, level], np.ones(1), 2)  # type: ignore[arg-type]
        assert found == pytest.approx(2 * np.sin(angle), abs=1e-12)


def test_spinors_count_every_complex_element(frame: Frame) -> None:
    """|dH| is the modulus, and the mean runs over all four spin parts."""
    values = frame.hamiltonian.values
    spinor = replace(
        frame.hamiltonian, spin="spinor", values=np.concatenate([values, 0 * values, 0 * values, values]) + 0j
    )
    error = np.zeros_like(spinor.values)
    error[1] = 3e-3 + 4e-3j
    error[2] = 0.0
    found = compared(replace(frame, hamiltonian=spinor), spinor.with_values(spinor.values + error))
    assert found.errors.hamiltonian == pytest.approx(27211.386 * 5e-3 / 4, rel=1e-6)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("crystal") / "bn")


@pytest.fixture(scope="module")
def data(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sheets whose labels are the model's own answers with noise of a hundredth."""
    folder = tmp_path_factory.mktemp("labels")
    predictor = Predictor.load(checkpoint, verify_golden=False)
    for seed in range(5):
        structure = structure_of(sheet(seed))
        predicted = predictor.predict_crystals([structure])[0]
        overlap = predicted.integrals.overlap
        assert isinstance(overlap, BlockSet)
        rng = np.random.default_rng(seed)
        values = predicted.hamiltonian.values * (1 + 0.01 * rng.normal(size=predicted.hamiltonian.values.shape))
        label = predicted.hamiltonian.with_values(values).hermitised()
        write_deeph(Matrices(structure, label, overlap, fermi_energy=0.0), folder / f"{seed}")
    (folder / "level.json").write_text(json.dumps({"xc": "b3lyp", "basis": "gth-szv"}))
    return folder


def test_the_command_reports_draws_and_goes_on(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(CUTOFFS) == {"B-B", "B-N", "N-N"}
    command = [
        "evaluate",
        str(checkpoint),
        str(data),
        "--splits",
        "train",
        "test",
        "-o",
        str(tmp_path),
        "--k-points",
        "12",
    ]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "challenging_block_mae_meV" in text
    assert "on-site: " in text
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["splits"]["train"]["summary"]["frames"] == 3
    summary = report["splits"]["test"]["summary"]
    assert 0.0 < summary["hamiltonian_mae_meV"] < summary["challenging_block_mae_meV"]
    assert summary["challenging_block_mae_meV"] <= summary["worst_block_mae_meV"]
    for split in ("train", "test"):
        for name in ("blocks", "bands", "dos"):
            assert (tmp_path / f"{name}-{split}.png").stat().st_size > 5000

    def never(*arguments: object, **settings: object) -> None:
        raise AssertionError("everything was finished")

    monkeypatch.setattr("training.evaluate.crystal_report.compare_crystal", never)
    assert main([*command, "--plots", str(tmp_path / "pictures")]) == 0
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert len(list((tmp_path / "pictures").iterdir())) == 6
    for other in (["--k-points", "13"], ["--kinetic-damping", "0.02"]):
        with pytest.raises(AssertionError, match="finished"):
            main([*command, *other])


def test_pictures_for_the_docs(checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import crystal_pictures

    words = [
        "crystal_pictures.py",
        str(checkpoint),
        str(data),
        "--points",
        "40",
        "--output",
        str(tmp_path / "pictures"),
    ]
    monkeypatch.setattr("sys.argv", words)
    crystal_pictures.main()
    drawn = {path.name.split("-")[0] for path in (tmp_path / "pictures").iterdir()}
    assert drawn == {"bands", "dos"}
    monkeypatch.setattr("sys.argv", [*words, "--structures", "none"])
    with pytest.raises(DatasetError, match="no structure 'none'"):
        crystal_pictures.main()


def test_an_insulator_has_levels_at_its_edges(frame: Frame) -> None:
    """With a gap wider than the window, too."""
    assert frame.overlap is not None
    fixed = in_gauge(frame.hamiltonian, frame.overlap)
    wide = fixed.with_values(6.0 * fixed.values)
    found = compare_spectra(frame.structure, wide, wide.with_values(1.001 * wide.values), frame.overlap, 8.0, 12).errors
    assert found.gap_label is not None
    assert found.gap_label > 2e3 * WINDOW_EV
    assert found.bands_rms is not None
    assert found.bands_rms > 0.5e-3 * found.gap_label * 0.9, "half the gap is stretched by a thousandth"


def test_labels_that_state_no_level(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    """They are those of a checkpoint that was trained on such labels, and of no other."""
    labels, unstated = tmp_path / "labels", tmp_path / "unstated"
    shutil.copytree(data, labels)
    (labels / "level.json").unlink()
    shutil.copytree(checkpoint, unstated)
    card = json.loads((unstated / "card.json").read_text())
    (unstated / "card.json").write_text(json.dumps(card | {"xc": "unknown"}))
    words = ["--splits", "test", "--no-spectra"]
    assert main(["evaluate", str(unstated), str(labels), *words]) == 0
    assert main(["evaluate", str(checkpoint), str(labels), *words]) == 1


def test_a_ghost_of_a_prediction_is_damped(frame: Frame) -> None:
    """An error of H of some meV that makes a ghost band; the label's own spectrum is what it was."""
    double_zeta = OrbitalSpace("gth-dzvp-molopt-sr", {5: (0, 0, 1, 1, 2), 7: (0, 0, 1, 1, 2)}, valence={5: 3, 7: 5})
    known = CrystalIntegrals(frame.structure, PairList.within(frame.structure, lambda a, b: 10.0), double_zeta)
    label = known.kinetic.with_values(known.kinetic.values - 0.4 * known.overlap.values)
    rng = np.random.default_rng(0)
    sizes = 1e-3 * np.repeat(np.exp(-label.pairs.distances_angstrom / 2), np.diff(label.starts))
    wrong = label.with_values(label.values + sizes * rng.normal(size=label.values.shape)).hermitised()
    own = replace(frame, hamiltonian=label, overlap=known.overlap)
    prediction = CrystalPrediction(frame.structure, wrong, known, True, (), {"forward": 2.0})
    raw, damped = (compare_crystal(own, prediction, n_points=12, kinetic_damping=delta).errors for delta in (0.0, 0.02))
    assert raw.gap_label == damped.gap_label
    assert raw.hamiltonian == damped.hamiltonian, "blocks are not changed"
    assert raw.bands_rms is not None
    assert damped.bands_rms is not None
    assert damped.bands_rms < 0.3 * raw.bands_rms
    given = replace(prediction, integrals=NoIntegrals())  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="leave out --kinetic-damping"):
        compare_crystal(own, given, n_points=12, kinetic_damping=0.02)
