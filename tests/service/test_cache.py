"""Predictions kept by content: bounded, exact about what they depend on; and ETags."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import model
import service
from model.orbitals.space import OrbitalSpace
from model.predictor import Prediction
from model.structure import Structure
from service.serving import cache
from service.serving.cache import PredictionCache, array_bytes, content_key, entity_tag, matches

POSITIONS = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.74]])
H2 = Structure(np.array([1, 1]), POSITIONS)
SPACE = OrbitalSpace("sto-3g", {1: (0,)})


def prediction(n_ao: int) -> Prediction:
    square = np.zeros((n_ao, n_ao))
    return Prediction(H2, SPACE, square, square.copy(), square.copy(), (), (0, n_ao), None, None, None, True, (), {})


def test_the_key_depends_on_everything_that_changes_an_answer():
    others = [
        content_key("b", H2, orbitals=True),
        content_key("a", H2, orbitals=False),
        content_key("a", Structure(np.array([1, 1]), POSITIONS * 1.0000001), orbitals=True),
        content_key("a", Structure(np.array([2, 2]), POSITIONS), orbitals=True),
        content_key("a", Structure(np.array([1, 1]), POSITIONS, charge=-2), orbitals=True),
        content_key("a", Structure(np.array([1, 1]), POSITIONS, multiplicity=3), orbitals=True),
    ]
    assert len({content_key("a", H2, orbitals=True), *others}) == 7
    assert content_key("a", Structure(np.array([1, 1]), -0.0 + POSITIONS), orbitals=True) == content_key(
        "a", H2, orbitals=True
    )


def test_a_change_of_the_code_is_a_change_of_the_tag(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    source = tmp_path / "model" / "network.py"
    digests: list[str] = []
    keys: list[Any] = []
    for text in ("a = 1\n", "a = 2\n", "a = 1\n"):
        source.write_text(text)
        (tmp_path / "model" / "network.pyc").write_text(str(len(digests)))  # not a source
        digests.append(cache.digest_of_sources([tmp_path / "model"]))
        monkeypatch.setattr(cache, "code_fingerprint", lambda: digests[-1])
        keys.append(content_key("a", H2, orbitals=True))
    for found in (digests, keys):
        assert found[0] == found[2] != found[1]
    source.rename(source.with_name("other.py"))
    assert cache.digest_of_sources([tmp_path / "model"]) != digests[0]


def test_the_fingerprint_is_that_of_the_code_that_answers():
    code = cache.code_fingerprint.__wrapped__()
    assert code == cache.code_fingerprint()
    assert code == cache.digest_of_sources([Path(package.__file__).parent for package in (model, service)])


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 12)), max_size=40))
def test_memory_stays_bounded_and_what_is_there_is_what_was_put(puts):
    kept = PredictionCache(3000)
    stored = {}
    for key, size in puts:
        stored[key] = prediction(size)
        kept.put(key, stored[key])
    held = [key for key in "abcdefgh" if kept.get(key) is not None]
    assert all(kept.get(key) is stored[key] for key in held if array_bytes(stored[key]) <= 3000)
    assert kept.n_bytes == sum(array_bytes(found) for key in held if (found := kept.get(key)) is not None) <= 3000


def test_the_least_recently_used_goes_first():
    one = array_bytes(prediction(4))
    cache = PredictionCache(2 * one)
    cache.put("a", prediction(4))
    cache.put("b", prediction(4))
    cache.get("a")
    cache.put("c", prediction(4))
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]


def test_size_counts_all_arrays_with_those_of_the_orbitals(molecule: Callable[[str], Structure]):
    found = prediction(10)
    assert array_bytes(found) >= 3 * 800


@pytest.mark.parametrize(
    ("header", "same"),
    [
        ("{tag}", True),
        ('"x", {tag}', True),
        ("*", True),
        ('"x"', False),
        ("", False),
        (None, False),
        ("{strong}", True),
    ],
)
def test_if_none_match_compares_weakly(header, same):
    tag = entity_tag("key", ("json", ("blocks",)))
    assert tag.startswith('W/"')
    text = None if header is None else header.format(tag=tag, strong=tag.removeprefix("W/"))
    assert matches(text, tag) is same
