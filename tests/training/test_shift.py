"""Shifts to other functionals: fitted beside a checkpoint, nearer on what they were fitted to, refused where senseless."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from model.checkpoint.shifts import FILE
from model.predictor import Predictor
from training.__main__ import main
from training.data.sources import read_frames
from training.generate.run import Summary
from training.shift import fit
from training.shift.fit import measure
from training.shift.labels import label

DEFAULT = Path(__file__).resolve().parents[2] / "checkpoints" / "default"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fit, "FEWEST", 3)
    copy = tmp_path / "checkpoint"
    shutil.copytree(DEFAULT, copy)
    (copy / FILE).unlink(missing_ok=True)
    return copy


def shift(folder: Path, tiny: Summary, *xc: str, **options: int) -> int:
    rest = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    labels = str(folder.parent / "labels")
    return main(["shift", str(folder), str(tiny.file), "--xc", *xc, "--labels", labels, "--processes", "0", *rest])


def test_a_fit_is_kept_beside_the_weights_and_brings_the_guess_nearer(
    folder: Path, tiny: Summary, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shift(folder, tiny, "hf") == 0
    assert "hf: fitted to 4 molecules; electrons misplaced in 1 others" in capsys.readouterr().out
    predictor = Predictor.load(folder, verify_golden=False)
    shifts = predictor.checkpoint.shifts
    assert shifts is not None
    found = shifts.find("HF")
    assert found is not None
    frames = list(read_frames(tiny.file, ["train"], frames_per_molecule=1))
    labels = [label(frame, "hf", predictor, folder.parent / "labels") for frame in frames]
    before, after = measure([each for each in labels if each is not None], found)
    assert after < 0.25 * before

    made = sorted((folder.parent / "labels" / "hf").iterdir())
    stamps = [path.stat().st_mtime_ns for path in made]
    assert shift(folder, tiny, "pbe", "hf") == 0
    assert [each["xc"] for each in json.loads((folder / FILE).read_text())["functionals"]] == ["hf", "pbe"]
    assert [path.stat().st_mtime_ns for path in made] == stamps, "labels are made once"


@pytest.mark.parametrize(
    ("xc", "options", "said"),
    [
        ("B3LYP", {}, "is the checkpoint's own functional"),
        ("no-such", {}, "PySCF knows no functional 'no-such'"),
        ("hf", {"largest": 4}, "has no molecule of at most 4 orbitals"),
        ("hf", {"molecules": 2}, "Too few molecules converged with hf: 2 of train, 1 of val"),
        ("hf", {"test": 0}, "must be above 0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(
    folder: Path,
    tiny: Summary,
    capsys: pytest.CaptureFixture[str],
    xc: str,
    options: dict[str, int],
    said: str,
) -> None:
    assert shift(folder, tiny, xc, **options) == 1
    assert said in capsys.readouterr().err
    assert not (folder / FILE).exists()
