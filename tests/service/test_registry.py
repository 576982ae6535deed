"""Which model answers, and how a model leaves: at once for new requests, and not before its last one has its answer."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from model.errors import DomainError, UnsupportedChargeError, UnsupportedElementError, UnsupportedPeriodicityError
from model.level import Level
from model.structure import SYMBOLS, Structure
from service.checkpoints.choice import Kind, Wanted, choose
from service.checkpoints.loaded import LoadedModel
from service.checkpoints.registry import Registry
from service.errors import ServiceError

WAIT_S = 10.0
B3LYP = Level("b3lyp", "def2-svp")
WATER = Structure.from_symbols(["O", "H", "H"], [[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]])
AMMONIA = Structure.from_symbols(["N", "H", "H", "H"], [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
HYDROXIDE = Structure.from_symbols(["O", "H"], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.96]], charge=-1)
DOUBLY_CHARGED = Structure.from_symbols(["O", "H", "H"], WATER.positions_angstrom, charge=2)
HYDROGEN_FLUORIDE = Structure.from_symbols(["F", "H"], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.92]])
ICE = Structure(WATER.numbers, WATER.positions_angstrom, cell_angstrom=4.0 * np.eye(3), pbc=(True, True, True))


class FakeBackend:
    """Says when it is closed; closing takes as long as the gate is shut."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def close(self) -> None:
        assert self.gate.wait(WAIT_S)
        self.closed.set()


class FakePredictor:
    """Takes everything that its card does not refuse."""

    device = "cpu"

    def __init__(self, card: Any) -> None:
        self.card = card

    def check(self, structure: Structure) -> None:
        if structure.is_periodic is not self.card.periodic:
            raise UnsupportedPeriodicityError("The wrong kind of system.", field="pbc")
        unknown = set(structure.symbols) - {SYMBOLS[number] for number in self.card.elements}
        if unknown:
            raise UnsupportedElementError(
                f"{self.card.name} does not know {', '.join(sorted(unknown))}.",
                allowed=[SYMBOLS[number] for number in self.card.elements],
                field="numbers",
            )
        if structure.charge not in self.card.charges:
            raise UnsupportedChargeError("Another charge.", allowed=self.card.charges, field="charge")


def model(
    name: str,
    *,
    periodic: bool = False,
    elements: Sequence[int] = (1, 8),
    charges: Sequence[int] = (0,),
    level: Level = B3LYP,
    symmetry: str = "O(3)",
) -> LoadedModel:
    card = SimpleNamespace(
        name=name,
        periodic=periodic,
        elements=list(elements),
        charges=list(charges),
        multiplicities=[1],
        xc=level.xc,
        level=level,
        symmetry=symmetry,
    )
    predictor: Any = FakePredictor(card)
    backend: Any = FakeBackend()
    return LoadedModel(name, predictor, backend)


def backend_of(loaded: LoadedModel) -> FakeBackend:
    backend: Any = loaded.backend
    assert isinstance(backend, FakeBackend)
    return backend


@pytest.fixture
def registry_of() -> Iterator[Callable[..., Registry]]:
    made: list[Registry] = []

    def make(*names: str, default: str | None = None) -> Registry:
        made.append(Registry([model(name) for name in names], [] if default is None else [default]))
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
    for name in ("", "c", "../a", "a/", "A"):
        with pytest.raises(ServiceError) as caught, models.leased(WATER, Wanted(name)):
            pytest.fail("a model was found")
        assert caught.value.code == "unknown_model"
        assert caught.value.allowed == ["a", "b"]


def test_without_a_default_the_caller_is_asked_to_choose(registry_of):
    with pytest.raises(ServiceError) as caught, registry_of("a", "b").leased(WATER, Wanted()):
        pytest.fail("a model was found")
    assert (caught.value.code, caught.value.field, caught.value.allowed) == ("invalid_request", "model", ["a", "b"])


def test_with_no_model_at_all_the_service_is_not_ready(registry_of):
    with pytest.raises(ServiceError) as caught, registry_of().leased(WATER, Wanted()):
        pytest.fail("a model was found")
    assert caught.value.code == "not_ready"
    assert caught.value.retry_after_s is not None


