"""Presets: every one is a run that this program can make, with the published values."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.data.readers.md17 import MOLECULES
from training.data.sources import FORMATS
from training.fit.config import read_run

PRESETS = Path(__file__).resolve().parents[2] / "training" / "presets"
MOLECULAR = {"qh9_stable_id", "qh9_stable_ood", "qh9_dynamic_mol"} | {f"md17_{name}" for name in MOLECULES.values()}
DATA = {
    "qh9_stable_id": ("qh9_stable", "random"),
    "qh9_stable_ood": ("qh9_stable", "size_ood"),
    "qh9_dynamic_mol": ("qh9_dynamic_100k", "molecule"),
}


def test_every_database_of_the_papers_has_its_preset() -> None:
    assert {path.stem for path in PRESETS.glob("*.toml")} == MOLECULAR | {"mg", "mm", "bg", "bb", "bt", "bs"}


@pytest.mark.parametrize("name", sorted(MOLECULAR))
def test_molecular_presets_are_valid_runs(name: str) -> None:
    config = read_run(PRESETS / f"{name}.toml")
    assert config.name == name
    assert config.network.backbone == "qhnet_published"
    assert (config.data.format, config.data.split) == DATA.get(name, ("md17", ""))
    assert config.data.format in FORMATS
    assert config.reference.kind == "none", "the papers regress H itself"
    assert (config.loss.mae, config.loss.mse, config.loss.rmse, config.loss.guess) == (1.0, 1.0, 0.0, 0.0)
    assert (config.optimiser.schedule, config.optimiser.betas) == ("linear", (0.99, 0.999))
    assert config.network.tracegrad.mode == ("both" if name in ("qh9_stable_ood", "qh9_dynamic_mol") else "none")


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.toml")), ids=lambda path: path.stem)
def test_presets_say_how_they_run_and_where_they_come_from(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert f"python -m training fit training/presets/{path.name}" in text
    assert "arXiv:" in text
