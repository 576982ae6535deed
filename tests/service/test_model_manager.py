"""Operations on models run one after another, to their end, whoever else asks or leaves; too many are refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model.checkpoint.card import Card, read_card
from service.checkpoints.catalogue import Candidate
from service.checkpoints.checks import RejectedError
from service.checkpoints.loaded import LoadedModel
from service.checkpoints.registry import Registry
from service.checkpoints.swap import MAX_WAITING, ModelManager
from service.errors import ServiceError
from service.settings import Settings

WAIT_S = 10.0


class FakeLoader:
    """Loads nothing; takes until its gate is open, and fails as told."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.running = threading.Semaphore(0)
        self.at_once = 0
        self.most_at_once = 0
        self.fault: Exception | None = None

    def load(self, candidate: Candidate, before_each: Callable[[str], None]) -> LoadedModel:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.running.release()
        try:
            assert self.gate.wait(WAIT_S)
            before_each("weights")
            if self.fault is not None:
                raise self.fault
            assert candidate.card is not None
            return fake(candidate.card)
        finally:
            self.at_once -= 1

    def close(self) -> None:
        pass


@dataclass(eq=False)
class FakePredictor:
    card: Card
    device: str = "cpu"


def fake(card: Card) -> LoadedModel:
    predictor: Any = FakePredictor(card)
    engine: Any = SimpleNamespace(unfinished=0, close=lambda: None)
    return LoadedModel(card.name, predictor, engine)


@pytest.fixture
def loader() -> FakeLoader:
    return FakeLoader()


@pytest.fixture
def manager(tiny_checkpoint: Path, loader: FakeLoader) -> Iterator[ModelManager]:
    """Of a registry with one model, whose folder holds its checkpoint."""
    found: Any = loader
    registry = Registry([fake(read_card(tiny_checkpoint / "card.json"))], ["tiny"], loader=found)
    manager = ModelManager(registry, Settings(checkpoints=tiny_checkpoint.parent, device="cpu"))
    manager.registry = registry  # type: ignore[attr-defined]
    yield manager
    loader.gate.set()
    manager.close()
    registry.close()


async def running(loader: FakeLoader) -> None:
    """A load has begun."""
    assert await asyncio.to_thread(loader.running.acquire, timeout=WAIT_S)


def test_one_after_another(manager, loader):
    async def scenario() -> list[str]:
        calls = [asyncio.create_task(manager.load("tiny", force=True)) for _ in range(3)]
        await running(loader)
        loader.gate.set()
        return [(await call).status for call in calls]

    assert asyncio.run(scenario()) == ["loaded"] * 3
    assert loader.most_at_once == 1


def test_the_event_loop_goes_on_and_what_serves_serves_while_a_load_takes_its_time(manager, loader):
    async def scenario() -> bool:
        before = manager.registry.get("tiny")
        load = asyncio.create_task(manager.load("tiny", force=True))
        await running(loader)
        during = manager.registry.get("tiny")
        loader.gate.set()
        after = (await load).model
        return during is before and after is manager.registry.get("tiny") and after is not before

    assert asyncio.run(scenario())


def test_too_many_at_once_are_told_to_come_back(manager, loader):
    async def scenario() -> None:
        calls = [asyncio.create_task(manager.load("tiny", force=True)) for _ in range(1 + MAX_WAITING)]
        await running(loader)
        for refused in (manager.load("tiny"), manager.unload("tiny", force=True)):
            with pytest.raises(ServiceError) as caught:
                await refused
            assert caught.value.code == "model_busy"
            assert caught.value.retry_after_s is not None
        loader.gate.set()
        await asyncio.gather(*calls)
        assert (await manager.load("tiny", force=True)).status == "loaded"

    asyncio.run(scenario())


def test_a_load_whose_caller_leaves_is_finished(manager, loader):
    async def scenario() -> None:
        before = manager.registry.get("tiny")
        load = asyncio.create_task(manager.load("tiny", force=True))
        await running(loader)
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load
        loader.gate.set()
        # the next operation waits for the one that nobody waits for
        await manager.load("tiny", force=True)
        assert loader.most_at_once == 1
        assert manager.registry.get("tiny") is not before

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", [RejectedError("golden", "It does not fit."), ServiceError("draining", "Stop.")])
def test_a_load_that_fails_changes_nothing(manager, loader, fault):
    before = manager.registry.get("tiny")
    loader.fault = fault
    loader.gate.set()
    with pytest.raises(ServiceError):
        asyncio.run(manager.load("tiny", force=True))
    assert manager.registry.get("tiny") is before
    loader.fault = None
    assert asyncio.run(manager.load("tiny", force=True)).status == "loaded"


def test_a_rejection_names_the_check_and_what_serves(manager, loader):
    loader.fault = RejectedError("golden", "It does not fit.", hint="Release it again.")
    loader.gate.set()
    with pytest.raises(ServiceError) as caught:
        asyncio.run(manager.load("tiny", force=True))
    error = caught.value
    assert (error.code, error.hint) == ("model_rejected", "Release it again.")
    assert error.errors == [{"field": "golden", "detail": "It does not fit."}]
    assert "What served before still serves." in error.detail


def test_after_closing_nothing_is_loaded_and_a_load_under_way_ends(manager, loader):
    async def scenario() -> None:
        before = manager.registry.get("tiny")
        load, waiting = (asyncio.create_task(manager.load("tiny", force=True)) for _ in range(2))
        await running(loader)
        closing = asyncio.create_task(asyncio.to_thread(manager.close))
        await asyncio.sleep(0.05)
        loader.gate.set()
        await closing
        with pytest.raises(ServiceError) as caught:
            await load
        assert caught.value.code == "draining"
        with pytest.raises((ServiceError, asyncio.CancelledError)):
            await waiting
        with pytest.raises(ServiceError) as late:
            await manager.unload("tiny", force=True)
        assert late.value.code == "draining"
        assert manager.registry.get("tiny") is before

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["../x", "..", "", "A", "a/b", "a" * 65, ".hidden", "a\0b", "tiny\n"])
def test_a_name_that_no_checkpoint_has_never_touches_the_disk(manager, monkeypatch, name):
    def never(*_: object) -> None:
        pytest.fail("the folder was read")

    monkeypatch.setattr("service.checkpoints.swap.scan", never)
    monkeypatch.setattr(Path, "iterdir", never)
    for operation in (manager.load, manager.unload):
        with pytest.raises(ServiceError) as caught:
            asyncio.run(operation(name, force=True))
        assert caught.value.code == "unknown_model"
