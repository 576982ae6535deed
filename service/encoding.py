"""An answer as bytes: JSON, npz or safetensors. The same names everywhere; no objects and no pickle."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import orjson
import safetensors.numpy
from numpy.typing import NDArray

from service.answers import Result

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def dump_json(value: Any) -> bytes:
    """Compact JSON; NumPy arrays become lists. NaN does not occur in answers: the model refuses it before."""
    return orjson.dumps(value, option=_OPTIONS)


def encode_json(result: Result) -> bytes:
    """The whole answer as JSON."""
    results: dict[str, Any] = {**result.arrays, **result.scalars}
    if result.blocks is not None:
        results["blocks"] = [
            {"i": i, "j": j, "shift": [0, 0, 0], "matrix": matrix} for (i, j), matrix in result.blocks.items()
        ]
    return dump_json(_envelope(result, results))


def encode_npz(result: Result) -> bytes:
    """Arrays under their names; ``meta`` is a uint8 array with the JSON of the rest."""
    buffer = io.BytesIO()
    np.savez(buffer, **_binary_arrays(result), meta=np.frombuffer(meta_json(result), dtype=np.uint8))  # type: ignore[arg-type]
    return buffer.getvalue()


def encode_safetensors(result: Result) -> bytes:
    """Arrays under their names; the header's metadata holds the JSON of the rest under ``meta``."""
    return safetensors.numpy.save(_binary_arrays(result), metadata={"meta": meta_json(result).decode()})


def meta_json(result: Result) -> bytes:
    """The answer less its arrays: for binary formats."""
    results: dict[str, Any] = dict(result.scalars)
    if result.blocks is not None:
        results["blocks"] = [{"i": i, "j": j, "shift": [0, 0, 0]} for i, j in result.blocks]
    return dump_json(_envelope(result, results))


def _envelope(result: Result, results: dict[str, Any]) -> dict[str, Any]:
    return {
        "meta": result.meta.model_dump(),
        "results": results,
        "checks": result.checks.model_dump(),
        "warnings": result.warnings,
        "defaults_applied": result.defaults_applied,
    }


def _binary_arrays(result: Result) -> dict[str, NDArray[Any]]:
    """All arrays by name; block (i, j) is ``blocks.i.j``."""
    blocks = result.blocks or {}
    return {**result.arrays, **{f"blocks.{i}.{j}": matrix for (i, j), matrix in blocks.items()}}
