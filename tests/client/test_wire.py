"""Laws of the binary reader: it reads what the safetensors library writes, and nothing else makes it do anything."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save

from tracegrad_client.errors import InvalidAnswerError
from tracegrad_client.wire import read_safetensors

META = {"meta": json.dumps({"meta": {"model": "m"}})}
ARRAYS: dict[str, NDArray[Any]] = {
    "matrix": np.arange(12, dtype=np.float64).reshape(3, 4) / 7,
    "single": np.array([1.5, -2.0], dtype=np.float32),
    "counts": np.array([[3], [2**40]], dtype=np.int64),
    "none": np.zeros((0, 5)),
    "scalar": np.array(2.5),
}
BODY = save(ARRAYS, metadata=META)


def with_header(header: Any, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_what_the_library_writes_is_read_back() -> None:
    arrays, meta = read_safetensors(BODY)
    assert meta == {"meta": {"model": "m"}}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)
        assert arrays[name].flags.writeable


@given(st.integers(0, len(BODY) - 1))
def test_a_cut_off_answer_is_refused(length: int) -> None:
    with pytest.raises(InvalidAnswerError):
        read_safetensors(BODY[:length])


@settings(max_examples=300)
@given(st.integers(0, len(BODY) - 1), st.integers(0, 255))
def test_a_changed_byte_is_an_answer_or_a_refusal(index: int, value: int) -> None:
    changed = bytearray(BODY)
    changed[index] = value
    try:
        arrays, _ = read_safetensors(bytes(changed))
    except InvalidAnswerError:
        return
    assert sum(array.nbytes for array in arrays.values()) <= len(BODY)


@given(st.binary(max_size=200))
def test_noise_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidAnswerError):
        read_safetensors(body)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F64", "shape": [10**9, 10**9], "data_offsets": [0, 8]},
        {"dtype": "F64", "shape": [2**61], "data_offsets": [0, 2**64]},
        {"dtype": "F64", "shape": [1], "data_offsets": [8, 16]},
        {"dtype": "F64", "shape": [1], "data_offsets": [8, 0]},
        {"dtype": "F64", "shape": [-1, -1], "data_offsets": [0, 8]},
        {"dtype": "F64", "shape": [True], "data_offsets": [0, 8]},
        {"dtype": "F64", "shape": 1, "data_offsets": [0, 8]},
        {"dtype": "F64", "shape": [1], "data_offsets": [0]},
        {"dtype": "F64", "shape": [0, 10**30], "data_offsets": [0, 0]},
        {"dtype": "F64", "shape": [1] * 65, "data_offsets": [0, 8]},
        {"dtype": "O", "shape": [1], "data_offsets": [0, 8]},
        {"dtype": ["F64"], "shape": [1], "data_offsets": [0, 8]},
        [1, 2],
    ],
)
def test_a_declared_size_that_is_not_there_costs_no_memory(entry: Any) -> None:
    body = with_header({"__metadata__": META, "a": entry}, b"\0" * 8)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidAnswerError):
            read_safetensors(body)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "header", [{}, {"__metadata__": {}}, {"__metadata__": {"meta": "[]"}}, {"__metadata__": 3}, []]
)
def test_an_answer_without_its_document_is_refused(header: Any) -> None:
    with pytest.raises(InvalidAnswerError):
        read_safetensors(with_header(header))


def test_arrays_do_not_share_bytes() -> None:
    entries = {f"a{k}": {"dtype": "U8", "shape": [1000], "data_offsets": [0, 1000]} for k in range(3000)}
    tracemalloc.start()
    try:
        with pytest.raises(InvalidAnswerError, match="those of another one"):
            read_safetensors(with_header({"__metadata__": META, **entries}, b"\0" * 1000))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_empty_arrays_may_lie_anywhere_between() -> None:
    entries = {
        "b": {"dtype": "F64", "shape": [1], "data_offsets": [8, 16]},
        "none": {"dtype": "F64", "shape": [0, 7], "data_offsets": [8, 8]},
        "a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]},
    }
    arrays, _ = read_safetensors(with_header({"__metadata__": META, **entries}, b"\0" * 16))
    assert {name: array.shape for name, array in arrays.items()} == {"b": (1,), "none": (0, 7), "a": (1,)}
