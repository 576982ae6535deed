"""Presets: every one parses; those whose parts are here are valid runs, the crystals are refused by name."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from model.architectures.registry import ARCHITECTURES
from training.data.readers.md17 import MOLECULES
from training.data.sources import FORMATS
from training.fit.config import ConfigError, read_run

PRESETS = Path(__file__).resolve().parents[2] / "training" / "presets"
CRYSTALS = {"mg", "mm", "bg", "bb", "bt", "bs"}
MOLECULAR = {"qh9_stable_id", "qh9_stable_ood", "qh9_dynamic_mol"} | {f"md17_{name}" for name in MOLECULES.values()}
DATA = {
    "qh9_stable_id": ("qh9_stable", "random"),
    "qh9_stable_ood": ("qh9_stable", "size_ood"),
    "qh9_dynamic_mol": ("qh9_dynamic_100k", "molecule"),
}


def test_every_database_of_the_papers_has_its_preset() -> None:
    assert {path.stem for path in PRESETS.glob("*.toml")} == CRYSTALS | MOLECULAR


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


@pytest.mark.parametrize("name", sorted(CRYSTALS))
def test_crystal_presets_are_refused_by_the_name_of_their_backbone(name: str) -> None:
    values = tomllib.loads((PRESETS / f"{name}.toml").read_text(encoding="utf-8"))
    backbone = values["network"]["backbone"]
    assert backbone not in ARCHITECTURES, "it can run now: move it to the molecular ones or write its test"
    with pytest.raises(ConfigError, match=rf"{name}\.toml.*'{backbone}' is not known.*Allowed: qhnet"):
        read_run(PRESETS / f"{name}.toml")


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.toml")), ids=lambda path: path.stem)
def test_presets_say_how_they_run_and_where_they_come_from(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    runnable = f"python -m training fit training/presets/{path.name}"
    assert runnable in text if path.stem in MOLECULAR else "NOT RUNNABLE YET" in text
    assert "arXiv:" in text
