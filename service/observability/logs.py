"""Log lines: text or JSON, each with the request that it belongs to, none with what a caller sent.

A context variable holds the fields of the current request. Whoever learns more of it says so with :func:`note`; work that
moves to another thread takes the fields along with :func:`bind`.

Two things keep logs honest. A character that is not printable is written as an escape, so no value can begin a new line.
The text of an exception that is not our own may quote the input, so it is logged at level ``debug`` only; at the others a
traceback has its frames and the names of its exceptions.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime
from functools import wraps
from types import TracebackType
from typing import Final, ParamSpec, TextIO, TypeVar

from model.errors import ModelError
from service.errors import ServiceError
from service.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")
Field = str | int | float
ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

FIELDS: Final = (
    "request_id",
    "trace_id",
    "key_name",
    "method",
    "route",
    "status",
    "code",
    "seconds",
    "bytes",
    "model",
)
"""All that a line says besides time, level, logger and message. Anything else that a library attaches stays out."""

_MAX_CHAIN: Final = 8
_fields: ContextVar[dict[str, Field] | None] = ContextVar("log_fields", default=None)


@contextmanager
def context(**fields: Field) -> Iterator[None]:
    """Add fields (of :data:`FIELDS`) to all lines inside."""
    token = _fields.set({**(_fields.get() or {}), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


def note(**fields: str | None) -> None:
    """Say more of the current request: all its lines from now on have it, the last one included.

    Args:
        fields: of :data:`FIELDS`; names of keys and of loaded models, never what the caller wrote. None says nothing.
    """
    current = _fields.get()
    if current is not None:
        current.update({name: value for name, value in fields.items() if value is not None})


def bind(function: Callable[P, T]) -> Callable[P, T]:
    """The function, to be called in another thread with the fields (and the trace) of this moment."""
    bound = copy_context()

    @wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> T:
        # a copy for each call: a context cannot be entered twice at a time
        return bound.copy().run(function, *arguments, **options)

    return call


def configure_logging(settings: Settings) -> None:
    """Send all loggers of the process, and Python's warnings, to standard error in the chosen format."""
    handler = make_handler(settings, sys.stderr)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)


def make_handler(settings: Settings, stream: TextIO) -> logging.Handler:
    """A handler that writes lines of the chosen format."""
    handler = logging.StreamHandler(stream)
    with_text = settings.log_level == "debug"
    handler.setFormatter(_JsonLines(with_text) if settings.log_format == "json" else _TextLines(with_text))
    return handler


class _TextLines(logging.Formatter):
    """``time LEVEL logger: message name=value ...``; the lines of a traceback follow, each behind a bar."""

    def __init__(self, with_text: bool) -> None:
        super().__init__()
        self._with_text = with_text

    def format(self, record: logging.LogRecord) -> str:
        line = f"{utc_text(record.created)} {record.levelname} {record.name}: {printable(record.getMessage())}"
        line += "".join(f" {name}={_value(value)}" for name, value in _fields_of(record).items())
        return line + "".join(f"\n  | {entry}" for entry in self._exception(record))

    def _exception(self, record: logging.LogRecord) -> list[str]:
        return exception_lines(record.exc_info, self._with_text) if record.exc_info else []


class _JsonLines(_TextLines):
    """One JSON object for each record."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Field] = {"time": utc_text(record.created), "level": record.levelname.lower()}
        entry |= {"logger": record.name, "message": record.getMessage(), **_fields_of(record)}
        if record.exc_info:
            entry["exception"] = "\n".join(self._exception(record))
        return json.dumps(entry)


def printable(text: str) -> str:
    """The text with an escape for everything that is not printable: line breaks, terminal codes, text direction."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def exception_lines(info: ExceptionInfo, with_text: bool) -> list[str]:
    """A traceback, one entry for each line, the cause first.

    Args:
        info: as in ``sys.exc_info``.
        with_text: whether to add the texts of exceptions that are not our own.
    """
    chain: list[BaseException] = []
    error = info[1]
    while error is not None and error not in chain and len(chain) < _MAX_CHAIN:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    lines: list[str] = []
    for error in reversed(chain):
        lines += [line for entry in traceback.format_tb(error.__traceback__) for line in entry.splitlines()]
        name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
        # the texts of our own errors hold no input: they go out in problems
        own = isinstance(error, (ModelError, ServiceError))
        lines.append(f"{name}: {printable(str(error))}" if with_text or own else name)
    return lines


def _fields_of(record: logging.LogRecord) -> Mapping[str, Field]:
    known = {**(_fields.get() or {}), **record.__dict__}
    return {name: known[name] for name in FIELDS if isinstance(known.get(name), (str, int, float))}


def utc_text(seconds: float) -> str:
    """A time since 1970 as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _value(value: Field) -> str:
    text = str(value)
    plain = text.isprintable() and not any(char in text for char in ' "=')
    return text if plain and text else json.dumps(text)
