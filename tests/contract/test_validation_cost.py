"""A small body with a million mistakes costs a bounded number of errors, and what is told is what pydantic finds."""

from __future__ import annotations

import copy
import json
import threading
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from service.http.json_body import validation_error
from service.http.validation import service_error
from service.schemas.models import LoadRequest
from service.schemas.requests import BatchRequest, PredictRequest

MOST_ERRORS = 5_000
"""Errors that one body may make, of a million wrong items; an error takes about a kilobyte."""
MOST_BYTES_PER_BYTE = 40
"""Python's own memory for a body's objects and errors, per byte of the body: an empty list of three bytes takes 64."""
MANY = 400_000

WATER = {"kind": "atoms", "numbers": [8, 1, 1], "positions": [[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]]}
QCSCHEMA = {
    "kind": "qcschema",
    "molecule": {"symbols": ["H", "H"], "geometry": [0, 0, 0, 0, 0, 1.4], "real": [True, True], "extras": {"a": [1]}},
}
FILE = {"kind": "file", "format": "xyz", "text": "1\n\nHe 0 0 0\n"}
ATOMS_IN_A_BATCH = json.dumps({**WATER, "numbers": [""] * 200, "positions": [[]] * 200})


def atoms(numbers: str, positions: str) -> str:
    return f'{{"structure":{{"kind":"atoms","numbers":{numbers},"positions":{positions}}}}}'


def molecule(symbols: str, geometry: str, real: str = "null") -> str:
    return (
        f'{{"structure":{{"kind":"qcschema","molecule":{{"symbols":{symbols},"geometry":{geometry},"real":{real}}}}}}}'
    )


def many(item: str, count: int = MANY) -> str:
    return "[" + ",".join([item] * count) + "]"


