"""One thing done for many structures: several requests at a time, progress, and a failure that costs one structure."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from tracegrad_client.commands.inputs import Input
from tracegrad_client.errors import AuthenticationError, ServerUnreachableError, TraceGradError

T = TypeVar("T")
AT_A_TIME: Final = 4
HOPELESS: Final = (ServerUnreachableError, AuthenticationError)
"""What one structure's request failed for, every other's will."""


def add_parallel(parser: argparse.ArgumentParser) -> None:
    """The argument that says how many requests are on their way at a time."""
    parser.add_argument(
        "--parallel",
        type=_positive,
        default=AT_A_TIME,
        metavar="N",
        help="of many structures, requests on their way at a time; the server computes them together (default: %(default)d)",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("give a number from 1 on")
    return number


def done_for_each(
    inputs: Sequence[Input], work: Callable[[Input], T], parallel: int
) -> Iterator[tuple[Input, T | TraceGradError]]:
    """What became of each structure, in order; the rest is not sent where the server is not there or the key is no good."""

    def attempt(each: Input) -> T | TraceGradError:
        if each.error is not None:
            return each.error
        try:
            return work(each)
        except TraceGradError as error:
            return error

    with ThreadPoolExecutor(min(parallel, max(1, len(inputs)))) as pool:
        try:
            for each, outcome in _shown(zip(inputs, pool.map(attempt, inputs), strict=True), len(inputs)):
                yield each, outcome
                if isinstance(outcome, HOPELESS):
                    return
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _shown(pairs: Iterator[T], count: int) -> Iterator[T]:
    """With a bar on a terminal, where tqdm is installed."""
    if count > 1 and sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ImportError:
            pass
        else:
            return iter(tqdm(pairs, total=count, unit="structure", file=sys.__stderr__, leave=False))
    return pairs


def tell(error: TraceGradError, each: Input | None = None) -> None:
    """Say on standard error what went wrong, with a structure or with everything."""
    where = "" if each is None else f"{each.name}: "
    if each is not None and each.first_line > 1:
        where = f"{each.name} (from line {each.first_line}): "
    field = f" (field {error.field})" if error.field else ""
    print(f"tracegrad: {where}{error.code}: {error.detail}{field}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    if error.request_id:
        print(f"request: {error.request_id}", file=sys.stderr)


def warn(texts: Sequence[str], each: Input | None = None) -> None:
    """Pass on what the server had to say."""
    where = "" if each is None else f"{each.name}: "
    for text in texts:
        print(f"warning: {where}{text}", file=sys.stderr)


def summed_up(done: int, count: int) -> int:
    """The exit status, and of many structures a line about them."""
    if count > 1:
        failed = f", {count - done} not" if done < count else ""
        print(f"{done} of {count} structures done{failed}", file=sys.stderr)
    return 0 if done == count else 1
