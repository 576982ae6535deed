"""The same question twice: answered from memory, or with 304 if the caller still has the answer."""

from __future__ import annotations

import pytest

from service.app import create_app


@pytest.fixture
def fresh(serve, settings):
    with serve(create_app(settings)) as client:
        yield client


def test_the_second_answer_is_the_first_from_memory(fresh, water):
    first, second = (fresh.post("/v1/predict", json=water | {"outputs": ["hamiltonian"]}) for _ in range(2))
    assert [reply.json()["meta"]["cached"] for reply in (first, second)] == [False, True]
    assert first.json()["results"] == second.json()["results"]
    assert first.headers["etag"] == second.headers["etag"]
    assert first.json()["meta"]["request_id"] != second.json()["meta"]["request_id"]
    assert first.json()["meta"]["timings_ms"]["forward"] > 0 == second.json()["meta"]["timings_ms"]["forward"]


def test_another_way_of_sending_the_same_structure_is_the_same(fresh, water, water_xyz):
    fresh.post("/v1/predict", json=water)
    reply = fresh.post("/v1/predict", content=water_xyz, headers={"Content-Type": "chemical/x-xyz"})
    assert reply.json()["meta"]["cached"]


def test_304_for_an_answer_that_the_caller_has(fresh, water):
    tag = fresh.post("/v1/predict", json=water).headers["etag"]
    reply = fresh.post("/v1/predict", json=water, headers={"If-None-Match": tag})
    assert (reply.status_code, reply.content, reply.headers["etag"]) == (304, b"", tag)
    assert reply.headers["x-request-id"]


@pytest.mark.parametrize(
    "change",
    [
        {"outputs": ["overlap"]},
        {"energy_unit": "eV"},
        {"ao_order": "e3nn"},
        {"format_out": "npz"},
        {"charge": 2},
        {"structure": {"kind": "atoms", "numbers": [8, 1, 1], "positions": [[0, 0, 0], [0, 0.8, 0.6], [0, -0.8, 0.6]]}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_the_answer_changes_the_tag(fresh, water, change):
    first = fresh.post("/v1/predict", json=water)
    other = fresh.post("/v1/predict", json=water | change, headers={"If-None-Match": first.headers["etag"]})
    assert other.status_code in (200, 422), other.text
    assert other.headers.get("etag") != first.headers["etag"]


def test_a_guess_file_has_a_tag_too(fresh, water):
    first = fresh.post("/v1/initial-guess?format_out=molden", json=water)
    again = fresh.post(
        "/v1/initial-guess?format_out=molden", json=water, headers={"If-None-Match": first.headers["etag"]}
    )
    assert (first.status_code, again.status_code) == (200, 304)
