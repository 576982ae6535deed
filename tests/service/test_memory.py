"""Memory: what a control group says, who may begin, and that the estimate lies above what was measured."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from service.errors import ServiceError
from service.memory.budget import MemoryBudget
from service.memory.estimate import Size, estimate
from service.memory.machine import memory_limit, out_of_memory_kills, usable_cores
from service.memory.steps import track
from service.serving.turns import caller

MEASURED = Path(__file__).parents[2] / "benchmarks" / "results" / "memory_peak.json"
GB = 10**9


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def groups(tmp_path: Path):
    """``groups(files)``: mounted control groups and the process's membership, as arguments."""

    def make(files: dict[str, str], membership: str) -> tuple[Path, Path]:
        write(tmp_path / "cgroup", files)
        (tmp_path / "membership").write_text(membership)
        return tmp_path / "cgroup", tmp_path / "membership"

    return make


def test_the_least_limit_above_a_group_of_version_2_counts(groups):
    where = groups(
        {"memory.max": "max\n", "pod/memory.max": f"{2 * GB}\n", "pod/one/memory.max": f"{3 * GB}\n"}, "0::/pod/one\n"
    )
    assert memory_limit(*where) == 2 * GB


def test_a_group_of_version_1_is_found_by_its_controller(groups):
    files = {
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/box/memory.limit_in_bytes": f"{GB}\n",
        "cpu,cpuacct/box/cpu.cfs_quota_us": "1",
    }
    where = groups(files, "4:memory:/box\n1:cpu,cpuacct:/box\n0::/\n")
    assert memory_limit(*where) == GB


def test_in_a_container_the_path_of_the_host_is_not_there_and_the_root_counts(groups):
    assert memory_limit(*groups({"memory.max": f"{GB}\n"}, "0::/kubepods/pod1/abc\n")) == GB


def test_no_limit_leaves_the_machines_memory(groups):
    unlimited = memory_limit(*groups({"memory.max": "max\n"}, "0::/\n"))
    pages = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert unlimited == pytest.approx(1024 * int(pages.split()[1]), rel=0.01)


@pytest.mark.parametrize(
    ("files", "membership"),
    [
        ({"cpu.max": "50000 100000\n"}, "0::/\n"),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "1:cpu:/\n0::/\n"),
    ],
)
def test_half_a_core_is_one_thread(groups, files, membership):
    assert usable_cores(*groups(files, membership)) == 1


def test_a_quota_that_is_none_leaves_the_affinity(groups):
    assert usable_cores(*groups({"cpu.max": "max 100000\n"}, "0::/\n")) >= 1


def test_kills_for_memory_are_counted(groups):
    where = groups({"memory.events": "low 0\noom 3\noom_kill 2\n"}, "0::/\n")
    assert out_of_memory_kills(*where) == 2


UNIT = 16_000_000
"""Bytes, such that a sixteenth of a hundred is above the least that is kept."""


def test_what_can_never_fit_is_refused_and_says_so():
    with pytest.raises(ServiceError, match="needs about 200 MB, and this server has 67 MB") as caught:
        MemoryBudget(100_000_000).check(200_000_000)
    assert caught.value.code == "too_large_for_memory"


def test_large_ones_wait_in_turn_and_small_ones_pass_them():
    order: list[str] = []

    async def one(budget: MemoryBudget, name: str, need: int, until: asyncio.Event) -> None:
        async with budget.hold(need * UNIT):
            order.append(name)
            await until.wait()

    async def scene() -> None:
        budget, first, rest = MemoryBudget(100 * UNIT), asyncio.Event(), asyncio.Event()
        tasks = [asyncio.create_task(one(budget, "first", 60, first))]
        await asyncio.sleep(0)
        for name, need in (("second", 50), ("third", 40), ("small", 5)):
            tasks.append(asyncio.create_task(one(budget, name, need, rest)))
            await asyncio.sleep(0.01)
        assert order == ["first", "small"], "40 would fit, but does not overtake 50"
        assert budget.held == 65 * UNIT
        first.set()
        await asyncio.sleep(0.01)
        assert order == ["first", "small", "second", "third"]
        rest.set()
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.01)
        assert budget.held == 0

    asyncio.run(scene())


def test_of_those_that_wait_callers_who_have_had_little_go_first():
    order: list[str] = []

    async def scenario() -> None:
        budget = MemoryBudget(GB)

        async def one(who: str) -> None:
            caller.set(who)
            async with budget.hold(GB // 2 + 10**8):
                order.append(who)
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(one(who)) for who in ("greedy", "greedy", "greedy", "greedy", "modest")]
        await asyncio.gather(*tasks)

    asyncio.run(scenario())
    assert order == ["greedy", "modest", "greedy", "greedy", "greedy"]


