"""The road through a model: bounded, batched by cost, cancellable while waiting, closed for good."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from model.structure import Structure
from service.errors import ServiceError
from service.serving.batches import DeviceWorker
from service.serving.local import LocalBackend


def chain(n_atoms: int) -> Structure:
    """Helium atoms in a row; their number is their cost here."""
    return Structure(np.full(n_atoms, 2), np.arange(n_atoms)[:, None] * np.array([[0.0, 0.0, 0.9]]))


@dataclass
class Prepared:
    structure: Structure

    @property
    def cost(self) -> int:
        return len(self.structure.numbers)


@dataclass
class Recorder:
    """Writes down its batches; the forward pass waits for the gate. Fails as told."""

    gate: threading.Event = field(default_factory=threading.Event)
    batches: list[list[int]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    memory: int = 10**9
    poison: int = -1
    fault: Exception | None = None

    def prepare(self, structure: Structure) -> Prepared:
        return Prepared(structure)

    def forward(self, prepared: Sequence[Prepared]) -> list[int]:
        self.gate.wait()
        self.threads.add(threading.current_thread().name)
        sizes = [item.cost for item in prepared]
        self.batches.append(sizes)
        if self.fault is not None:
            raise self.fault
        if sum(sizes) > self.memory:
            raise MemoryError
        if self.poison in sizes:
            raise ValueError("poison")
        return sizes

    def finish(self, item: Prepared, hamiltonian: Any, *, orbitals: bool, forward_ms: float) -> Any:
        self.threads.add(threading.current_thread().name)
        return hamiltonian

    def finish_crystal(self, item: Prepared, blocks: Any, *, forward_ms: float) -> Any:
        return ("crystal", blocks)


class Observer:
    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.splits = 0

    def batch(self, model: str, structures: int, cost: int, wait_s: Sequence[float]) -> None:
        assert len(wait_s) == structures
        self.seen.append((structures, cost))

    def memory_split(self, model: str) -> None:
        self.splits += 1


async def settle() -> None:
    """Let everything that can move come to rest."""
    await asyncio.sleep(0.05)


def run_all(recorder: Recorder, sizes: list[int], **options: Any) -> tuple[list[Any], Observer]:
    """Send structures at once while the device is busy with another one; the answers, or errors, in order."""
    observer = Observer()
    engine = LocalBackend(recorder, name="tiny", queue_limit=100, observer=observer, batch_wait_s=5.0, **options)

    async def scenario() -> list[Any]:
        first = asyncio.create_task(engine.predict(chain(1), orbitals=True))
        await settle()
        rest = [asyncio.create_task(engine.predict(chain(size), orbitals=True)) for size in sizes]
        await settle()
        recorder.gate.set()
        await asyncio.wait([first])
        return await asyncio.gather(*rest, return_exceptions=True)

    answers = asyncio.run(scenario())
    engine.close()
    assert engine.unfinished == 0
    return answers, observer


def test_forward_passes_share_one_thread_and_eigensolves_have_their_own():
    recorder = Recorder()
    run_all(recorder, [2, 3, 4])
    assert len([name for name in recorder.threads if name.startswith("device-")]) == 1
    assert any(name.startswith("model-tiny") for name in recorder.threads)


def test_what_waits_goes_together_up_to_the_cost_and_in_order():
    recorder = Recorder()
    answers, observer = run_all(recorder, [3, 4, 5, 9, 1, 20, 2], batch_cost=10)
    assert recorder.batches == [[1], [3, 4], [5], [9, 1], [20], [2]], "an item above the cap goes alone"
    assert [answer.prediction for answer in answers] == [3, 4, 5, 9, 1, 20, 2]
    assert [answer.batch_size for answer in answers] == [2, 2, 1, 2, 2, 1, 1]
    assert observer.seen == [(1, 1), (2, 7), (1, 5), (2, 10), (1, 20), (1, 2)]


def test_a_lone_structure_does_not_wait():
    recorder = Recorder()
    recorder.gate.set()
    engine = LocalBackend(recorder, name="tiny", queue_limit=0, batch_wait_s=3600.0)
    assert asyncio.run(engine.predict(chain(2), orbitals=True)).prediction == 2
    engine.close()


def test_a_batch_that_does_not_fit_is_halved_until_it_does():
    recorder = Recorder(memory=7)
    answers, observer = run_all(recorder, [3, 3, 3, 3])
    assert [answer.prediction for answer in answers] == [3, 3, 3, 3]
    assert recorder.batches == [[1], [3, 3, 3, 3], [3, 3], [3, 3]]
    assert observer.splits == 1


def test_one_that_alone_does_not_fit_fails_alone():
    answers, _ = run_all(Recorder(memory=7), [3, 9, 3])
    assert isinstance(answers[1], MemoryError)
    assert [answers[0].prediction, answers[2].prediction] == [3, 3]


def test_an_error_reaches_only_the_structure_to_blame():
    answers, observer = run_all(Recorder(poison=5), [3, 5, 2, 4])
    assert isinstance(answers[1], ValueError)
    assert [answers[k].prediction for k in (0, 2, 3)] == [3, 2, 4]
    assert observer.splits == 0


def test_a_lost_device_is_unhealthy_and_not_tried_again():
    recorder = Recorder(fault=RuntimeError("CUDA error: an illegal memory access was encountered"))
    engine = LocalBackend(recorder, name="tiny", queue_limit=5)
    recorder.gate.set()
    assert engine.healthy
    with pytest.raises(RuntimeError, match="CUDA error"):
        asyncio.run(engine.predict(chain(2), orbitals=True))
    assert not engine.healthy
    engine.close()


def test_the_limit_is_on_those_that_wait_and_a_cancelled_one_makes_room():
    recorder = Recorder()
    engine = LocalBackend(recorder, name="tiny", queue_limit=1)

    async def scenario() -> None:
        running = asyncio.create_task(engine.predict(chain(2), orbitals=True))
        await settle()
        waiting = asyncio.create_task(engine.predict(chain(3), orbitals=True))
        await settle()
        with pytest.raises(ServiceError) as refused:
            await engine.predict(chain(4), orbitals=True)
        assert refused.value.code == "queue_full"
        assert refused.value.retry_after_s is not None
        waiting.cancel()
        await settle()
        last = asyncio.create_task(engine.predict(chain(5), orbitals=True))
        await settle()
        recorder.gate.set()
        await running
        await last
        assert waiting.cancelled()

    asyncio.run(scenario())
    assert recorder.batches == [[2], [5]], "the cancelled one was dropped before its forward pass"
    assert engine.unfinished == 0
    engine.close()


def test_crystals_are_finished_as_such_and_a_study_takes_a_place():
    recorder = Recorder()
    recorder.gate.set()
    engine = LocalBackend(recorder, name="tiny", queue_limit=0)
    cell = Structure(np.array([2]), np.zeros((1, 3)), cell_angstrom=3.0 * np.eye(3), pbc=(True, True, True))
    hold = threading.Event()

    async def scenario() -> None:
        assert (await engine.predict(cell, orbitals=False)).prediction == ("crystal", 1)  # type: ignore[comparison-overlap]
        study = asyncio.create_task(engine.study(lambda item: (hold.wait(), item), "prediction"))
        await settle()
        with pytest.raises(ServiceError, match="queue_full"):
            await engine.study(lambda: None)
        hold.set()
        assert await study == (True, "prediction")

    asyncio.run(scenario())
    assert engine.unfinished == 0
    engine.close()


def test_patient_callers_are_never_refused_and_leave_room_for_others():
    recorder = Recorder()
    engine = LocalBackend(recorder, name="tiny", queue_limit=4)

    async def scenario() -> None:
        patient = [asyncio.create_task(engine.predict(chain(2), orbitals=True, patient=True)) for _ in range(20)]
        await settle()
        assert engine.unfinished == 3
        patient[10].cancel()
        impatient = asyncio.create_task(engine.predict(chain(7), orbitals=True))
        await settle()
        recorder.gate.set()
        assert (await impatient).prediction == 7
        answers = await asyncio.gather(*patient, return_exceptions=True)
        assert [isinstance(answer, asyncio.CancelledError) for answer in answers].count(True) == 1

    asyncio.run(scenario())
    assert engine.unfinished == 0
    engine.close()


def test_closing_finishes_what_was_accepted_and_refuses_the_rest():
    recorder = Recorder()
    engine = LocalBackend(recorder, name="tiny", queue_limit=2)

    async def scenario() -> None:
        accepted = [asyncio.create_task(engine.predict(chain(2), orbitals=True)) for _ in range(3)]
        waiting = [asyncio.create_task(engine.predict(chain(2), orbitals=True, patient=True)) for _ in range(3)]
        await settle()
        closing = asyncio.create_task(asyncio.to_thread(engine.close))
        await settle()
        with pytest.raises(ServiceError, match="draining"):
            await engine.predict(chain(2), orbitals=True)
        recorder.gate.set()
        assert [answer.prediction for answer in await asyncio.gather(*accepted)] == [2, 2, 2]
        refused = await asyncio.gather(*waiting, return_exceptions=True)
        assert [error.code for error in refused if isinstance(error, ServiceError)] == ["draining"] * 3
        await closing

    asyncio.run(scenario())
    assert engine.unfinished == 0


def test_models_share_the_thread_of_their_device_oldest_first():
    worker = DeviceWorker("shared")
    gate = threading.Event()
    order: list[str] = []

    class Named(Recorder):
        def __init__(self, name: str) -> None:
            super().__init__(gate=gate)
            self.name = name

        def forward(self, prepared: Sequence[Prepared]) -> list[int]:
            result = super().forward(prepared)
            order.append(self.name)
            return result

    engines = [LocalBackend(Named(name), name=name, queue_limit=9, worker=worker) for name in "ab"]

    async def scenario() -> None:
        tasks = []
        for index in (0, 1, 0):
            tasks.append(asyncio.create_task(engines[index].predict(chain(2), orbitals=True)))
            await settle()
        gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(scenario())
    assert order == ["a", "b", "a"]
    for engine in engines:
        engine.close()
    worker.close()
