"""docs/benchmarks.md is what benchmarks/results/ says, and these figures are those of the released checkpoint."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import recorded
from pydantic import ValidationError
from recorded import RESULTS, Column, Result, Table
from render import PAGE, read_results, render

ROOT = Path(__file__).resolve().parents[2]
CARD = json.loads((ROOT / "checkpoints" / "default" / "card.json").read_text())


@pytest.fixture
def results() -> dict[str, Result]:
    return read_results()


def test_the_page_is_the_rendering(results: dict[str, Result]) -> None:
    assert PAGE.read_text() == render(results), "run: python benchmarks/render.py"


def test_commands_name_scripts_that_are_there(results: dict[str, Result]) -> None:
    for name, result in results.items():
        for word in result.command.split():
            if word.startswith("benchmarks/"):
                assert (ROOT / word).is_file(), f"{name}: {word}"


@pytest.mark.parametrize(("name", "split"), [("guess_test", "test")])
def test_figures_of_the_guess_are_those_of_the_card(results: dict[str, Result], name: str, split: str) -> None:
    result = results[name]
    assert CARD["version"] in result.versions["default"]
    table = result.tables[0]
    row = dict(zip((column.name for column in table.columns), table.rows[-1], strict=True))
    metrics = CARD["metrics"][split]
    shown = {
        "geometries": metrics["frames"],
        "cycles, minao": round(metrics["cycles_minao"], 2),
        "cycles, guess": round(metrics["cycles_guess"], 2),
        "ratio": round(metrics["cycles_ratio"], 3),
        "H": round(metrics["hamiltonian_mae_uEh"]),
    }
    assert {key: row[key] for key in shown} == shown
    values = {figure.name: figure.value for figure in result.figures}
    assert values["Fock builds over minao's"] == round(metrics["fock_builds_ratio"], 3)
    assert values["mean error of HOMO"] == round(metrics["homo_mae_uEh"] / 1e3, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"spread": None},
        {"comment": "?"},
        {"date": "yesterday"},
        {"tables": [], "figures": []},
        {"tables": [{"columns": [{"name": "a"}, {"name": "b"}], "rows": [[1]]}]},
    ],
    ids=["no spread", "unknown key", "no date", "no numbers", "short row"],
)
def test_a_result_without_its_circumstances_is_refused(change: dict[str, Any]) -> None:
    whole = {
        "title": "t",
        "command": "c",
        "date": "2026-01-01",
        "machine": "m",
        "versions": {"v": "1"},
        "spread": "none",
        "figures": [{"name": "f", "value": 1}],
    }
    Result.model_validate(whole)
    with pytest.raises(ValidationError):
        Result.model_validate(whole | change)


def test_recording_replaces_the_numbers_and_their_circumstances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(RESULTS / "prediction_parts.json", tmp_path)
    monkeypatch.setattr(recorded, "RESULTS", tmp_path)
    old = Result.model_validate_json((tmp_path / "prediction_parts.json").read_bytes())
    table = Table(columns=[Column(name="a"), Column(name="b", unit="ms", digits=1)], rows=[["x", 1.25]])
    path = recorded.record("prediction_parts", tables=[table], spread="three repeats", checkpoint="9.9.9")
    new = Result.model_validate_json(path.read_bytes())
    assert (new.title, new.command, new.text) == (old.title, old.command, old.text)
    assert (new.tables, new.figures, new.notes, new.spread) == ([table], [], [], "three repeats")
    assert new.versions["default"] == "9.9.9"
    assert new.date == datetime.date.today()
    assert recorded.as_markdown(table).splitlines() == ["| a | b, ms |", "| --- | --- |", "| x | 1.2 |"]
