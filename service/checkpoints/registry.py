"""The loaded models by name, and which one answers when a request names none.

A name from a request is looked up in a dict and nothing else. What is loaded changes at one point in time: a request has
either the old model or the new one, and whichever it has stays open for as long as the request holds it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from service.checkpoints.checks import Check
from service.checkpoints.retirement import Retirement
from service.errors import ServiceError, draining
from service.serving.local import Engine

if TYPE_CHECKING:
    from model.predictor import Predictor
    from service.checkpoints.loading import ModelLoader

DEFAULT_NAME: Final = "default"
RETRY_AFTER_EMPTY_S: Final = 30


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A verified and warmed-up checkpoint with its engine.

    Whoever has one from :meth:`Registry.get` may use its parts for as long as it holds the object itself: after a swap or
    an unload the engine is closed when no one holds it any more.

    Attributes:
        name: of the checkpoint.
        predictor: the model.
        engine: runs its predictions.
        checks: what it passed.
        fingerprint: of the checkpoint's files, to see whether they have changed.
        loaded_at: when.
    """

    name: str
    predictor: Predictor
    engine: Engine
    checks: tuple[Check, ...] = ()
    fingerprint: str | None = None
    loaded_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class _State:
    """Everything that changes when a model comes or goes; replaced as a whole."""

    models: Mapping[str, LoadedModel]
    default: str | None


class Registry:
    """Models by name. Reading needs no lock; changes come from one thread or several.

    Args:
        models: what is loaded.
        default: name of the model that answers when a request names none. It remains the default for as long as it is
            loaded, and is the default again when it comes back.
        loader: what loaded them, to load more; None for ready-made models.
    """

    def __init__(
        self, models: Iterable[LoadedModel], default: str | None, *, loader: ModelLoader | None = None
    ) -> None:
        self.loader = loader
        self._preferred = default
        self._state = _State({model.name: model for model in models}, default)
        self._lock = threading.Lock()
        self._watchers: list[tuple[Callable[[LoadedModel], None], Callable[[str], None]]] = []
        self._retiring: set[Retirement] = set()
        self._closed = False

    @property
    def names(self) -> list[str]:
        """Names of the loaded models, sorted."""
        return sorted(self._state.models)

    @property
    def default(self) -> str | None:
        """Name of the model that answers when a request names none, or None."""
        return self._state.default

    @property
    def models(self) -> list[LoadedModel]:
        """The loaded models, sorted by name."""
        return [model for _, model in sorted(self._state.models.items())]

    def find(self, name: str) -> LoadedModel | None:
        """The model of this name, if it is loaded."""
        return self._state.models.get(name)

    def get(self, name: str | None) -> LoadedModel:
        """The model of this name; for None the default one. Hold it until its answer is there.

        Raises:
            ServiceError: ``unknown_model``; for None ``not_ready`` where no model is loaded, ``invalid_request`` where none
                is the default.
        """
        state = self._state
        names = sorted(state.models)
        if name is None:
            if not names:
                raise _nothing_loaded()
            if state.default is None:
                raise ServiceError(
                    "invalid_request",
                    "Several models are loaded and none is the default.",
                    field="model",
                    allowed=names,
                    hint="Name one of them in 'model'.",
                )
            name = state.default
        if name not in state.models:
            raise ServiceError(
                "unknown_model",
                "No model of this name is loaded.",
                field="model",
                allowed=names,
                hint="GET /v1/models lists the loaded models.",
            )
        return state.models[name]

    def refuse_if_empty(self) -> None:
        """Raise ``ServiceError`` ``not_ready`` if no model is loaded: all have been unloaded."""
        if not self._state.models:
            raise _nothing_loaded()

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
                self._retire(old)
        if refused:
            model.engine.close()
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
            self._retire(old)

    def close(self) -> None:
        """Finish what has been asked of all models, end their engines. From a thread other than the event loop's."""
        with self._lock:
            self._closed = True
            retiring = list(self._retiring)
        for retirement in retiring:
            retirement.hurry()
        for model in self.models:
            model.engine.close()
        if self.loader is not None:
            self.loader.close()

    def _replace(self, models: Mapping[str, LoadedModel]) -> None:
        only = next(iter(models)) if len(models) == 1 else None
        order = (self._preferred, self._state.default, DEFAULT_NAME, only)
        default = next((name for name in order if name is not None and name in models), None)
        self._state = _State(models, default)

    def _retire(self, old: LoadedModel | None) -> None:
        if old is not None:
            retirement = Retirement(old, self._retiring.discard)
            self._retiring.add(retirement)
            retirement.start()


def _nothing_loaded() -> ServiceError:
    return ServiceError("not_ready", "No model is loaded.", retry_after_s=RETRY_AFTER_EMPTY_S)
