"""Which model answers when none is named, and what an operator reads when a folder does not fit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.error_table import ServiceError
from service.registry import LoadedModel, Registry, StartupError, load_registry, resolve_device
from service.settings import Settings


def registry(names: list[str], default: str | None) -> Registry:
    empty: Any = SimpleNamespace()
    return Registry([LoadedModel(name, empty, empty) for name in names], default)


def test_names_are_looked_up_and_nothing_else():
    models = registry(["a", "b"], "b")
    assert models.get("a").name == "a"
    assert models.get(None).name == "b"
    for name in ("", "c", "../a", "a/", "A"):
        with pytest.raises(ServiceError) as caught:
            models.get(name)
        assert caught.value.code == "unknown_model"
        assert caught.value.allowed == ["a", "b"]


def test_without_a_default_the_caller_is_asked_to_choose():
    with pytest.raises(ServiceError) as caught:
        registry(["a", "b"], None).get(None)
    assert (caught.value.code, caught.value.field, caught.value.allowed) == ("invalid_request", "model", ["a", "b"])


def test_a_real_checkpoint_is_loaded_and_is_the_default(tiny_checkpoint: Path, tmp_path: Path):
    (tmp_path / "any-folder-name").symlink_to(tiny_checkpoint, target_is_directory=True)
    (tmp_path / "not-a-checkpoint").mkdir()
    loaded = load_registry(Settings(checkpoints=tmp_path, device="cpu"))
    try:
        assert loaded.names == [loaded.default]
        assert loaded.get(None).predictor.card.name == loaded.default
    finally:
        loaded.close()


def test_two_checkpoints_of_one_name_stop_the_start(tiny_checkpoint: Path, tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(tiny_checkpoint, target_is_directory=True)
    with pytest.raises(StartupError, match="Two checkpoints"):
        load_registry(Settings(checkpoints=tmp_path, device="cpu"))


@pytest.mark.parametrize("content", ["", "{}", "[", '{"name": "x"}'])
def test_a_card_that_is_none_stops_the_start(tmp_path: Path, content: str):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "card.json").write_text(content)
    with pytest.raises(StartupError, match="cannot be served"):
        load_registry(Settings(checkpoints=tmp_path, device="cpu"))


def test_a_gpu_that_is_not_there_is_named():
    import torch

    if torch.cuda.is_available():
        assert resolve_device("auto") == "cuda"
    else:
        assert resolve_device("auto") == "cpu"
        with pytest.raises(StartupError, match="no GPU"):
            resolve_device("cuda:0")
