"""In the road through a model, too, work is shared out by caller, and large structures let small ones pass."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from model.structure import Structure
from service.errors import ServiceError
from service.serving.batches import DeviceWorker
from service.serving.large import DEAR_ATOMS, LargeLane
from service.serving.local import LocalBackend
from service.serving.turns import Room, Turns, caller


class Prepared:
    def __init__(self, structure: Structure) -> None:
        self.cost = len(structure)


class Slow:
    """Takes some time for each structure's forward pass."""

    def __init__(self, seconds: float, large_seconds: float = 0.0) -> None:
        self._seconds = {False: seconds, True: large_seconds}

    def prepare(self, structure: Structure) -> Prepared:
        return Prepared(structure)

    def forward(self, prepared: Sequence[Prepared]) -> list[int]:
        for item in prepared:
            large = item.cost >= DEAR_ATOMS
            time.sleep(self._seconds[large])
        return [item.cost for item in prepared]

    def finish(self, item: Prepared, hamiltonian: Any, *, orbitals: bool, forward_ms: float) -> Any:
        return hamiltonian

    def finish_crystal(self, item: Prepared, blocks: Any, *, forward_ms: float) -> Any:
        return blocks


def chain(n_atoms: int) -> Structure:
    return Structure(np.full(n_atoms, 2), np.arange(n_atoms)[:, None] * np.array([[0.0, 0.0, 0.9]]))


async def ask(engine: LocalBackend, who: str, n_atoms: int, **options: Any) -> float:
    """Seconds until an answer for a caller came."""
    caller.set(who)
    began = time.monotonic()
    await engine.predict(chain(n_atoms), orbitals=True, **options)
    return time.monotonic() - began


def test_twenty_requests_of_one_caller_do_not_delay_anothers_one() -> None:
    engine = LocalBackend(Slow(0.1), name="slow", queue_limit=50, batch_cost=10)

    async def both() -> tuple[float, list[float]]:
        greedy = [asyncio.create_task(ask(engine, "greedy", 10)) for _ in range(20)]
        await asyncio.sleep(0.3)
        one = await asyncio.create_task(ask(engine, "modest", 10))
        return one, await asyncio.gather(*greedy)

    modest, greedy = asyncio.run(both())
    engine.close()
    assert max(greedy) > 1.9, "they took their time"
    assert modest < max(greedy) / 2


def test_small_structures_pass_a_large_one_in_all_steps() -> None:
    worker, large = DeviceWorker("small"), (DeviceWorker("large"), DeviceWorker("huge"))
    predictor = Slow(0.01, large_seconds=1.0)
    engine = LocalBackend(predictor, name="slow", queue_limit=50, worker=worker, large_workers=large)

    async def both() -> tuple[list[float], list[float]]:
        slow = [asyncio.create_task(ask(engine, f"large {k}", DEAR_ATOMS)) for k in range(2)]
        await asyncio.sleep(0.1)
        quick = [await asyncio.create_task(ask(engine, "small", 3)) for _ in range(5)]
        return quick, await asyncio.gather(*slow)

    quick, slow = asyncio.run(both())
    engine.close()
    worker.close()
    for each in large:
        each.close()
    assert max(quick) < min(slow)
    assert min(slow) > 0.9


def test_large_structures_pass_huge_ones_in_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.serving.local.usable_cores", lambda: 2)

    class Sized(Slow):
        def forward(self, prepared: Sequence[Prepared]) -> list[int]:
            time.sleep(1.5 if prepared[0].cost > 2 * DEAR_ATOMS else 0.05)
            return [item.cost for item in prepared]

    workers = [DeviceWorker(name) for name in ("small", "large", "huge")]
    engine = LocalBackend(
        Sized(0.0), name="slow", queue_limit=50, worker=workers[0], large_workers=(workers[1], workers[2])
    )

    async def both() -> tuple[list[float], list[float]]:
        huge = [asyncio.create_task(ask(engine, f"huge {k}", 100, n_orbitals=900)) for k in range(2)]
        await asyncio.sleep(0.1)
        large = [
            await asyncio.create_task(ask(engine, "large", 30, n_orbitals=200, time_left_s=60.0)) for _ in range(4)
        ]
        return large, await asyncio.gather(*huge)

    large, huge = asyncio.run(both())
    engine.close()
    for worker in workers:
        worker.close()
    assert max(large) < 1.0
    assert max(huge) > 2.9, "one after another"


def test_large_structures_take_turns_by_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.serving.local.usable_cores", lambda: 2)
    engine = LocalBackend(Slow(0.0, large_seconds=0.2), name="slow", queue_limit=50)

    async def both() -> tuple[float, list[float]]:
        greedy = [asyncio.create_task(ask(engine, "greedy", DEAR_ATOMS)) for _ in range(8)]
        await asyncio.sleep(0.05)
        return await asyncio.create_task(ask(engine, "modest", DEAR_ATOMS)), await asyncio.gather(*greedy)

    modest, greedy = asyncio.run(both())
    engine.close()
    assert modest < 0.8 * max(greedy)
    assert max(greedy) > 1.6


