"""The queue in front of a model: bounded, cancellable while waiting, closed for good."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from model.structure import Structure
from service.engine import Engine
from service.error_table import ServiceError

H2 = Structure(np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.74]]))


class Recorder:
    """Answers with the name of the thread it ran in, once its gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.seen: list[Structure] = []

    def predict(self, structures: Any, *, orbitals: bool = True) -> list[Any]:
        self.gate.wait()
        self.seen += structures
        return [threading.current_thread().name]


def test_predictions_run_in_the_models_own_thread():
    recorder = Recorder()
    recorder.gate.set()
    engine = Engine(recorder, name="tiny", queue_limit=0)
    answers = [asyncio.run(engine.predict(H2, orbitals=True)) for _ in range(3)]
    assert {answer.prediction for answer in answers} == {"model-tiny_0"}
    assert all(answer.queue_ms >= 0 for answer in answers)
    assert engine.unfinished == 0
    engine.close()


def test_the_limit_is_on_those_that_wait_and_a_cancelled_one_makes_room():
    recorder = Recorder()
    engine = Engine(recorder, name="tiny", queue_limit=1)

    async def scenario() -> None:
        running, waiting = (asyncio.create_task(engine.predict(H2, orbitals=True)) for _ in range(2))
        await asyncio.sleep(0.05)
        with pytest.raises(ServiceError) as refused:
            await engine.predict(H2, orbitals=True)
        assert refused.value.code == "queue_full"
        assert refused.value.retry_after_s is not None
        waiting.cancel()
        await asyncio.sleep(0.05)
        last = asyncio.create_task(engine.predict(H2, orbitals=True))
        await asyncio.sleep(0.05)
        recorder.gate.set()
        await running
        await last
        assert waiting.cancelled()

    asyncio.run(scenario())
    assert len(recorder.seen) == 2
    assert engine.unfinished == 0
    engine.close()


def test_a_closed_engine_is_draining():
    engine = Engine(Recorder(), name="tiny", queue_limit=5)
    engine.close()
    with pytest.raises(ServiceError) as refused:
        asyncio.run(engine.predict(H2, orbitals=True))
    assert refused.value.code == "draining"
    assert engine.unfinished == 0
