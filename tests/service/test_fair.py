"""Work is shared out by caller: who has used much waits for who has used little."""

from __future__ import annotations

import asyncio
import threading
import time

from service.serving.fair import AbandonedError, FairPool, stop_if_abandoned
from service.serving.turns import caller


async def ask(pool: FairPool, who: str, seconds: float) -> float:
    """Let the pool sleep for a caller; the seconds until it had."""
    caller.set(who)
    began = time.monotonic()
    await pool.run(time.sleep, seconds)
    return time.monotonic() - began


def test_a_light_caller_does_not_wait_behind_heavy_ones() -> None:
    async def both() -> tuple[list[float], list[float]]:
        pool = FairPool(2, "test")
        # known as heavy by now: all threads but one are theirs
        await asyncio.gather(*(ask(pool, f"heavy {k}", 1.05) for k in range(2)))
        heavy = [asyncio.create_task(ask(pool, f"heavy {k % 2}", 0.5)) for k in range(8)]
        await asyncio.sleep(0.1)
        light = [await asyncio.create_task(ask(pool, "light", 0.01)) for _ in range(10)]
        return light, await asyncio.gather(*heavy)

    light, heavy = asyncio.run(both())
    assert max(light) < 0.4
    assert max(heavy) > 2.0


def test_callers_of_one_kind_take_turns() -> None:
    order: list[str] = []

    async def turns() -> None:
        pool = FairPool(1, "test")
        begun = threading.Event()

        async def one(who: str) -> None:
            caller.set(who)

            def work() -> None:
                order.append(who)
                begun.wait(5)
                time.sleep(0.02)

            await pool.run(work)

        tasks = [asyncio.create_task(one(who)) for who in ("a", "a", "a", "a", "b", "b")]
        await asyncio.sleep(0.1)
        begun.set()
        await asyncio.gather(*tasks)

    asyncio.run(turns())
    assert sorted(order[:4]) == ["a", "a", "b", "b"]


def test_who_leaves_gives_its_place_up_and_no_place_is_lost() -> None:
    async def leave() -> float:
        pool = FairPool(1, "test")
        first = asyncio.create_task(ask(pool, "a", 0.2))
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(ask(pool, "b", 5.0)) for _ in range(3)]
        await asyncio.sleep(0.05)
        for task in (first, *waiting):
            task.cancel()
        await asyncio.gather(first, *waiting, return_exceptions=True)
        return await asyncio.wait_for(ask(pool, "c", 0.0), 3)

    assert asyncio.run(leave()) < 1.0


def test_dear_work_leaves_a_thread_to_the_rest_even_of_callers_not_seen_before() -> None:
    async def both() -> tuple[float, list[float]]:
        pool = FairPool(2, "test")

        async def dear(who: str) -> float:
            caller.set(who)
            began = time.monotonic()
            await pool.run(time.sleep, 0.3, dear=True)
            return time.monotonic() - began

        slow = [asyncio.create_task(dear(f"new {k}")) for k in range(6)]
        await asyncio.sleep(0.05)
        light = await ask(pool, "somebody", 0.01)
        return light, await asyncio.gather(*slow)

    light, slow = asyncio.run(both())
    assert light < 0.25
    assert max(slow) > 1.7


def test_who_is_known_for_little_goes_before_who_is_not_known() -> None:
    async def last_of_many() -> tuple[float, list[float]]:
        pool = FairPool(1, "test")
        await ask(pool, "known", 0.01)
        new = [asyncio.create_task(ask(pool, f"new {k}", 0.2)) for k in range(6)]
        await asyncio.sleep(0.05)
        return await ask(pool, "known", 0.01), await asyncio.gather(*new)

    known, new = asyncio.run(last_of_many())
    assert known < 0.4
    assert max(new) > 1.1


def test_what_nobody_waits_for_any_more_can_end() -> None:
    ended = threading.Event()

    def work() -> None:
        try:
            for _ in range(500):
                time.sleep(0.01)
                stop_if_abandoned()
        except AbandonedError:
            ended.set()
            raise

    async def leave() -> float:
        pool = FairPool(1, "test")
        task = asyncio.create_task(pool.run(work))
        await asyncio.sleep(0.1)
        task.cancel()
        return await ask(pool, "next", 0.0)

    assert asyncio.run(leave()) < 1.0
    assert ended.is_set()
    stop_if_abandoned()  # outside a pool somebody always waits


def test_who_asks_for_cheap_pieces_on_a_busy_machine_stays_light() -> None:
    """Pieces that cost nothing have their places for long; a dear one of another has the only place that is not kept."""

    async def both() -> tuple[float, bool, bool]:
        pool = FairPool(2, "test")

        async def piece(who: str, cost: float) -> float:
            caller.set(who)
            began = time.monotonic()
            await pool.run(time.sleep, 0.3, cost_s=lambda _: cost)
            return time.monotonic() - began

        for _ in range(5):
            await asyncio.gather(piece("cheap", 0.0), piece("heavy", 0.3))
        caller.set("dear")
        dear = asyncio.create_task(pool.run(time.sleep, 2.0, dear=True))
        await asyncio.sleep(0.05)
        waited = await piece("cheap", 0.0)
        await dear
        return waited, pool.is_light("cheap"), pool.is_light("heavy")

    waited, cheap, heavy = asyncio.run(both())
    assert waited < 1.2
    assert (cheap, heavy) == (True, False)
