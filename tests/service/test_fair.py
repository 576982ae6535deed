"""Work is shared out by caller: who has used much waits for who has used little."""

from __future__ import annotations

import asyncio
import threading
import time

from service.serving.fair import FairPool, caller


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
