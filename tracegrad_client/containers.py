"""Answers as files: the same arrays and the same document as JSON, npz or safetensors, as the server writes them, too.

Nothing is ever unpickled: arrays of objects are refused.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from tracegrad_client.errors import InvalidAnswerError
from tracegrad_client.files import write_atomically
from tracegrad_client.wire import Tensors, read_safetensors

SUFFIXES: Final = (".npz", ".json", ".safetensors")
WRITTEN: Final = (".npz", ".json")
_META: Final = "meta"


def as_document(tensors: Tensors) -> dict[str, Any]:
    """One JSON-able document: the ``meta`` document with the arrays, as lists, in its ``results``."""
    return {**tensors.meta, "results": {name: array.tolist() for name, array in tensors.arrays.items()}}


def from_document(document: Any) -> Tensors:
    """The opposite of :func:`as_document`; numbers that are no arrays stay out.

    Raises:
        InvalidAnswerError: no object with ``results``, or lists that are no arrays of numbers.
    """
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, dict):
        raise InvalidAnswerError("The document is no answer of a TraceGrad server: it has no `results`.")
    arrays = {}
    for name, value in results.items():
        if isinstance(value, list):
            try:
                arrays[str(name)] = np.array(value, dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise InvalidAnswerError(f"`{name}` is no array of numbers.") from error
    return Tensors(arrays, {name: value for name, value in document.items() if name != "results"})


def save_tensors(path: str | Path, tensors: Tensors) -> None:
    """Write a file; its suffix, .npz or .json, chooses the format.

    Raises:
        ValueError: another suffix.
        OSError: it could not be written; an older file is untouched.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        content = json.dumps(as_document(tensors), allow_nan=False).encode()
    elif path.suffix.lower() == ".npz":
        buffer = io.BytesIO()
        text = np.frombuffer(json.dumps(tensors.meta, allow_nan=False).encode(), dtype=np.uint8)
        np.savez_compressed(buffer, **tensors.arrays, **{_META: text})  # type: ignore[arg-type]
        content = buffer.getvalue()
    else:
        raise ValueError(f"{path.name} is to be written; the suffix must be one of {', '.join(WRITTEN)}.")
    write_atomically(path, content)


def load_tensors(path: str | Path) -> Tensors:
    """Read a file that :func:`save_tensors` or the server wrote.

    Raises:
        ValueError: another suffix.
        InvalidAnswerError: a file that holds something else.
        OSError: it cannot be read.
    """
    path = Path(path)
    match path.suffix.lower():
        case ".npz":
            return read_npz(path.read_bytes())
        case ".safetensors":
            return read_safetensors(path.read_bytes())
        case ".json":
            try:
                return from_document(json.loads(path.read_bytes()))
            except (ValueError, RecursionError) as error:
                raise InvalidAnswerError(f"{path.name} is not JSON.") from error
    raise ValueError(f"{path.name} is to be read; the suffix must be one of {', '.join(SUFFIXES)}.")


def read_npz(content: bytes) -> Tensors:
    """Arrays and the ``meta`` document of an npz.

    Raises:
        InvalidAnswerError: no npz, arrays of objects, or no document.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        meta = json.loads(arrays.pop(_META).tobytes())
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, RecursionError) as error:
        raise InvalidAnswerError(
            "The file is no npz of a TraceGrad answer: arrays of numbers, and the entry `meta`.",
            hint="Guess.save() and `tracegrad guess -o name.npz` write such files.",
        ) from error
    if not isinstance(meta, dict):
        raise InvalidAnswerError("The `meta` document of the npz is not a JSON object.")
    return Tensors(arrays, meta)