def test_new_requests_get_the_new_model_and_a_request_keeps_the_one_it_has(registry_of):
    registry = registry_of("a", default="a")
    with registry.leased(WATER, Wanted("a")) as one, registry.leased(WATER, Wanted()) as other:
        old = backend_of(one.model)
        new = model("a")
        registry.install(new)
        with registry.leased(WATER, Wanted()) as later:
            assert later.model is registry.get("a") is new
        assert one.model is other.model is not new
        assert not old.closed.wait(0.1), "the backend of a model that a request leases stays open"
    assert old.closed.wait(WAIT_S)
    assert not backend_of(new).closed.is_set()


def test_a_lease_ends_however_the_request_ends(registry_of):
    registry = registry_of("a", default="a")
    old = backend_of(registry.get("a"))
    with suppress(RuntimeError), registry.leased(WATER, Wanted()):
        registry.install(model("a"))
        raise RuntimeError
    assert old.closed.wait(WAIT_S)


def test_a_model_that_is_not_used_any_more_leaves_nothing_behind(registry_of):
    registry = registry_of("a", default="a")
    loaded = registry.get("a")
    gate = backend_of(loaded).gate
    left: list[weakref.ref[Any]] = [weakref.ref(part) for part in (loaded, loaded.predictor, loaded.backend)]
    gate.clear()
    registry.remove("a")
    del loaded
    assert left[2]() is not None, "while the backend finishes its work it is there"
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

    def default() -> str | None:
        found: str | None = registry.defaults["molecules"]
        return found

    registry.install(model("default"))
    assert default() == "b", "another model does not take over by its name"
    registry.remove("b")
    assert default() == "default"
    registry.remove("default")
    assert default() is None, "nobody said which of two"
    registry.remove("a")
    assert default() == "c", "the only one"
    registry.install(model("a"))
    assert default() == "c"
    registry.install(model("b"))
    assert default() == "b"
    registry.install(model("bulk", periodic=True))
    assert registry.defaults == {"molecules": "b", "crystals": "bulk"}, "each kind of system has its own"


def test_watchers_hear_of_what_is_there_and_of_every_change(registry_of):
    registry = registry_of("a", "b", default="a")
    heard: list[str] = []
    registry.watch(lambda loaded: heard.append(f"+{loaded.name}"), lambda name: heard.append(f"-{name}"))
    registry.install(model("a"))
    registry.install(model("c"))
    registry.remove("b")
    assert heard == ["+a", "+b", "+a", "+c", "-b"]


def test_closing_ends_all_backends_those_on_their_way_out_included(registry_of):
    registry = registry_of("a", "b", default="a")
    replaced, staying = registry.get("a"), registry.get("b")
    with registry.leased(WATER, Wanted("a")):
        registry.install(model("a"))
        new = registry.get("a")
        registry.close()
    for loaded in (replaced, staying, new):
        assert backend_of(loaded).closed.is_set()


def test_after_closing_nothing_is_installed(registry_of):
    registry = registry_of("a", default="a")
    registry.close()
    late = model("b")
    with pytest.raises(ServiceError) as caught:
        registry.install(late)
    assert caught.value.code == "draining"
    assert backend_of(late).closed.is_set()
    assert registry.names == ["a"]


# --- which one answers


SHELF = {
    loaded.name: loaded
    for loaded in (
        model("default", elements=(1, 6, 8)),
        model("ions", charges=(-1, 1)),
        model("halogens", elements=(1, 9)),
        model("vwn5", level=Level("b3lyp5", "def2-svp")),
        model("triple", level=Level("b3lyp", "def2-tzvp")),
        model("pbe-triple", level=Level("pbe", "def2-tzvp")),
        model("bulk", periodic=True, level=Level("pbe", "dzp")),
    )
}
DEFAULTS: dict[Kind, str | None] = {"molecules": "default", "crystals": "bulk"}


