"""A disk that is full where exports are written: chk needs none, the others say so."""

from __future__ import annotations

import errno
import tempfile
from typing import Any

import pytest

from service.answers import files
from service.errors import problem_of


class Full(tempfile.TemporaryDirectory[str]):
    """No folder can be made."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_text_exports_on_a_full_disk_are_507(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.TemporaryDirectory", Full)
    with pytest.raises(OSError, match="No space left") as caught:
        files._written(lambda _: None, "guess.molden")
    problem = problem_of(caught.value, "id")
    assert (problem.status, problem.body["code"]) == (507, "storage_full")
    assert "safetensors" in str(problem.body["hint"])
