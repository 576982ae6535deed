"""The door of ``service.models``: what the rest of the service knows of loaded models."""

from service.models.registry import LoadedModel, Registry
from service.models.startup import StartupError, load_registry, resolve_device

__all__ = ["LoadedModel", "Registry", "StartupError", "load_registry", "resolve_device"]