def test_what_would_come_too_late_is_told_so_at_once_but_the_only_one_is_always_tried() -> None:
    async def scenario() -> None:
        lane = LargeLane(2, "test")
        loop = asyncio.get_running_loop()

        async def one(who: str, time_left_s: float, hold_s: float) -> float:
            caller.set(who)
            began = loop.time()
            async with lane.turn(1000, time_left_s, patient=False):
                await asyncio.sleep(hold_s)
            return loop.time() - began

        await one("first", 0.01, 0.2)  # nothing is known yet of what they take
        await asyncio.create_task(one("second", 0.01, 0.2))  # and this one waits for nobody
        running = asyncio.create_task(one("third", 5.0, 0.2))
        await asyncio.sleep(0.05)
        with pytest.raises(ServiceError) as refused:
            await asyncio.create_task(one("fourth", 0.3, 0.2))
        assert refused.value.code == "queue_full"
        assert refused.value.retry_after_s == 1
        assert "/v1/jobs" in str(refused.value.hint)
        await asyncio.create_task(one("fifth", 5.0, 0.01))
        await running
        lane.close()

    asyncio.run(scenario())


def test_equal_turns_come_in_the_order_of_their_asking() -> None:
    order: list[int] = []

    async def scenario() -> None:
        turns = Turns(1)

        async def one(number: int) -> None:
            turn = await turns.take()
            order.append(number)
            await asyncio.sleep(0.001)
            turns.leave(turn, 0.001)

        await asyncio.gather(*(one(number) for number in range(20)))

    asyncio.run(scenario())
    assert order == list(range(20))


def test_one_caller_has_its_part_of_a_queue_and_the_last_is_for_light_callers_with_nothing_in_it() -> None:
    room = Room(2)

    def fill(who: str) -> int:
        count = 0
        while room.takes(who):
            room.enter(who)
            count += 1
        return count

    assert fill("greedy") == 3, "one is worked on, two wait"
    assert [fill(f"greedy {k}") for k in range(3)] == [3, 1, 1]
    assert room.inside == 8
    assert not room.takes("used much", light=False)
    assert room.takes("modest")
    room.enter("modest")
    assert not room.takes("modest")
    assert not room.takes("somebody else"), "there is an end to it"
    room.leave("modest")
    assert room.takes("somebody else")
    alone = Room(2)
    for _ in range(3):
        alone.enter("")
    assert not alone.takes(""), "what has no caller is as one"


def test_two_passes_of_one_network_side_by_side_give_what_each_gives_alone(tiny_checkpoint: Any) -> None:
    from model.predictor import Predictor

    predictor = Predictor.load(tiny_checkpoint)
    water = Structure(np.array([8, 1, 1]), np.array([[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]]))
    methane = Structure(
        np.array([6, 1, 1, 1, 1]), 0.63 * np.array([[0, 0, 0], [1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]])
    )
    prepared = [predictor.prepare(structure) for structure in (water, methane)]
    alone = [predictor.forward([item])[0] for item in prepared]
    wrong: list[int] = []

    def many(index: int) -> None:
        for _ in range(20):
            if not np.array_equal(predictor.forward([prepared[index]])[0], alone[index]):
                wrong.append(index)

    threads = [threading.Thread(target=many, args=(index,)) for index in (0, 1, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_who_asks_for_little_is_served_at_once_in_a_crowd_whatever_it_used_before() -> None:
    """Twenty new callers ask again and again; one that was there before asks now and then, and few go before it."""

    async def crowd() -> list[int]:
        turns = Turns(1)
        served = 0
        over = False

        async def piece(who: str) -> None:
            nonlocal served
            caller.set(who)
            turn = await turns.take()
            await asyncio.sleep(0)
            served += 1
            turns.leave(turn, 0.03, 0.0)

        async def again(who: str) -> None:
            while not over:
                await piece(who)

        for _ in range(100):  # 3 s of place alone
            await asyncio.create_task(piece("honest"))
        attackers = [asyncio.create_task(again(f"new {k}")) for k in range(20)]
        before = []
        for _ in range(10):
            while served % 40:
                await asyncio.sleep(0)
            began = served
            await asyncio.create_task(piece("honest"))
            before.append(served - began)
            await asyncio.sleep(0)
        over = True
        await asyncio.gather(*attackers)
        return before

    assert max(asyncio.run(crowd())) <= 5


def test_a_place_is_not_given_to_one_who_left_in_the_same_moment() -> None:
    async def moment() -> None:
        turns = Turns(1)
        running = await turns.take()
        leaving = asyncio.create_task(turns.take())
        staying = asyncio.create_task(turns.take())
        await asyncio.sleep(0)
        leaving.cancel()
        turns.leave(running, 0.0)  # before the one who leaves has noticed
        await asyncio.wait_for(staying, timeout=5)
        assert (await asyncio.gather(leaving, return_exceptions=True))[0].__class__ is asyncio.CancelledError
        turns.leave(staying.result(), 0.0)
        await asyncio.wait_for(turns.take(), timeout=5)

    asyncio.run(moment())
