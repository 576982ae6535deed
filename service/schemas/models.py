"""The admin routes: what may be asked when a model is loaded or unloaded, and what comes back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from service.schemas.base import WireModel

Figure = float | int | str | list[str]


class LoadRequest(WireModel):
    """Body of ``/v1/admin/models/{name}/load``; it may be absent.

    Attributes:
        version: which version of the checkpoint; null for the newest in the folder.
        force: load it even if the checkpoint in the folder is the one that serves.
    """

    version: Annotated[str, Field(max_length=64)] | None = None
    force: bool = False


class UnloadRequest(WireModel):
    """Body of ``/v1/admin/models/{name}/unload``; it may be absent.

    Attributes:
        force: unload the model even if it is the default or the only one.
    """

    force: bool = False


class CheckReport(WireModel):
    """A check that the checkpoint passed: name, seconds, and what was measured and allowed, units in the names."""

    name: str
    seconds: float
    figures: dict[str, Figure]


class CheckpointIdentity(WireModel):
    """Which checkpoint: name, version, SHA-256 of its weights."""

    name: str
    version: str
    sha256: str


class LoadReport(WireModel):
    """Answer of a load.

    Attributes:
        status: ``loaded``, or ``unchanged`` if the checkpoint in the folder is the one that serves.
        model: card of the model that serves, as ``/v1/models/{name}`` has it.
        replaced: what served before under this name.
        checks: what ran; empty if nothing changed.
        seconds: from the look into the folder to the swap.
    """

    status: Literal["loaded", "unchanged"]
    model: dict[str, Any]
    replaced: CheckpointIdentity | None
    checks: list[CheckReport]
    seconds: float


class UnloadReport(WireModel):
    """Answer of an unload.

    Attributes:
        status: ``unloaded``.
        model: what was unloaded.
        unfinished: predictions that it still finishes; its memory goes back after the last one.
        default: names of the models that answer when a request names none, by kind of system.
    """

    status: Literal["unloaded"]
    model: CheckpointIdentity
    unfinished: int
    default: dict[str, str | None]