WATER_JSON = json.dumps(WATER)
BODIES: dict[str, tuple[type[BaseModel], str]] = {
    "numbers": (PredictRequest, atoms(many('""'), "[]")),
    "numbers, the first thousand right": (PredictRequest, atoms("[" + "1," * 1000 + many('""')[1:], "[]")),
    "rows": (PredictRequest, atoms("[1]", many("[]"))),
    "rows of too much": (PredictRequest, atoms("[1]", "[" + many('""') + "]")),
    "coordinates": (PredictRequest, atoms("[1]", many('["","",""]', MANY // 5))),
    "symbols": (PredictRequest, molecule(many("1"), "[]")),
    "geometry": (PredictRequest, molecule("[]", many('""'))),
    "real": (PredictRequest, molecule("[]", "[]", many("0"))),
    "outputs": (PredictRequest, f'{{"structure":{WATER_JSON},"outputs":{many("1")}}}'),
    "cell": (PredictRequest, f'{{"structure":{WATER_JSON[:-1]},"cell":{many("1")}}}}}'),
    "empty structures": (BatchRequest, f'{{"structures":{many("{}")}}}'),
    "structures, all of them wrong": (BatchRequest, f'{{"structures":{many(ATOMS_IN_A_BATCH, 256)}}}'),
    "unknown fields": (LoadRequest, "{" + ",".join(f'"{index:06}":1' for index in range(MANY // 5)) + "}"),
    "unknown fields of a structure": (
        PredictRequest,
        f'{{"structure":{WATER_JSON[:-1]},' + ",".join(f'"{index:06}":1' for index in range(MANY // 5)) + "}}",
    ),
    "one unknown field, again and again": (LoadRequest, "{" + ",".join(['"a":1'] * MANY) + "}"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_million_mistakes_make_few_errors(name):
    model, body = BODIES[name]
    tracemalloc.start()
    try:
        error = validation_error(model, from_json(body))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error is not None
    assert error.error_count() <= MOST_ERRORS
    assert peak < MOST_BYTES_PER_BYTE * len(body)


@pytest.mark.parametrize("name", ["numbers", "rows", "geometry", "outputs", "unknown fields of a structure"])
def test_the_service_answers_meanwhile_and_afterwards(client, name):
    """The body is refused by name of what is wrong, and other requests do not fail beside it."""
    replies = []

    def ask() -> None:
        content = BODIES[name][1].encode()
        replies.append(client.post("/v1/predict", content=content, headers={"Content-Type": "application/json"}))

    thread = threading.Thread(target=ask)
    thread.start()
    while thread.is_alive():
        assert client.get("/health/live").status_code == 200
    thread.join()
    assert (replies[0].status_code, replies[0].json()["code"]) == (422, "invalid_request")
    assert len(replies[0].content) < 10_000
    assert client.post("/v1/predict", json={"structure": WATER}).status_code == 200


@pytest.mark.parametrize("item", ['""', "[]", "0", '{"a":0}', '"\\\\"', '"\\""'])
def test_a_body_of_too_many_items_is_not_read(client, monkeypatch, item):
    def read(_: bytes) -> None:
        raise AssertionError("the body was read")

    monkeypatch.setattr("service.http.json_body.from_json", read)
    reply = client.post("/v1/predict", content=atoms("[1]", many(item)), headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_request")
    assert "250000 items" in reply.json()["detail"]


def test_commas_and_brackets_of_a_text_are_no_items(client):
    text = "1\n" + '[{,\\"' * 50_000 + "\nHe 0 0 0\n"
    content = json.dumps({"structure": {"kind": "file", "format": "xyz", "text": text}})
    reply = client.post("/v1/predict", content=content, headers={"Content-Type": "application/json"})
    assert reply.json().get("code") not in ("invalid_request", "malformed_body")


def test_a_batch_that_is_too_long_is_told_so_before_its_structures_are_looked_at(client):
    reply = client.post("/v1/predict/batch", json={"structures": [{}] * 100_000})
    assert (reply.status_code, reply.json()["code"], reply.json()["field"]) == (
        413,
        "too_many_structures",
        "structures",
    )
    assert "100000" in reply.json()["detail"]


def test_a_form_field_of_many_outputs_is_refused(client):
    reply = client.post("/v1/predict", files={"file": ("a.xyz", "1\n\nHe 0 0 0\n")}, data={"outputs": "a," * MANY})
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_request")
    assert len(reply.json()["errors"]) <= 20


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([10**30, 1e999, float("nan"), 2.0, "", "1", "atoms", [], {}, [[]], [1, 2, 3], {"kind": "file"}]),
)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[type[BaseModel], Any]:
    """A request in which a few places hold something else, or are gone, or twice."""
    document: Any = {"structure": draw(st.sampled_from([WATER, QCSCHEMA, FILE])), "outputs": ["overlap"], "charge": 0}
    if draw(st.booleans()):
        document = {"structures": [document["structure"], WATER, QCSCHEMA], "outputs": ["overlap"]}
    model = BatchRequest if "structures" in document else PredictRequest
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(0, 3))):
        value = document
        while True:
            places = list(value) if isinstance(value, dict) else list(range(len(value)))
            if not places:
                break
            place = draw(st.sampled_from(places))
            if isinstance(value[place], dict | list) and draw(st.integers(0, 3)):
                value = value[place]
                continue
            match draw(st.sampled_from(["replace", "remove", "add"])):
                case "replace":
                    value[place] = copy.deepcopy(draw(JUNK))
                case "remove":
                    del value[place]
                case "add" if isinstance(value, dict):
                    value["unknown"] = copy.deepcopy(draw(JUNK))
                case _:
                    value.append(copy.deepcopy(draw(JUNK)))
            break
    return model, document


@given(damaged())
def test_what_is_told_is_what_pydantic_finds_in_the_whole_text(case: tuple[type[BaseModel], Any]) -> None:
    """The oracle is the schema itself, on JSON text, without any bound."""
    model, document = case
    text = json.dumps(document)
    mine = validation_error(model, from_json(text))
    try:
        model.model_validate_json(text)
    except ValidationError as error:
        assert mine is not None
        expected = service_error(error)
        told = service_error(mine)
        assert (told.code, told.detail, told.field, told.hint, told.errors) == (
            expected.code,
            expected.detail,
            expected.field,
            expected.hint,
            expected.errors,
        )
    else:
        assert mine is None
