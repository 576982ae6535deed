"""The loaded models by name, and how one leaves: at once for new requests, and not before its last one has its answer.

A name from a request is looked up in a dict and nothing else. What is loaded changes at one point in time: a request leases
either the old model or the new one, and the backend of the old one is closed when its last lease ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol, get_args

from model.structure import Structure
from service.checkpoints.catalogue import Candidate
from service.checkpoints.choice import Choice, Kind, Wanted, answers_unnamed, choose, kind_of, named, nothing_loaded
from service.checkpoints.loaded import LoadedModel
from service.errors import draining

logger = logging.getLogger(__name__)

DEFAULT_NAME: Final = "default"
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


@dataclass(frozen=True)
class _State:
    """Everything that changes when a model comes or goes; replaced as a whole."""

    models: Mapping[str, LoadedModel]
    defaults: Mapping[Kind, str | None]


class Loader(Protocol):
    """What loads checkpoints."""

    def load(self, candidate: Candidate, before_each: Callable[[str], None] | None = None) -> LoadedModel:
        """Load a checkpoint and let it pass every check."""

    def close(self) -> None:
        """End what the loaded models share; all backends have been closed."""


class Registry:
    """Models by name. Reading needs no lock; changes and leases may come from several threads.

    Args:
        models: what is loaded.
        preferred: names of the models that answer when a request leaves the choice open, the most preferred first; each is
            the default of the kind of system that it is for, for as long as it is loaded, and again when it comes back.
        loader: what loaded them, to load more; None for ready-made models.
    """

    def __init__(
        self, models: Iterable[LoadedModel], preferred: Sequence[str] = (), *, loader: Loader | None = None
    ) -> None:
        self.loader = loader
        self._preferred = preferred
        self._state = _State({}, dict.fromkeys(KINDS))
        self._replace({model.name: model for model in models})
        self._lock = threading.Lock()
        self._watchers: list[tuple[Callable[[LoadedModel], None], Callable[[str], None]]] = []
        self._leases: Counter[LoadedModel] = Counter()
        self._leaving: dict[LoadedModel, float] = {}
        self._closing: set[threading.Thread] = set()
        self._closed = False

    @property
    def names(self) -> list[str]:
        """Names of the loaded models, sorted."""
        return sorted(self._state.models)

    @property
    def defaults(self) -> Mapping[Kind, str | None]:
        """Name of the model that is preferred when a request names none, by kind of system; None where there is none."""
        return self._state.defaults

    @property
    def models(self) -> list[LoadedModel]:
        """The loaded models, sorted by name."""
        return [model for _, model in sorted(self._state.models.items())]

    def find(self, name: str) -> LoadedModel | None:
        """The model of this name, if it is loaded."""
        return self._state.models.get(name)

    def get(self, name: str) -> LoadedModel:
        """The model of this name, to look at.

        Raises:
            ServiceError: ``unknown_model``.
        """
        return named(self._state.models, name)

    @contextmanager
    def leased(self, structure: Structure, wanted: Wanted) -> Iterator[Choice]:
        """The model that answers; its backend stays open inside, whatever happens to the model meanwhile.

        Raises:
            ServiceError, DomainError: see :func:`choose`.
        """
        with self._lock:
            choice = choose(self._state.models, self._state.defaults, structure, wanted)
            self._leases[choice.model] += 1
        try:
            yield choice
        finally:
            with self._lock:
                self._leases[choice.model] -= 1
                self._close_if_idle(choice.model)

    def expect(self, name: str | None) -> None:
        """Refuse a request that no model could answer, whatever its structure.

        Raises:
            ServiceError: ``unknown_model``; for None ``not_ready`` if no model is loaded: all have been unloaded.
        """
        if name is not None:
            self.get(name)
        elif not self._state.models:
            raise nothing_loaded()

    def watch(self, loaded: Callable[[LoadedModel], None], unloaded: Callable[[str], None]) -> None:
        """Be told of the models that are there and of every change; what ``loaded`` got it may keep until the next call.

        Args:
            loaded: called with a model that serves from now on, perhaps in place of another of its name.
            unloaded: called with the name of a model that serves no more.
        """
        with self._lock:
            self._watchers.append((loaded, unloaded))
            for model in self.models:
                loaded(model)

    def install(self, model: LoadedModel) -> None:
        """New requests get this model; one of the same name finishes what has been asked of it and is released.

        Raises:
            ServiceError: ``draining`` after :meth:`close`; the model has been closed then.
        """
        with self._lock:
            refused = self._closed
            if not refused:
                old = self._state.models.get(model.name)
                self._replace({**self._state.models, model.name: model})
                for loaded, _ in self._watchers:
                    loaded(model)
                self._leave(old)
        if refused:
            model.backend.close()
            raise draining()

    def remove(self, name: str) -> None:
        """New requests no longer find this model; it finishes what has been asked of it and is released.

        Raises:
            ServiceError: ``unknown_model``.
        """
        with self._lock:
            old = self.get(name)
            self._replace({other: model for other, model in self._state.models.items() if other != name})
            for _, unloaded in self._watchers:
                unloaded(name)
            self._leave(old)

    def close(self) -> None:
        """Finish what has been asked of all models, end their backends. From a thread other than the event loop's."""
        with self._lock:
            self._closed = True
            leaving, closing = list(self._leaving), list(self._closing)
        for model in [*leaving, *self.models]:
            model.backend.close()
        for thread in closing:
            thread.join()
        if self.loader is not None:
            self.loader.close()

    def _replace(self, models: Mapping[str, LoadedModel]) -> None:
        defaults: dict[Kind, str | None] = {}
        for kind in KINDS:
            names = [name for name, model in models.items() if kind_of(model) == kind and answers_unnamed(model)]
            only = names if len(names) == 1 else []
            order = (*self._preferred, self._state.defaults[kind], DEFAULT_NAME, *only)
            defaults[kind] = next((name for name in order if name in names), None)
        self._state = _State(models, defaults)

    def _leave(self, old: LoadedModel | None) -> None:
        if old is not None:
            self._leaving[old] = time.perf_counter()
            self._close_if_idle(old)

    def _close_if_idle(self, model: LoadedModel) -> None:
        """Close a model that has left and that no one leases, in a thread: it may have to finish a forward pass."""
        if self._leases[model] > 0:
            return
        del self._leases[model]
        if model in self._leaving and not self._closed:
            # the list is the only reference, so that the memory is free before the thread ends
            thread = threading.Thread(target=self._release, args=([model], self._leaving.pop(model)), daemon=True)
            self._closing.add(thread)
            thread.start()

    def _release(self, held: list[LoadedModel], left_at: float) -> None:
        model = held.pop()
        name, on_cuda = model.name, str(getattr(model.predictor, "device", "cpu")).startswith("cuda")
        model.backend.close()
        del model
        if on_cuda:
            import torch

            torch.cuda.empty_cache()  # torch keeps freed blocks for itself, and another process may need them
        with self._lock:
            self._closing.discard(threading.current_thread())
        logger.info("released %s, %.1f s after it was replaced", name, time.perf_counter() - left_at)
