"""An answer as bytes: JSON, npz or safetensors. The same names everywhere; no objects and no pickle."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
import safetensors.numpy
from numpy.typing import NDArray

from service.answers.arrays import Result
from service.answers.lattice_blocks import flat_arrays, listed_blocks, real_parts
from service.errors import Problem

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def dump_json(value: Any) -> bytes:
    """Compact JSON; NumPy arrays become lists. NaN does not occur in answers: the model refuses it before."""
    return orjson.dumps(value, option=_OPTIONS)


def encode_json(result: Result) -> bytes:
    """The whole answer as JSON."""
    return dump_json(_envelope(result, _json_results(result)))


def encode_npz(result: Result) -> bytes:
    """Arrays under their names; ``meta`` is a uint8 array with the JSON of the rest."""
    return _npz(_binary_arrays(result), meta_json(result))


def encode_safetensors(result: Result) -> bytes:
    """Arrays under their names; the header's metadata holds the JSON of the rest under ``meta``."""
    arrays = _without_complex(_binary_arrays(result))
    return safetensors.numpy.save(arrays, metadata={"meta": meta_json(result).decode()})


ENCODERS: Final[Mapping[str, Callable[[Result], bytes]]] = {
    "json": encode_json,
    "npz": encode_npz,
    "safetensors": encode_safetensors,
}

BatchEntry = Result | Problem
"""What became of one structure of a batch."""


def encode_batch(name: str, meta: Mapping[str, Any], entries: Sequence[BatchEntry]) -> bytes:
    """A batch as JSON, npz or safetensors; arrays of structure k are named ``k.`` and their name.

    Args:
        name: of the format.
        meta: of the whole batch.
        entries: in the order of the structures.
    """
    if name == "json":
        return dump_json({"meta": meta, "items": _items(entries, _json_results)})
    header = dump_json({"meta": meta, "items": _items(entries, _scalar_results)})
    arrays = {
        f"{index}.{key}": array
        for index, entry in enumerate(entries)
        if isinstance(entry, Result)
        for key, array in _binary_arrays(entry).items()
    }
    return _npz(arrays, header) if name == "npz" else safetensors.numpy.save(arrays, metadata={"meta": header.decode()})


def _items(entries: Sequence[BatchEntry], results: Callable[[Result], dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"index": index, "status": 200, "answer": _envelope(entry, results(entry))}
        if isinstance(entry, Result)
        else {"index": index, "status": entry.status, "problem": entry.body}
        for index, entry in enumerate(entries)
    ]


def meta_json(result: Result) -> bytes:
    """The answer less its arrays: for binary formats."""
    return dump_json(_envelope(result, _scalar_results(result)))


def _json_results(result: Result) -> dict[str, Any]:
    results: dict[str, Any] = {**_without_complex(result.arrays), **result.scalars}
    if result.blocks is not None:
        results["blocks"] = [
            {"i": i, "j": j, "shift": [0, 0, 0], "matrix": matrix} for (i, j), matrix in result.blocks.items()
        ]
    for name, blocks in result.lattice_blocks.items():
        results[name] = listed_blocks(blocks, matrices=True)
    return results


def _scalar_results(result: Result) -> dict[str, Any]:
    results: dict[str, Any] = dict(result.scalars)
    if result.blocks is not None:
        results["blocks"] = [{"i": i, "j": j, "shift": [0, 0, 0]} for i, j in result.blocks]
    for name, blocks in result.lattice_blocks.items():
        results[name] = listed_blocks(blocks, matrices=False)
    return results


def _npz(arrays: Mapping[str, NDArray[Any]], header: bytes) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, meta=np.frombuffer(header, dtype=np.uint8))  # type: ignore[arg-type]
    return buffer.getvalue()


def _without_complex(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """For formats that have no complex numbers: a last axis of real and imaginary part."""
    return {name: real_parts(array) if np.iscomplexobj(array) else array for name, array in arrays.items()}


def _envelope(result: Result, results: dict[str, Any]) -> dict[str, Any]:
    return {
        "meta": result.meta.model_dump(),
        "results": results,
        "checks": result.checks.model_dump(),
        "warnings": result.warnings,
        "defaults_applied": result.defaults_applied,
    }


def _binary_arrays(result: Result) -> dict[str, NDArray[Any]]:
    """All arrays by name; block (i, j) of a molecule is ``blocks.i.j``."""
    blocks = result.blocks or {}
    named = {f"blocks.{i}.{j}": matrix for (i, j), matrix in blocks.items()}
    return {**result.arrays, **named, **flat_arrays(result.lattice_blocks)}
