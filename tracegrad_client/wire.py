"""Binary answers: the safetensors format read by hand with numpy, every declared size checked before use.

The format is eight bytes (little-endian length of the header), a JSON header that gives dtype, shape and byte range of
each array, then the raw bytes. It holds no code and no compression, so an answer can never need more memory than its
own length. Reading it takes a page of code; a dependency would cost more than that at every installation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracegrad_client.errors import InvalidAnswerError

MEDIA_TYPE: Final = "application/vnd.safetensors"
MAX_HEADER_BYTES: Final = 16 << 20
MAX_DIMENSIONS: Final = 8
MAX_EXTENT: Final = 1 << 48
_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


class Tensors(NamedTuple):
    """Arrays by name, and the JSON document that came with them; what is read from them is checked."""

    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]

    def about(self) -> dict[str, Any]:
        """What the document says of the model that made the answer (its ``meta`` object)."""
        about = self.meta.get("meta")
        if not isinstance(about, dict):
            raise InvalidAnswerError("The answer does not say which model made it (`meta` is missing).")
        return about

    def checks(self) -> dict[str, Any]:
        """What the server checked of the answer; empty if it says nothing."""
        checks = self.meta.get("checks")
        return checks if isinstance(checks, dict) else {}

    def in_domain(self) -> bool:
        """Whether the structure is of the kind that the model was tested on."""
        return self.checks().get("in_domain") is True

    def warnings(self) -> tuple[str, ...]:
        """What the server had to say."""
        return warnings_of(self.meta)

    def ao_labels(self) -> tuple[str, ...]:
        """One label for each orbital, ``"0 O 2px"``."""
        labels = self.about().get("ao_labels")
        if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
            raise InvalidAnswerError("The answer has no `ao_labels`.")
        return tuple(labels)

    def float64(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Array ``name`` as finite float64 numbers of this shape."""
        array = self.arrays.get(name)
        if array is None or array.shape != shape:
            raise InvalidAnswerError(f"`{name}` should have shape {shape}; it is {_told(array)}.")
        values = array.astype(np.float64)
        if not np.isfinite(values).all():
            raise InvalidAnswerError(f"`{name}` holds numbers that are not finite.")
        return values

    def columns(self, name: str, rows: int) -> NDArray[np.float64]:
        """Array ``name`` as finite float64 numbers, shape (rows, columns) with 0 < columns <= rows."""
        array = self.arrays.get(name)
        if array is None or array.ndim != 2 or not 0 < array.shape[1] <= rows:
            raise InvalidAnswerError(f"`{name}` should have {rows} rows; it is {_told(array)}.")
        return self.float64(name, (rows, array.shape[1]))


def warnings_of(document: Mapping[str, Any]) -> tuple[str, ...]:
    """The warnings of an answer's JSON document; none if they are no list."""
    warnings = document.get("warnings")
    return tuple(str(text) for text in warnings) if isinstance(warnings, list) else ()


def read_safetensors(body: bytes) -> Tensors:
    """Arrays (own memory, writable) and the ``meta`` document of a safetensors answer.

    Raises:
        InvalidAnswerError: a header that does not fit the bytes behind it.
    """
    if len(body) < 8:
        raise InvalidAnswerError(f"A safetensors answer of {len(body)} bytes is cut off.")
    size = int.from_bytes(body[:8], "little")
    if size > min(MAX_HEADER_BYTES, len(body) - 8):
        raise InvalidAnswerError(f"The safetensors header claims {size} bytes; the answer has {len(body) - 8}.")
    header = _json_object(body[8 : 8 + size], "The safetensors header")
    data = memoryview(body)[8 + size :]
    metadata = header.pop("__metadata__", {})
    text = metadata.get("meta") if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise InvalidAnswerError("The safetensors answer has no `meta` document.")
    entries = {name: _entry(name, entry, len(data)) for name, entry in header.items()}
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start < end:
            raise InvalidAnswerError(f"The bytes of array {name!r} are those of another one, too.")
        end = max(end, entry.stop)
    arrays = {name: _array(entry, data) for name, entry in entries.items()}
    return Tensors(arrays, _json_object(text, "The `meta` document"))


def _json_object(text: str | bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidAnswerError(f"{what} is not JSON.") from error
    if not isinstance(value, dict):
        raise InvalidAnswerError(f"{what} is not a JSON object.")
    return value


class _Entry(NamedTuple):
    """An array's place, checked by itself."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int


def _entry(name: str, entry: object, size: int) -> _Entry:
    if not isinstance(entry, dict):
        raise InvalidAnswerError(f"The entry of array {name!r} is not an object.")
    dtype = _DTYPES.get(str(entry.get("dtype")))
    if dtype is None:
        raise InvalidAnswerError(f"Array {name!r} has dtype {entry.get('dtype')!r}; known are {', '.join(_DTYPES)}.")
    shape = _counts(entry.get("shape"))
    offsets = _counts(entry.get("data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2:
        raise InvalidAnswerError(f"Array {name!r} has no usable shape and byte range.")
    start, stop = offsets
    fits = start <= stop <= size and math.prod(shape) * dtype.itemsize == stop - start
    # numpy has limits of its own, on empty arrays too
    extent = math.prod(length or 1 for length in shape) * dtype.itemsize
    if not fits or len(shape) > MAX_DIMENSIONS or extent > MAX_EXTENT:
        raise InvalidAnswerError(f"Array {name!r} does not have the shape and the byte range that it declares.")
    return _Entry(dtype, tuple(shape), start, stop)


def _array(entry: _Entry, data: memoryview) -> NDArray[Any]:
    dtype, shape, start, stop = entry
    return np.frombuffer(data[start:stop], dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=True)


def _counts(value: object) -> list[int] | None:
    if not isinstance(value, list) or not all(type(item) is int and item >= 0 for item in value):
        return None
    return value


def _told(array: NDArray[Any] | None) -> str:
    return "missing" if array is None else f"of shape {array.shape}"
