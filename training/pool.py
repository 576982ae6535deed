"""Worker processes for chemistry: one thread each, because many small matrices leave nothing to a second one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
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
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=start_worker) as pool:
        yield from tqdm(pool.map(work, items, chunksize=chunk), total=total, desc=title, mininterval=5.0)


def start_worker() -> None:
    """Make this worker process single-threaded, and let it end with the process that started it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # for libraries that are loaded later and bring their own OpenMP, as tblite does
    os.environ["OMP_NUM_THREADS"] = "1"
    from pyscf import lib

    lib.num_threads(1)
    threadpool_limits(1)


def _end_with_parent() -> None:
    """A killed parent cannot say that the work is not wanted any more; its workers would go on with what they have."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
