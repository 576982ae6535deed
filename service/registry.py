"""The loaded models: found at start in the checkpoints folder, verified, warmed up, and looked up by name in a dict.

A name from a request is never joined to a path. A checkpoint that does not load stops the start: a service that
silently lacks a model is worse than one that says why it does not run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model.errors import ModelError
from model.structure import Structure
from service.engine import Engine
from service.error_table import ServiceError
from service.settings import Settings

if TYPE_CHECKING:
    from model.predictor import Predictor

logger = logging.getLogger(__name__)

DEFAULT_NAME = "default"
WARM_UP_DISTANCE_ANGSTROM = 1.2


class StartupError(Exception):
    """The service cannot start; the text is for the operator."""


@dataclass(frozen=True)
class LoadedModel:
    """A verified and warmed-up checkpoint with its engine."""

    name: str
    predictor: Predictor
    engine: Engine


class Registry:
    """Models by name, and which one answers when a request names none."""

    def __init__(self, models: Iterable[LoadedModel], default: str | None) -> None:
        self._models = {model.name: model for model in models}
        self.default = default

    @property
    def names(self) -> list[str]:
        """Names of the loaded models, sorted."""
        return sorted(self._models)

    def get(self, name: str | None) -> LoadedModel:
        """The model of this name; for None the default one.

        Raises:
            ServiceError: ``unknown_model``; ``invalid_request`` for None where no model is the default.
        """
        if name is None:
            if self.default is None:
                raise ServiceError(
                    "invalid_request",
                    "Several models are loaded and none is the default.",
                    field="model",
                    allowed=self.names,
                    hint="Name one of them in 'model'.",
                )
            name = self.default
        if name not in self._models:
            raise ServiceError(
                "unknown_model",
                "No model of this name is loaded.",
                field="model",
                allowed=self.names,
                hint="GET /v1/models lists the loaded models.",
            )
        return self._models[name]

    def close(self) -> None:
        """End all engines."""
        for model in self._models.values():
            model.engine.close()


def load_registry(settings: Settings) -> Registry:
    """Load every checkpoint of the folder.

    Raises:
        StartupError: no checkpoint, one that does not load or does not predict, two of one name, or an unknown default.
    """
    folder = settings.checkpoints
    if not folder.is_dir():
        raise StartupError(f"TRACEGRAD_CHECKPOINTS: {folder} is not a folder. Name the one that holds the checkpoints.")
    candidates = sorted(path.parent for path in folder.glob("*/card.json"))
    if not candidates:
        raise StartupError(
            f"TRACEGRAD_CHECKPOINTS: {folder} holds no checkpoint, that is, no subfolder with a card.json. "
            "Put one there, or name another folder."
        )
    device = resolve_device(settings.device)
    models: dict[str, LoadedModel] = {}
    by_folder: dict[str, str] = {}
    for candidate in candidates:
        model = _load(candidate, device, settings)
        if model.name in models:
            raise StartupError(f"Two checkpoints in {folder} are named {model.name!r}. Remove or rename one of them.")
        models[model.name] = model
        by_folder[candidate.name] = model.name
    default = settings.default_model
    if default is not None and default not in models:
        raise StartupError(f"TRACEGRAD_DEFAULT_MODEL: no checkpoint is named {default!r}. There are: {sorted(models)}.")
    if default is None:
        only = next(iter(models)) if len(models) == 1 else None
        default = DEFAULT_NAME if DEFAULT_NAME in models else by_folder.get(DEFAULT_NAME, only)
    return Registry(models.values(), default)


def resolve_device(device: str) -> str:
    """``auto`` becomes ``cuda`` where torch sees a GPU and ``cpu`` elsewhere.

    Raises:
        StartupError: a GPU is asked for and torch sees none.
    """
    if device == "cpu":
        return device
    import torch

    available = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if available else "cpu"
    if not available:
        raise StartupError(f"TRACEGRAD_DEVICE is {device}, but torch sees no GPU. Set it to cpu or auto.")
    return device


def _load(folder: Path, device: str, settings: Settings) -> LoadedModel:
    from model.predictor import Predictor

    started = time.perf_counter()
    try:
        predictor = Predictor.load(folder, device=device)
        predictor.predict([_warm_up_structure(predictor)])
    except Exception as error:
        # Whatever is wrong with a folder, the operator needs its name and the reason rather than a stack of calls.
        reason = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
        raise StartupError(f"The checkpoint {folder} cannot be served: {reason}") from error
    name = predictor.card.name
    logger.info("loaded %s %s on %s in %.1f s", name, predictor.card.version, device, time.perf_counter() - started)
    return LoadedModel(name, predictor, Engine(predictor, name=name, queue_limit=settings.queue_limit))


def _warm_up_structure(predictor: Predictor) -> Structure:
    """Two atoms of the model's first element: always an even number of electrons."""
    number = min(predictor.card.elements)
    charge = 0 if 0 in predictor.card.charges else predictor.card.charges[0]
    return Structure(
        numbers=np.array([number, number]),
        positions_angstrom=np.array([[0.0, 0.0, 0.0], [0.0, 0.0, WARM_UP_DISTANCE_ANGSTROM]]),
        charge=charge,
    )
