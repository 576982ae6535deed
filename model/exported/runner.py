"""Runs a package, by the C interface that AOTInductor gives every one.

Not by torch's own classes: they keep Python's lock during the whole pass, and unpack a package into /tmp, which may be
``noexec``. Called by ``ctypes``, other threads go on, and a package is one shared library that is loaded where it lies.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from model.architectures.interface import InputCoefficients
from model.pairs.graph import AtomGraph

logger = logging.getLogger(__name__)

RUNNERS: Final = 4
"""Passes at a time, each with a state of its own; the next one waits. The service has three threads for them."""

SMALLEST: Final = 2
"""Atoms, pairs and edges of a batch, each at least: an exported program takes sizes of 0 and 1 for constants."""

MOST_BLOCKS_OF_THREADS: Final = 1000
"""Atoms and pairs that it takes where torch has several threads: loops are compiled for one, and of large batches the network
spreads its own over all. With two threads, 1058 blocks took 0.78 of the network's time and 7957 took 1.05 of it."""

INPUTS: Final = ("numbers", "pair_index", "pair_vectors", "diagonal", "pair")
"""Of every package; one of a network that reads edges has their index and vectors besides."""

Handles = ctypes.Array[ctypes.c_void_p]
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)


class Runner:
    """A package with one output; may be called from several threads at once.

    Args:
        path: of the shared library.
        n_inputs: tensors that a pass takes.

    Raises:
        OSError: it cannot be loaded.
        RuntimeError: it is no package, or one of another number of inputs or outputs, or its weights cannot be set up.
    """

    def __init__(self, path: Path, n_inputs: int) -> None:
        self._library = ctypes.CDLL(str(path))
        try:
            self._run = self._library.AOTInductorModelContainerRun
            create, delete, count_inputs, count_outputs = (
                getattr(self._library, f"AOTInductorModelContainer{name}")
                for name in ("CreateWithDevice", "Delete", "GetNumInputs", "GetNumOutputs")
            )
            self._last_error = self._library.AOTInductorGetLastError
        except AttributeError as error:
            raise RuntimeError(f"it is no package: {error}") from error
        handles = ctypes.POINTER(ctypes.c_void_p)
        create.argtypes = [handles, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_char_p]
        delete.argtypes = [ctypes.c_void_p]
        self._last_error.argtypes = [ctypes.POINTER(ctypes.c_char_p)]
        arrays = (handles, ctypes.c_size_t, handles, ctypes.c_size_t)
        self._run.argtypes = (ctypes.c_void_p, *arrays, ctypes.c_void_p, ctypes.c_void_p)
        self._container = ctypes.c_void_p()
        self._check(create(ctypes.byref(self._container), RUNNERS, b"cpu", None))
        weakref.finalize(self, delete, self._container).atexit = False
        found = []
        for count in (count_inputs, count_outputs):
            number = ctypes.c_size_t()
            count.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)]
            self._check(count(self._container, ctypes.byref(number)))
            found.append(number.value)
        if found != [n_inputs, 1]:  # the library would end the process
            raise RuntimeError(f"it has {found[0]} inputs and {found[1]} outputs in place of {n_inputs} and 1")

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """One pass.

        Args:
            inputs: contiguous, in the types and dimensions that were exported; nothing here checks them.

        Raises:
            RuntimeError: the pass failed, for instance for want of memory.
        """
        allocated = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(list(inputs))
        given: Handles = (ctypes.c_void_p * len(inputs))(*(_pointer(capsule, None) for capsule in allocated))
        found: Handles = (ctypes.c_void_p * 1)()
        # the library takes the inputs over, and releases them whatever happens
        self._check(self._run(self._container, given, len(given), found, len(found), None, None))
        (output,) = torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs([_capsule(found[0], None, None)])
        return output

    def _check(self, status: int) -> None:
        if status:
            text = ctypes.c_char_p()
            self._last_error(ctypes.byref(text))
            raise RuntimeError((text.value or b"no reason is given").decode(errors="replace"))


class ExportedForward:
    """The forward pass of a package, as ``HamiltonianModel.exported``.

    Args:
        path: of the package.
        reads_edges: whether the network reads the graph's edges.

    Raises:
        OSError, RuntimeError: as of :class:`Runner`.
    """

    def __init__(self, path: Path, *, reads_edges: bool) -> None:
        self.path = path
        self._reads_edges = reads_edges
        self._runner = Runner(path, len(INPUTS) + 2 * reads_edges)

    def __call__(self, graph: AtomGraph, raw: InputCoefficients) -> Tensor | None:
        """Blocks of a batch; None where the package does not take it, or has failed."""
        arguments = flat_arguments(graph, raw, reads_edges=self._reads_edges)
        sizes = (graph.n_atoms, graph.n_pairs, *([graph.edge_vectors.shape[0]] if self._reads_edges else []))
        known = all(value.device.type == "cpu" and value.dtype in (torch.int64, torch.float32) for value in arguments)
        too_large = graph.n_blocks > MOST_BLOCKS_OF_THREADS and torch.get_num_threads() > 1
        if not known or too_large or min(sizes) < SMALLEST:
            return None
        try:
            return self._runner(arguments)
        except RuntimeError as error:
            logger.warning("a pass of %s failed, the network itself runs: %s", self.path.name, error)
            return None


def flat_arguments(graph: AtomGraph, raw: InputCoefficients, *, reads_edges: bool) -> list[Tensor]:
    """What an exported program takes of a batch: numbers, pairs, known matrices, and edges where they are read."""
    edges = (graph.edge_index, graph.edge_vectors) if reads_edges else ()
    arguments = (graph.numbers, graph.pair_index, graph.pair_vectors, raw.diagonal, raw.pair, *edges)
    return [value.contiguous() for value in arguments]
