"""What is loaded when the service starts: the newest version of every checkpoint in the folder.

A checkpoint that does not load stops the start: a service that silently lacks a model is worse than one that says why it
does not run.
"""

from __future__ import annotations

from service.checkpoints.catalogue import scan
from service.checkpoints.checks import RejectedError
from service.checkpoints.choice import answers_unnamed
from service.checkpoints.loaded import LoadedModel
from service.checkpoints.loading import ModelLoader
from service.checkpoints.registry import DEFAULT_NAME, Registry
from service.errors import StartupError
from service.serving.batches import BatchObserver
from service.settings import Settings


def load_registry(settings: Settings, observer: BatchObserver | None = None) -> Registry:
    """Load every checkpoint of the folder, each in its newest version.

    Args:
        settings: as given to the service.
        observer: told of the models' batches.

    Raises:
        StartupError: no checkpoint, one that does not load or does not pass its checks, two of one name, or an unknown
            default.
    """
    folder = settings.checkpoints
    if not folder.is_dir():
        raise StartupError(f"TRACEGRAD_CHECKPOINTS: {folder} is not a folder. Name the one that holds the checkpoints.")
    try:
        catalogue = scan(folder)
    except OSError as error:
        raise StartupError(f"TRACEGRAD_CHECKPOINTS: {folder} cannot be read: {error}.") from error
    if not catalogue.names:
        raise StartupError(
            f"TRACEGRAD_CHECKPOINTS: {folder} holds no checkpoint, that is, no subfolder with a card.json. "
            "Put one there, or name another folder."
        )
    loader = ModelLoader(settings, resolve_device(settings.device), observer)
    models: list[LoadedModel] = []
    named_after_folder: str | None = None
    try:
        for name in catalogue.names:
            try:
                candidate = catalogue.pick(name)
                models.append(loader.load(candidate))
            except RejectedError as error:
                raise StartupError(
                    f"The checkpoint {name} in {folder} cannot be served: {error.for_operator}"
                ) from error
            if candidate.top == DEFAULT_NAME:
                named_after_folder = name
        preferred = _preferred(settings.default_model, catalogue.names, named_after_folder)
        refused = [model.name for model in models if model.name in preferred and not answers_unnamed(model)]
        if refused:
            raise StartupError(
                f"The checkpoint {refused[0]} in {folder} cannot be a default: its symmetry is approximate. Name another in "
                "TRACEGRAD_DEFAULT_MODEL, or give its folder another name than default."
            )
    except BaseException:
        for model in models:
            model.backend.close()
        loader.close()
        raise
    return Registry(models, preferred, loader=loader)


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


def _preferred(asked: str | None, names: list[str], named_after_folder: str | None) -> list[str]:
    """The models that answer where a request leaves the choice open, each for its kind of system."""
    preferred = [name.strip() for name in (asked or "").split(",") if name.strip()]
    for name in preferred:
        if name not in names:
            raise StartupError(f"TRACEGRAD_DEFAULT_MODEL: no checkpoint is named {name!r}. There are: {names}.")
    usual = DEFAULT_NAME if DEFAULT_NAME in names else named_after_folder
    return preferred if usual is None else [*preferred, usual]
