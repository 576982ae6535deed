"""Reads pickles of plain values (numbers, text, bytes, containers of them) and nothing else.

A pickle is a program. Its only ways to reach code are the opcodes that name something by module (GLOBAL, STACK_GLOBAL,
INST, the extension registry) and persistent ids; here all of them are refused, so nothing can be called, built or
imported. The published LMDB rows are dicts of int, str and bytes and need none.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any, Final, NoReturn

_INTEGERS: Final = ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG")
_MEMO: Final = ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT")


class UnsafePickleError(Exception):
    """The pickle names code, or is not a pickle."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> NoReturn:
        raise UnsafePickleError(f"it wants to call {module}.{name}")

    def persistent_load(self, pid: Any, /) -> NoReturn:
        raise UnsafePickleError("it refers to objects outside itself")


def loads(data: bytes) -> Any:
    """The value of a pickle.

    Raises:
        UnsafePickleError: it names anything that could be called, or is damaged.
    """
    try:
        return _PlainUnpickler(io.BytesIO(data)).load()
    except UnsafePickleError:
        raise
    except Exception as error:  # a damaged pickle raises whatever its opcodes run into
        raise UnsafePickleError(f"it is damaged ({type(error).__name__}: {error})") from error


def peek_int(head: bytes, key: str) -> int:
    """An integer of a pickled dict, from the pickle's first bytes: nothing is built, and what follows is not read.

    Args:
        head: the beginning of the pickle, up to and including the integer.
        key: of the dict.

    Raises:
        UnsafePickleError: no such key with an integer right behind it.
    """
    found = False
    try:
        for opcode, argument, _ in pickletools.genops(head):
            if found and opcode.name in _INTEGERS and isinstance(argument, int):
                return argument
            if opcode.name not in _MEMO:
                found = "UNICODE" in opcode.name and argument == key
    except ValueError as error:
        raise UnsafePickleError(f"it is damaged or has no integer {key!r} in its first {len(head)} bytes") from error
    raise UnsafePickleError(f"it has no integer {key!r}")
