"""The service behind a real socket, with a real checkpoint of random weights."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from model.predictor import Predictor
from service.app import create_app
from service.checkpoints.loaded import LoadedModel
from service.checkpoints.registry import Registry
from service.http.connections import ConnectionLimits, protocol_with
from service.serving.local import LocalBackend
from service.settings import Settings

DEFAULT = Path(__file__).resolve().parents[2] / "checkpoints" / "default"
WATER_NUMBERS = [8, 1, 1]
WATER_POSITIONS = [[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]]
Serve = Callable[[FastAPI], AbstractContextManager[httpx.Client]]


@contextmanager
def serving(app: FastAPI) -> Iterator[httpx.Client]:
    """Serve an app on a free port of this machine."""
    protocol = protocol_with(ConnectionLimits())
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", http=protocol, ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(timeout=60)


@pytest.fixture(scope="session")
def serve() -> Serve:
    return serving


@pytest.fixture(scope="session")
def checkpoints(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the tiny checkpoint and nothing else."""
    folder = tmp_path_factory.mktemp("checkpoints")
    (folder / "tiny").symlink_to(tiny_checkpoint, target_is_directory=True)
    return folder


@pytest.fixture(scope="session")
def settings(checkpoints: Path) -> Settings:
    return Settings(checkpoints=checkpoints, device="cpu", max_atoms=40, max_orbitals=350, jobs="thread")


@pytest.fixture(scope="session")
def predictor(checkpoints: Path) -> Predictor:
    return Predictor.load(checkpoints / "tiny", device="cpu")


@pytest.fixture(scope="session")
def client(settings: Settings) -> Iterator[httpx.Client]:
    with serving(create_app(settings)) as client:
        yield client


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service with the default checkpoint alone."""
    folder = tmp_path_factory.mktemp("shipped")
    (folder / "default").symlink_to(DEFAULT, target_is_directory=True)
    with serving(create_app(Settings(checkpoints=folder, device="cpu"))) as client:
        yield client


@pytest.fixture(scope="session")
def registry_of() -> Callable[[Any, int], Registry]:
    """A registry around any predictor, to see what the service makes of its failures."""

    def make(predictor: Any, queue_limit: int) -> Registry:
        engine = LocalBackend(predictor, name="fake", queue_limit=queue_limit)
        return Registry([LoadedModel("fake", predictor, engine)], ["fake"])

    return make


@pytest.fixture
def water() -> dict[str, Any]:
    positions = [list(position) for position in WATER_POSITIONS]  # a test may move an atom of its own copy
    return {"structure": {"kind": "atoms", "numbers": list(WATER_NUMBERS), "positions": positions}}


@pytest.fixture
def water_xyz() -> str:
    lines = [f"{s} {x} {y} {z}" for s, (x, y, z) in zip("OHH", WATER_POSITIONS, strict=True)]
    return "3\nwater\n" + "\n".join(lines) + "\n"
