"""Predictions by content: the same structure, weights and code give the same answer, so it is kept for a while.

Bounded by bytes, least recently used first out. Also the ETag of an answer, which needs no prediction at all.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model.structure import Structure
from service.serving.turns import KEY_CALLER, caller

if TYPE_CHECKING:
    from model.predictor import CrystalPrediction, Prediction

    AnyPrediction = Prediction | CrystalPrediction

PACKAGES: Final = ("model", "service")
SOURCE_SUFFIXES: Final = frozenset({".py", ".c"})


class PredictionCache:
    """Predictions by :func:`content_key`; safe to use from several threads.

    Args:
        max_bytes: of all arrays held; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, tuple[AnyPrediction, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """Bytes held now."""
        return self._bytes

    def get(self, key: str) -> AnyPrediction | None:
        """The stored prediction, if there is one."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: str, prediction: AnyPrediction) -> None:
        """Store a prediction; one that alone is too large is not."""
        size = array_bytes(prediction)
        if hasattr(prediction, "integrals"):  # of a crystal; what they keep once they are read is as large as H(R)
            size += array_bytes(prediction.hamiltonian)
        if size > self._max_bytes:
            return
        with self._lock:
            _, replaced = self._entries.pop(key, (None, 0))
            self._entries[key] = (prediction, size)
            self._bytes += size - replaced
            while self._bytes > self._max_bytes:
                _, (_, freed) = self._entries.popitem(last=False)
                self._bytes -= freed


@cache
def code_fingerprint() -> str:
    """SHA-256 over the source files of the packages that make an answer, as installed.

    Weights alone do not say what is predicted from them: a change of the code is a change of the answer.
    """
    specs = [find_spec(package) for package in PACKAGES]
    return digest_of_sources(
        [Path(folder) for spec in specs if spec for folder in spec.submodule_search_locations or ()]
    )


def digest_of_sources(folders: Sequence[Path]) -> str:
    """SHA-256 over names and contents of the source files in some folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.suffix in SOURCE_SUFFIXES):
            digest.update(f"{path.relative_to(folder.parent).as_posix()}\n".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def content_key(weights_sha256: str, structure: Structure, *, orbitals: bool) -> str:
    """SHA-256 of the code, of the weights' digest and of everything else that a prediction depends on."""
    state = f"{code_fingerprint()} {weights_sha256} {structure.charge} {structure.multiplicity} {orbitals}"
    digest = hashlib.sha256(state.encode())
    for array in (structure.numbers, structure.positions_angstrom, structure.cell_angstrom, structure.pbc):
        given = np.asarray(() if array is None else array, dtype=np.float64)
        digest.update(np.ascontiguousarray(given + 0.0).tobytes() + b"|")  # + 0.0: minus zero is zero
    return digest.hexdigest()


def own_key(key: str) -> str:
    """The key under which a prediction is kept for who asks: where keys are on, nobody's answer tells what others asked."""
    who = caller.get()
    return f"{who} {key}" if who.startswith(KEY_CALLER) else key


def entity_tag(key: str, options: Sequence[object]) -> str:
    """Weak ETag of an answer: two with the same one differ at most in request id and timings."""
    return f'W/"{hashlib.sha256(repr((key, *options)).encode()).hexdigest()[:32]}"'


def matches(if_none_match: str | None, tag: str) -> bool:
    """Whether an If-None-Match header names a tag (weak comparison, RFC 9110 section 13.1.2)."""
    if if_none_match is None:
        return False
    strip = tag.removeprefix("W/")
    return any(part.strip().removeprefix("W/") == strip or part.strip() == "*" for part in if_none_match.split(","))


def array_bytes(value: Any) -> int:
    """Bytes of all arrays inside a dataclass, nested ones included."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if is_dataclass(value) and not isinstance(value, type):
        return sum(array_bytes(getattr(value, field.name)) for field in fields(value))
    return sum(map(sys.getsizeof, value)) if isinstance(value, tuple) else 0