def test_one_who_leaves_while_waiting_holds_nothing_and_lets_the_next_in():
    async def scene() -> None:
        budget = MemoryBudget(100 * UNIT)
        async with budget.hold(60 * UNIT):
            waiting = asyncio.create_task(budget.hold(90 * UNIT).__aenter__())
            await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            async with asyncio.timeout(1), budget.hold(30 * UNIT):
                assert budget.held == 90 * UNIT
        await asyncio.sleep(0.01)
        assert budget.held == 0

    asyncio.run(scene())


def test_only_so_many_wait():
    async def scene() -> None:
        budget = MemoryBudget(100 * UNIT, waiting_limit=1)
        async with budget.hold(90 * UNIT):
            waiting = asyncio.create_task(budget.hold(50 * UNIT).__aenter__())
            await asyncio.sleep(0.01)
            with pytest.raises(ServiceError) as caught:
                async with budget.hold(5 * UNIT), budget.hold(50 * UNIT):
                    raise AssertionError("it began")
            assert caught.value.code == "queue_full"
            waiting.cancel()

    asyncio.run(scene())


def test_a_step_that_outlives_its_request_keeps_its_memory():
    async def scene() -> None:
        budget, go_on = MemoryBudget(100 * UNIT), threading.Event()
        with ThreadPoolExecutor(1) as threads:

            async def request() -> None:
                async with budget.hold(70 * UNIT):
                    await asyncio.wrap_future(track(threads.submit(go_on.wait, 10)))

            task = asyncio.create_task(request())
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert budget.held == 70 * UNIT
            go_on.set()
        await asyncio.sleep(0.05)
        assert budget.held == 0

    asyncio.run(scene())


def test_a_part_is_kept_for_small_ones_and_they_keep_no_large_one_out():
    async def scene() -> None:
        budget = MemoryBudget(100 * UNIT)
        with pytest.raises(ServiceError, match="needs about"):
            budget.check(95 * UNIT)
        async with budget.hold(93 * UNIT), asyncio.timeout(1), budget.hold(6 * UNIT):
            pass
        # from now on small ones are always at work, and a large one waits
        for _ in range(4):
            await budget.take(5 * UNIT)
        large = asyncio.create_task(budget.take(90 * UNIT))
        await asyncio.sleep(0)
        late = asyncio.create_task(budget.take(5 * UNIT))
        await asyncio.sleep(0)
        assert not late.done(), "what is kept for small ones is full"
        for _ in range(3):
            budget.release(5 * UNIT)
            await asyncio.sleep(0)
        assert large.done()
        budget.release(5 * UNIT)
        await asyncio.sleep(0)
        assert late.done()
        assert budget.held == 95 * UNIT

    asyncio.run(scene())


def test_those_of_a_batch_leave_half_and_wait_behind_the_others_however_many_they_are():
    async def scene() -> None:
        budget = MemoryBudget(100 * UNIT, waiting_limit=2)
        batch = [asyncio.create_task(budget.take(5 * UNIT, patient=True)) for _ in range(60)]
        await asyncio.sleep(0.01)
        assert budget.held == 50 * UNIT
        async with asyncio.timeout(1), budget.hold(5 * UNIT):
            assert budget.held == 55 * UNIT
        other = asyncio.create_task(budget.take(60 * UNIT))
        await asyncio.sleep(0)
        for _ in range(2):
            budget.release(5 * UNIT, patient=True)
            await asyncio.sleep(0)
        assert other.done(), "it passed what waits of the batch"
        budget.release(60 * UNIT)
        for _ in range(58):
            await asyncio.sleep(0)
            budget.release(5 * UNIT, patient=True)
        await asyncio.gather(*batch)
        assert budget.held == 0

    asyncio.run(scene())


def test_who_begins_to_wait_is_told_to_those_that_keep_memory_without_need():
    async def scene() -> None:
        budget = MemoryBudget(100 * UNIT)
        await budget.take(40 * UNIT)
        budget.when_short = partial(budget.release, 40 * UNIT)
        async with asyncio.timeout(1), budget.hold(80 * UNIT):
            assert budget.held == 80 * UNIT

    asyncio.run(scene())


def test_the_estimate_lies_above_every_measured_peak_and_not_far_above_the_large_ones():
    (table,) = json.loads(MEASURED.read_text())["tables"]
    names = [column["name"] for column in table["columns"]]
    rows = [dict(zip(names, row, strict=True)) for row in table["rows"]]
    assert {row["backbone"] for row in rows} == {"qhnetv2", "deeph_e3"}
    assert max(row["peak"] for row in rows) > 1000
    for row in rows:
        found = estimate(
            Size(row["atoms"], row["AOs"], row["blocks"], row["AOs"]),
            backbone=row["backbone"],
            on_cpu=True,
            periodic=row["backbone"] == "deeph_e3",
            answer_numbers=row["numbers"],
            export=False,
        )
        assert found >= 1e6 * row["peak"], row
        assert found <= 1e6 * max(100, 2 * row["peak"]), row
