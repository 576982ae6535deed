"""The way out of a model: it finishes what has been asked of it, then its engine ends and its memory goes back.

A request first looks a model up, then reads its structure, then queues it. Between these steps the model may be replaced; its
engine must stay open until the last such request has its answer. So an engine is closed when no one holds its
``LoadedModel`` any more, which Python tells through a weak reference: nobody who uses a model needs to say so.
"""

from __future__ import annotations

import gc
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from model.predictor import Predictor
    from service.checkpoints.registry import LoadedModel
    from service.serving.local import Engine

logger = logging.getLogger(__name__)

COLLECT_AFTER_S: Final = 60.0
"""A request that failed may be kept, and the model with it, by a cycle of its exception: look for such cycles so often."""


class Retirement:
    """Waits, in a thread of its own, until a model is not used any more, and ends it.

    Args:
        model: no longer in the registry.
        done: called with this object at the end.
    """

    def __init__(self, model: LoadedModel, done: Callable[[Retirement], object]) -> None:
        # SimpleQueue.put may be called from anywhere, garbage collection in the midst of another thread's lock included
        self._let_go: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._finalizer = weakref.finalize(model, self._let_go.put, None)
        self._finalizer.atexit = False
        self._engine: Engine | None = model.engine
        self._predictor: weakref.ref[Predictor] = weakref.ref(model.predictor)
        self._on_cuda = str(getattr(model.predictor, "device", "cpu")).startswith("cuda")
        self._done = done
        self._name = model.name
        self._thread = threading.Thread(target=self._work, name=f"retire-{model.name}", daemon=True)

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def hurry(self) -> None:
        """Close the engine whoever holds the model, and return when that is done: the service shuts down."""
        self._let_go.put(None)
        self._thread.join()

    def _work(self) -> None:
        started = time.perf_counter()
        while True:
            try:
                self._let_go.get(timeout=COLLECT_AFTER_S)
                break
            except queue.Empty:
                gc.collect()
        assert self._engine is not None
        try:
            self._engine.close()
        finally:
            self._engine = None
            self._release()
            self._done(self)
        logger.info("released %s, %.1f s after it was replaced", self._name, time.perf_counter() - started)

    def _release(self) -> None:
        if self._predictor() is not None:
            gc.collect()
        if self._on_cuda:
            import torch

            torch.cuda.empty_cache()  # torch keeps freed blocks for itself, and another process may need them
