"""Which model answers, and how a model leaves: at once for new requests, and not before its last one has its answer."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from service.checkpoints.registry import LoadedModel, Registry
from service.errors import ServiceError

WAIT_S = 10.0


class FakeEngine:
    """Says when it is closed; closing takes as long as the gate is shut."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def close(self) -> None:
        assert self.gate.wait(WAIT_S)
        self.closed.set()


class FakePredictor:
    device = "cpu"


def model(name: str) -> LoadedModel:
    predictor: Any = FakePredictor()
    engine: Any = FakeEngine()
    return LoadedModel(name, predictor, engine)


def engine_of(loaded: LoadedModel) -> FakeEngine:
    engine: Any = loaded.engine
    assert isinstance(engine, FakeEngine)
    return engine


@pytest.fixture
def registry_of() -> Iterator[Callable[..., Registry]]:
    made: list[Registry] = []

    def make(*names: str, default: str | None = None) -> Registry:
        made.append(Registry([model(name) for name in names], default))
        return made[-1]

    yield make
    for registry in made:
        registry.close()


def dead(reference: weakref.ref[Any]) -> bool:
    """Whether what it refers to has gone, or goes soon."""
    waited = threading.Event()
    for _ in range(200):
        if reference() is None:
            return True
        waited.wait(WAIT_S / 200)
    gc.collect()
    return reference() is None


def test_names_are_looked_up_and_nothing_else(registry_of):
    models = registry_of("a", "b", default="b")
    assert models.get("a").name == "a"
    assert models.get(None).name == "b"
    for name in ("", "c", "../a", "a/", "A"):
        with pytest.raises(ServiceError) as caught:
            models.get(name)
        assert caught.value.code == "unknown_model"
        assert caught.value.allowed == ["a", "b"]


def test_without_a_default_the_caller_is_asked_to_choose(registry_of):
    with pytest.raises(ServiceError) as caught:
        registry_of("a", "b").get(None)
    assert (caught.value.code, caught.value.field, caught.value.allowed) == ("invalid_request", "model", ["a", "b"])


def test_with_no_model_at_all_the_service_is_not_ready(registry_of):
    with pytest.raises(ServiceError) as caught:
        registry_of().get(None)
    assert caught.value.code == "not_ready"
    assert caught.value.retry_after_s is not None


def test_new_requests_get_the_new_model_and_a_request_keeps_the_one_it_has(registry_of):
    registry = registry_of("a", default="a")
    request = registry.get("a")
    old = engine_of(request)
    new = model("a")
    registry.install(new)
    assert registry.get("a") is new
    assert registry.get(None) is new
    assert request is not new
    assert not old.closed.wait(0.1), "the engine of a model that a request holds stays open"
    del request
    assert old.closed.wait(WAIT_S)
    assert not engine_of(new).closed.is_set()


def test_a_model_that_is_not_used_any_more_leaves_nothing_behind(registry_of):
    registry = registry_of("a", default="a")
    loaded = registry.get("a")
    gate = engine_of(loaded).gate
    left: list[weakref.ref[Any]] = [weakref.ref(part) for part in (loaded, loaded.predictor, loaded.engine)]
    gate.clear()
    registry.remove("a")
    del loaded
    assert dead(left[0])
    assert left[2]() is not None, "while the engine finishes its work it is there"
    gate.set()
    assert all(dead(reference) for reference in left)


def test_a_removed_model_is_not_found_and_not_removed_twice(registry_of):
    registry = registry_of("a", "b", default="a")
    registry.remove("b")
    assert registry.names == ["a"]
    for attempt in (registry.get, registry.remove):
        with pytest.raises(ServiceError) as caught:
            attempt("b")
        assert caught.value.code == "unknown_model"


def test_the_default_stays_is_replaced_when_it_goes_and_comes_back(registry_of):
    registry = registry_of("a", "b", "c", default="b")
    registry.install(model("default"))
    assert registry.default == "b", "another model does not take over by its name"
    registry.remove("b")
    assert registry.default == "default"
    registry.remove("default")
    assert registry.default is None, "nobody said which of two"
    registry.remove("a")
    assert registry.default == "c", "the only one"
    registry.install(model("a"))
    assert registry.default == "c"
    registry.install(model("b"))
    assert registry.default == "b"


def test_watchers_hear_of_what_is_there_and_of_every_change(registry_of):
    registry = registry_of("a", "b", default="a")
    heard: list[str] = []
    registry.watch(lambda loaded: heard.append(f"+{loaded.name}"), lambda name: heard.append(f"-{name}"))
    registry.install(model("a"))
    registry.install(model("c"))
    registry.remove("b")
    assert heard == ["+a", "+b", "+a", "+c", "-b"]


def test_closing_ends_all_engines_those_on_their_way_out_included(registry_of):
    registry = registry_of("a", "b", default="a")
    replaced, staying = registry.get("a"), registry.get("b")
    registry.install(model("a"))
    new = registry.get("a")
    registry.close()
    for loaded in (replaced, staying, new):
        assert engine_of(loaded).closed.is_set()


def test_after_closing_nothing_is_installed(registry_of):
    registry = registry_of("a", default="a")
    registry.close()
    late = model("b")
    with pytest.raises(ServiceError) as caught:
        registry.install(late)
    assert caught.value.code == "draining"
    assert engine_of(late).closed.is_set()
    assert registry.names == ["a"]


def test_parts_that_nothing_is_known_of_can_be_registered():
    empty: Any = SimpleNamespace()
    assert Registry([LoadedModel("a", empty, empty)], None).names == ["a"]
