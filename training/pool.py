"""Worker processes for chemistry: one thread each, because many small matrices leave nothing to a second one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from threadpoolctl import threadpool_limits
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(
    work: Callable[[Item], Result], items: Iterable[Item], *, total: int, processes: int, title: str, chunk: int = 4
) -> Iterator[Result]:
    """Results in order, with a progress bar.

    Workers are spawned, not forked: a fork inherits locked thread pools of BLAS and OpenMP. With ``processes`` 0 there
    are none and the work is done here, on as many threads as this process has: for small jobs and for debuggers.
    """
    if processes == 0:
        yield from tqdm(map(work, items), total=total, desc=title, mininterval=5.0)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=one_thread) as pool:
        yield from tqdm(pool.map(work, items, chunksize=chunk), total=total, desc=title, mininterval=5.0)


def one_thread() -> None:
    """Make this process single-threaded."""
    # for libraries that are loaded later and bring their own OpenMP, as tblite does
    os.environ["OMP_NUM_THREADS"] = "1"
    from pyscf import lib

    lib.num_threads(1)
    threadpool_limits(1)
