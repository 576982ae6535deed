"""Finished: what an evaluation has done so far, on disk, so that the same command goes on where it was stopped.

JSON Lines: the first line says what was evaluated (weights, data, settings), every other one is a finished structure. A file
about something else is begun anew; a last line that a kill cut off is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.atomic import write_text

FILE = "finished.jsonl"


class Finished:
    """Results by key.

    Args:
        path: the file; None keeps them in memory alone.
        of: what the results depend on, JSON-able.
    """

    def __init__(self, path: Path | None, of: Mapping[str, Any]) -> None:
        self.path = path
        self.values: dict[str, Any] = {}
        if path is None:
            return
        head = json.dumps({"of": of}, sort_keys=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        kept = [head]
        if lines and lines[0] == head:
            for line in lines[1:]:
                try:
                    entry = json.loads(line)
                except ValueError:
                    break
                self.values[entry["key"]] = entry["value"]
                kept.append(line)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "\n".join(kept) + "\n")

    def get(self, key: str) -> Any | None:
        """The result of a structure, None if it is not finished."""
        return self.values.get(key)

    def put(self, key: str, value: Any) -> Any:
        """Keep a result, on disk too; returns what :meth:`get` will give."""
        line = json.dumps({"key": key, "value": value})
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        self.values[key] = json.loads(line)["value"]
        return self.values[key]


def packed(array: NDArray[Any]) -> dict[str, Any]:
    """An array of few entries that are not zero, JSON-able."""
    flat = array.ravel()
    places = np.flatnonzero(flat)
    return {"shape": list(array.shape), "at": places.tolist(), "values": flat[places].tolist()}


def unpacked(stored: Mapping[str, Any], kind: Any = np.float64) -> NDArray[Any]:
    """Inverse of :func:`packed`."""
    flat = np.zeros(int(np.prod(stored["shape"])), dtype=kind)
    flat[stored["at"]] = stored["values"]
    return flat.reshape(stored["shape"])
