"""Own kernels in C for the CPU: compiled on first use, if the machine has a C compiler, and gone with the process.

A kernel takes part of a second to compile, so nothing is kept on disk: no stale file, and always this processor's
instructions. Where there is a library beside the source that was compiled beforehand (``kernel_files``, for images without a
compiler), it is taken. Every kernel is a faster form of a plain torch function, or of a library's, which stays and serves
wherever no kernel can.
"""

from __future__ import annotations

import ctypes
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from model.nn import kernel_files

COMPILERS = ("cc", "gcc", "clang")
C_TYPES = {torch.float32: "float", torch.float64: "double"}

_log = logging.getLogger(__name__)


def usable(like: Tensor) -> bool:
    """Whether a kernel may stand in for torch: on the CPU, where nothing records gradients or a graph."""
    recorded = torch.is_grad_enabled() or torch.compiler.is_compiling()
    return like.device.type == "cpu" and like.dtype in C_TYPES and not recorded


@cache
def library(source: Path, dtype: torch.dtype) -> ctypes.CDLL | None:
    """A C file compiled with REAL as this dtype; None, and one line in the log, where that cannot be done."""
    ready = kernel_files.find(source, C_TYPES[dtype])
    if ready is not None:
        try:
            loaded = ctypes.CDLL(str(ready))
        except OSError as error:
            _log.warning("%s cannot be loaded: %s", ready.name, error)
        else:
            _log.info("%s runs as %s", source.stem, ready.name)
            return loaded
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        _log.info("no C compiler (%s): %s runs in its slower form", ", ".join(COMPILERS), source.stem)
        return None
    try:
        # deleted once it is loaded: the process keeps its mapping
        with tempfile.TemporaryDirectory(prefix="tracegrad-") as folder:
            built = Path(folder) / f"{source.stem}.so"
            command = [
                compiler,
                *kernel_files.FLAGS,
                "-march=native",
                f"-DREAL={C_TYPES[dtype]}",
                str(source),
                "-o",
                str(built),
            ]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
            return ctypes.CDLL(str(built))
    except (OSError, subprocess.SubprocessError) as error:
        reason = error.stderr if isinstance(error, subprocess.CalledProcessError) else error
        _log.warning("%s could not be compiled, its slower form runs: %s", source.stem, reason)
        return None


def address(array: Tensor) -> ctypes.c_void_p:
    """Where a contiguous tensor's numbers start."""
    assert array.is_contiguous()
    return ctypes.c_void_p(array.data_ptr())


def in_parts(work: Callable[[int, int], None], n_items: int, fewest: int = 1) -> None:
    """Call ``work(begin, end)`` for parts of some items, as many at once as torch has threads.

    Args:
        work: a call into C, which lets the other threads run.
        n_items: of all parts together.
        fewest: items that are worth a thread.
    """
    count = max(1, min(torch.get_num_threads(), n_items // fewest))
    if count == 1:
        work(0, n_items)
        return
    ends = [n_items * index // count for index in range(count + 1)]
    list(_threads(count).map(work, ends[:-1], ends[1:]))


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="kernel")
