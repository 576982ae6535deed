"""Folders of every checkpoint format that was ever written load and give their stored answers.

``tests/old_checkpoints`` holds one of each, written by the program of its time: never change them. ``golden.json`` is the
oracle: what that program predicted.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.checkpoint import store
from model.checkpoint.migrations import FORMAT_VERSION
from model.predictor import Predictor

FOLDER = Path(__file__).resolve().parents[1] / "old_checkpoints"
FOLDERS = sorted(path for path in FOLDER.iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_it_loads_and_gives_what_it_gave(folder: Path) -> None:
    predictor = Predictor.load(folder)
    assert predictor.card.format_version == FORMAT_VERSION
    assert predictor.checkpoint.golden["structures"][0]["charge"] == 0
    assert predictor.card.periodic == (folder.name == "format_4")


def test_every_older_format_is_there() -> None:
    found = {json.loads((folder / store.CARD).read_text())["format_version"] for folder in FOLDERS}
    assert found >= set(range(1, FORMAT_VERSION))


def test_what_old_cards_did_not_say() -> None:
    assert store.load(FOLDER / "format_1").card.reference.overlap_damping == 0.0
    published = store.load(FOLDER / "format_2_published").card
    assert published.architecture["backbone"] == "qhnet_published"
    assert published.symmetry == "SO(3)"
    assert store.load(FOLDER / "format_2").card.symmetry == "O(3)"
    assert store.load(FOLDER / "format_3").card.symmetry_error is None
    assert store.load(FOLDER / "format_4").card.kinetic_damping == 0.0
