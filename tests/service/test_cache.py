"""Predictions kept by content: bounded, exact about what they depend on; and ETags."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.orbitals.space import OrbitalSpace
from model.predictor import Prediction
from model.structure import Structure
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


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 12)), max_size=40))
def test_memory_stays_bounded_and_what_is_there_is_what_was_put(puts):
    cache = PredictionCache(3000)
    stored = {}
    for key, size in puts:
        stored[key] = prediction(size)
        cache.put(key, stored[key])
    held = [key for key in "abcdefgh" if cache.get(key) is not None]
    assert all(cache.get(key) is stored[key] for key in held if array_bytes(stored[key]) <= 3000)
    assert cache.n_bytes == sum(array_bytes(found) for key in held if (found := cache.get(key)) is not None) <= 3000


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