@pytest.mark.parametrize(
    ("structure", "wanted", "name", "differences"),
    [
        (WATER, Wanted(), "default", ()),
        (HYDROXIDE, Wanted(), "ions", ()),
        (ICE, Wanted(), "bulk", ()),
        (HYDROGEN_FLUORIDE, Wanted(), "halogens", ()),
        (WATER, Wanted(xc="B3LYP5"), "vwn5", ()),
        (WATER, Wanted(basis="def2tzvp"), "triple", ()),
        (WATER, Wanted(xc="pbe", basis="def2-TZVP"), "pbe-triple", ()),
        (WATER, Wanted(xc="pbe", basis="def2-svp"), "pbe-triple", ("basis",)),  # the functional counts first
        (WATER, Wanted(xc="b3lypg", basis="sto-3g"), "default", ("basis",)),
        (WATER, Wanted(xc="r2scan", basis="sto-3g"), "default", ("xc", "basis")),
        (WATER, Wanted(xc="r2scan", basis="def2-tzvp"), "triple", ("xc",)),  # as the default has its functional
        (HYDROXIDE, Wanted(xc="b3lyp5", basis="def2-tzvp"), "ions", ("xc", "basis")),  # the domain goes before
        (WATER, Wanted("vwn5", xc="b3lyp"), "vwn5", ("xc",)),
    ],
)
def test_the_model_that_fits_best_answers(structure, wanted, name, differences):
    choice = choose(SHELF, DEFAULTS, structure, wanted)
    assert (choice.model.name, choice.differences) == (name, differences)
    assert [text.split()[0] for text in choice.warnings] == list(differences)


@pytest.mark.parametrize(
    ("models", "structure", "code", "allowed"),
    [
        (("default", "ions", "halogens"), DOUBLY_CHARGED, "unsupported_charge", [0, -1, 1]),
        (("default", "halogens"), AMMONIA, "unsupported_element", ["H", "C", "O", "F"]),
        (("default", "ions"), ICE, "unsupported_periodicity", None),
        (("bulk",), WATER, "unsupported_periodicity", None),
        (("ions", "bulk"), AMMONIA, "unsupported_element", ["H", "O"]),
    ],
)
def test_what_no_model_takes_is_refused_by_those_that_come_nearest(models, structure, code, allowed):
    shelf = {name: SHELF[name] for name in models}
    with pytest.raises(DomainError) as caught:
        choose(shelf, DEFAULTS, structure, Wanted())
    assert (caught.value.code, caught.value.allowed) == (code, allowed)
    if len(models) > 1:
        assert caught.value.hint is not None
        assert all(name in caught.value.hint for name in models), "what is loaded, and what each supports"


def test_of_models_of_one_level_the_one_of_the_fewest_elements_answers() -> None:
    wide, narrow = model("wide", elements=(1, 6, 8)), model("narrow", elements=(1, 8))
    shelf = {"wide": wide, "narrow": narrow}
    no_default: dict[Kind, str | None] = {"molecules": None, "crystals": None}
    assert choose(shelf, no_default, WATER, Wanted()).model is narrow
    assert choose(shelf, {**no_default, "molecules": "wide"}, WATER, Wanted()).model is wide, "the operator's choice"
    assert choose(shelf, no_default, WATER, Wanted("wide")).model is wide
    other_level = {**shelf, "narrow": model("narrow", elements=(1, 8), level=Level("b3lyp", "def2-tzvp"))}
    with pytest.raises(ServiceError, match="fit equally well"):
        choose(other_level, no_default, WATER, Wanted())


def test_a_named_model_that_does_not_take_the_structure_says_why_and_no_other_is_tried():
    with pytest.raises(DomainError) as caught:
        choose(SHELF, DEFAULTS, HYDROXIDE, Wanted("default"))
    assert caught.value.code == "unsupported_charge"
    assert caught.value.allowed == [0]


def test_a_model_of_approximate_symmetry_answers_only_where_it_is_named() -> None:
    rough, exact = model("rough", symmetry="approximate", elements=(1, 8, 9)), model("exact")
    registry = Registry([rough, exact])
    assert registry.defaults["molecules"] == "exact"
    both = {"rough": rough, "exact": exact}
    assert choose(both, registry.defaults, WATER, Wanted()).model is exact
    assert choose(both, registry.defaults, WATER, Wanted(name="rough")).model is rough
    with pytest.raises(UnsupportedElementError):  # the rough one would take it
        choose(both, registry.defaults, HYDROGEN_FLUORIDE, Wanted())
    alone = Registry([rough], ["rough"])
    assert alone.defaults["molecules"] is None
    with pytest.raises(ServiceError, match="answers only where it is named"):
        choose({"rough": rough}, alone.defaults, WATER, Wanted())
