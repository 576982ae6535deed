"""A disk that is full: exports of molecules need none, and whatever meets one says so."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.predictor import Predictor
from model.structure import Structure
from service.answers.files import WRITERS
from service.errors import problem_of


class Full(tempfile.TemporaryDirectory[str]):
    """No folder can be made."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_exports_need_no_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_checkpoint: Path) -> None:
    predictor = Predictor.load(tiny_checkpoint, device="cpu")
    structure = Structure(numbers=np.array([1, 1]), positions_angstrom=np.array([[0, 0, 0], [0, 0, 0.74]]))
    (prediction,) = predictor.predict([structure])
    monkeypatch.setattr("tempfile.TemporaryDirectory", Full)
    monkeypatch.setattr("tempfile.NamedTemporaryFile", Full)
    monkeypatch.chdir(tmp_path)
    assert all(len(write(prediction, predictor.card)) > 100 for write in WRITERS.values())
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_507() -> None:
    problem = problem_of(OSError(errno.ENOSPC, "No space left on device"), "id")
    assert (problem.status, problem.body["code"]) == (507, "storage_full")
    assert "safetensors" in str(problem.body["hint"])
