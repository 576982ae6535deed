"""``python -m training``: exit codes and what is said on the way out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase.io import write

from training.__main__ import main
from training.data.sources import read_frames
from training.fit.config import RunConfig
from training.generate.run import Summary

from .conftest import displaced, write_recipe, write_run


def test_generate_then_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "h2.xyz", displaced("H2", 1), format="extxyz")
    assert main(["generate", str(write_recipe(tmp_path, '[structures]\nfiles = ["h2.xyz"]'))]) == 0
    assert "1 frames of 1 molecules" in capsys.readouterr().out
    run = write_run(tmp_path, tmp_path / "data" / "focks.h5")
    assert main(["fit", str(run), "--until-step", "1"]) == 0
    assert (tmp_path / "run" / "state.safetensors").is_file()
    capsys.readouterr()
    assert main(["fit", str(run), "--for-minutes", "1e-9"]) == 0
    assert "time is up at step 2 of 12" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["generate"], ["fit"]])
def test_a_missing_file_is_exit_code_1(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, str(tmp_path / "absent.toml")]) == 1
    assert "absent.toml" in capsys.readouterr().err


def test_a_recipe_without_a_usable_molecule_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.xyz").write_text("1\nradical\nH 0 0 0\n")
    recipe = write_recipe(tmp_path, '[structures]\nfiles = ["bad.xyz"]')
    assert main(["generate", str(recipe)]) == 1
    assert "failures.jsonl says why" in capsys.readouterr().err
    assert not (tmp_path / "data" / "focks.h5").exists()


@pytest.mark.parametrize(
    ("general", "label", "word"),
    [("", 'xc = "b4lyp"', "b4lyp"), ("", 'basis = "def3-svp"', "def3-svp"), ('elements = ["H", "Q"]', "", "Q")],
)
def test_an_unknown_level_is_exit_code_1(
    general: str, label: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "h2.xyz", displaced("H2", 1), format="extxyz")
    recipe = write_recipe(tmp_path, f'[structures]\nfiles = ["h2.xyz"]\n[label]\n{label}', general=general)
    assert main(["generate", str(recipe)]) == 1
    assert word in capsys.readouterr().err


def test_evaluate_and_release_refuse_what_is_not_there(
    tiny: Summary, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(tmp_path / "none"), str(tiny.file)]) == 1
    assert main(["evaluate", str(tiny_checkpoint), str(tmp_path / "none.h5")]) == 1
    assert "none.h5" in capsys.readouterr().err
    assert main(["evaluate", str(tiny_checkpoint), str(tiny.file), "--splits", "ood", "--no-scf"]) == 1
    assert "it has train, val" in capsys.readouterr().err
    run = write_run(tmp_path / "never", tiny.file)
    release = ["release", str(run), str(tmp_path / "made"), "--version", "1.0.0", "--description", "x"]
    assert main(release) == 1
    assert "python -m training fit" in capsys.readouterr().err
    (tmp_path / "report.json").write_text("{")
    assert main([*release, "--report", str(tmp_path / "report.json")]) == 1
    assert "report.json" in capsys.readouterr().err


def test_evaluate_prints_and_writes(
    tiny: Summary, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report.json"
    arguments = ["evaluate", str(tiny_checkpoint), str(tiny.file), "--splits", "train", "val", "--no-scf"]
    assert main([*arguments, "-o", str(output)]) == 0
    assert "occupied_energies_mae_uEh" in capsys.readouterr().out
    assert output.is_file()
    assert len(list(read_frames(tiny.file, ["val"]))) == 2


def test_reports_of_several_splits_make_one_card(trained: RunConfig, tiny: Summary, tmp_path: Path) -> None:
    """As when only some splits have SCF runs; a report about other weights is refused."""
    run = write_run(trained.output.parent, tiny.file)
    folder = tmp_path / "both"
    release = ["release", str(run), str(folder), "--version", "1.0.0", "--description", "for tests"]
    assert main(release) == 0
    reports = []
    for split in ("train", "val"):
        reports.append(str(tmp_path / f"{split}.json"))
        command = ["evaluate", str(folder), str(tiny.file), "--splits", split, "--no-scf", "-o", reports[-1]]
        assert main(command) == 0
    assert main([*release, "--report", *reports]) == 0
    assert set(json.loads((folder / "card.json").read_text())["metrics"]) == {"train", "val"}
    other = json.loads(Path(reports[1]).read_text()) | {"weights_sha256": "0" * 64}
    Path(reports[1]).write_text(json.dumps(other))
    assert main([*release, "--report", *reports]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["train"],
        ["fit"],
        *(["fit", "a.toml", "--for-minutes", minutes] for minutes in ("0", "-1", "nan", "ten")),
        ["release", "a.toml", "folder"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m training" in capsys.readouterr().err
