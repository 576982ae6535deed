"""The parser process: limits hold, it comes back after trouble, and it touches nothing but its own folder."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import ServiceError
from service.serving.turns import caller
from service.settings import Settings
from service.structures.pool import ParserPool, ParserProcess, RawStructure
from tests.slow_file import ENDLESS

ROOT = Path(__file__).resolve().parents[2]
H2 = "2\n\nH 0 0 0\nH 0 0 0.74\n"
MEMORY = 1024**3


@pytest.fixture(scope="module")
def pool() -> Iterator[ParserPool]:
    pool = ParserPool(Settings(max_atoms=50))
    yield pool
    pool.close()


@pytest.fixture
def process() -> Iterator[ParserProcess]:
    process = ParserProcess(MEMORY)
    yield process
    process.stop()


def parse(pool: ParserPool, file_format: str, text: str) -> RawStructure:
    return asyncio.run(pool.parse(file_format, text))


@pytest.mark.parametrize("text", [H2, H2 + "\n\n", H2.replace("\n", "\r\n"), "\ufeff" + H2, H2.replace("H", "h")])
def test_xyz_files_as_people_have_them(pool, text):
    raw = parse(pool, "xyz", text)
    assert raw.numbers == [1, 1]
    assert raw.positions == [[0, 0, 0], [0, 0, 0.74]]
    assert raw.pbc == (False, False, False)


def test_an_xyz_file_that_declares_columns_or_a_lattice_is_read_with_them(pool):
    columns = "1\nProperties=species:S:1:forces:R:3:pos:R:3\nH 9 9 9 1 2 3\n"
    assert parse(pool, "xyz", columns).positions == [[1, 2, 3]]
    lattice = '1\nLattice="5 0 0 0 5 0 0 0 5" Properties=species:S:1:pos:R:3\nH 0 0 0\n'
    assert parse(pool, "xyz", lattice).pbc == (True, True, True)


def test_a_stated_charge_and_multiplicity_are_reported(pool):
    raw = parse(pool, "extxyz", "1\nProperties=species:S:1:pos:R:3 charge=-1 multiplicity=3\nH 0 0 0\n")
    assert (raw.charge, raw.multiplicity) == (-1, 3)
    assert parse(pool, "xyz", H2).charge is None


def test_readers_that_need_a_file_get_a_private_one(pool):
    assert parse(pool, "aims", "atom 0 0 0 H\natom 0 0 0.74 H\n").numbers == [1, 1]


def test_several_molecules_in_one_sdf_are_not_cut_to_the_first(pool):
    one = "x\n\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n    0.0000    0.0000    0.0000 H   0  0\nM  END\n$$$$\n"
    assert parse(pool, "sdf", one).numbers == [1]
    with pytest.raises(ServiceError) as caught:
        parse(pool, "sdf", one + one)
    assert caught.value.code == "invalid_request"


def test_many_structures_of_one_file_keep_their_order_and_errors(pool):
    frames = [f"{n}\n\n" + "".join(f"H {k} 0 0\n" for k in range(n)) for n in (1, 3, 2)]
    read = asyncio.run(pool.parse_many("xyz", "".join(frames), 3))
    assert [len(frame.numbers) for frame in read] == [1, 3, 2]
    big = "400\n\n" + "H 0 0 0\n" * 400
    read = asyncio.run(pool.parse_many("xyz", frames[0] + big + frames[1], 3))
    assert isinstance(read[1], ServiceError)
    assert read[1].code == "too_many_atoms"
    assert len(read[2].numbers) == 3
    with pytest.raises(ServiceError) as caught:
        asyncio.run(pool.parse_many("xyz", "".join(frames), 2))
    assert caught.value.code == "too_many_structures"


def test_one_frame_of_several_is_taken(pool):
    frames = [f"{n}\n\n" + "".join(f"H {k} 0 0\n" for k in range(n)) for n in (1, 3, 2)]
    text = "".join(frames)
    for number, count in enumerate((1, 3, 2), start=1):
        assert len(asyncio.run(pool.parse("xyz", text, frame=number)).numbers) == count
    with pytest.raises(ServiceError) as caught:
        asyncio.run(pool.parse("xyz", text, frame=4))
    assert (caught.value.code, caught.value.field) == ("invalid_request", "frame")
    assert "3" in caught.value.detail
    broken = frames[0] + frames[1].replace("H 1 0 0", "H 1 0 zero") + frames[2]
    with pytest.raises(ServiceError) as caught:
        asyncio.run(pool.parse("xyz", broken, frame=2))
    assert (caught.value.code, caught.value.line, caught.value.frame) == ("unparsable_structure", 7, 2)
    assert len(asyncio.run(pool.parse("xyz", broken, frame=3)).numbers) == 2


def test_every_record_of_an_sd_file_is_read(pool):
    record = "\n\n\n  1  0  0  0  0  0            999 V2000\n{x:10.4f}    0.0000    0.0000 H   0  0\nM  END\n"
    text = "$$$$\n".join(record.format(x=x) for x in (1, 2, 3)) + "$$$$\n"
    assert [frame.positions[0][0] for frame in asyncio.run(pool.parse_many("sdf", text, 5))] == [1, 2, 3]


def test_a_process_past_its_time_is_killed_and_replaced(process):
    request = {"format": "cif", "text": ENDLESS, "max_atoms": 5, "max_frames": 1, "cpu_seconds": 60}
    assert process.ask(request, 0.3) == {"error": "limits"}
    reply = process.ask({**request, "format": "xyz", "text": H2}, 10)
    assert reply["frames"][0]["numbers"] == [1, 1]


def test_a_process_past_its_cpu_time_is_ended_by_the_kernel(process):
    """The limit holds without the parent: here it would wait for ten minutes."""
    request = {"format": "cif", "text": ENDLESS, "max_atoms": 5, "max_frames": 1, "cpu_seconds": 0}
    assert process.ask(request, 600)["error"] in ("cpu", "limits", "memory")
    assert process.ask({**request, "format": "xyz", "text": H2, "cpu_seconds": 10}, 60)["frames"][0]["numbers"] == [
        1,
        1,
    ]


def test_memory_is_capped(process):
    text = "x\n1\n1 0 0\n0 1 0\n0 0 1\nH\n2000000000\nDirect\n0 0 0\n"
    request = {"format": "vasp", "text": text, "max_atoms": 5, "max_frames": 1, "cpu_seconds": 30}
    assert process.ask(request, 60)["error"] in ("memory", "limits")
    assert process.ask({**request, "format": "xyz", "text": H2}, 30)["frames"][0]["numbers"] == [1, 1]


def test_the_limits_are_those_of_the_process_itself(process):
    process.start()
    pid = process._process.pid
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert f"Max address space         {MEMORY}" in limits
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"TRACEGRAD" not in environment
    assert b"torch" not in Path(f"/proc/{pid}/maps").read_bytes()


def test_an_octopus_file_could_not_open_another_file_even_if_it_got_through(tmp_path):
    """The audit hook, tried with a reader that does open what the text names."""
    code = f"""
import io, os, sys
sys.path.insert(0, {str(ROOT)!r})
os.chdir({str(tmp_path)!r})
from ase.io import read
from service.structures.worker import preload
preload(["xyz", "octopus-in"])
open("mine", "w").close()
octopus = "XYZCoordinates = '/etc/passwd'"
for attempt in (lambda: read(io.StringIO(octopus), format="octopus-in"),
                lambda: open({str(Path(__file__))!r}), lambda: open("/etc/passwd"), lambda: os.system("true"),
                lambda: __import__("socket").create_connection(("127.0.0.1", 9)),
                lambda: __import__("subprocess").run(["true"])):
    try:
        attempt()
    except PermissionError:
        continue
    sys.exit(3)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_too_many_waiting_files_are_refused():
    pool = ParserPool(Settings(queue_limit=0, parse_timeout_s=1.0))

    async def two() -> tuple[object, ...]:
        return await asyncio.gather(pool.parse("cif", ENDLESS), pool.parse("xyz", H2), return_exceptions=True)

    pool.start()
    try:
        first, second = asyncio.run(two())
    finally:
        pool.close()
    assert isinstance(first, ServiceError)
    assert first.code == "unparsable_structure"
    assert isinstance(second, ServiceError)
    assert second.code == "queue_full"


def test_files_that_turn_out_slow_do_not_keep_the_parsers_from_others():
    pool = ParserPool(Settings(parse_timeout_s=3.0, parse_workers=2))

    async def one(who: str, file_format: str, text: str) -> float:
        caller.set(who)
        began = time.monotonic()
        with contextlib.suppress(ServiceError):
            await pool.parse(file_format, text)
        return time.monotonic() - began

    async def all_of_them() -> tuple[list[float], list[float]]:
        await one("honest", "xyz", H2)
        slow = [asyncio.create_task(one(f"slow {k}", "cif", ENDLESS)) for k in range(3)]
        honest = []
        while not all(task.done() for task in slow):
            honest.append(await one("honest", "xyz", H2))
            await asyncio.sleep(0.05)
        return honest, [task.result() for task in slow]

    pool.start()
    try:
        honest, slow = asyncio.run(all_of_them())
    finally:
        pool.close()
    assert sorted(honest)[len(honest) // 2] < 0.5
    assert max(slow) > 2 * max(honest)


def test_what_needs_its_cpu_time_is_told_from_what_dies(process):
    request = {"format": "cif", "text": ENDLESS, "max_atoms": 5, "max_frames": 1, "cpu_seconds": 0.2}
    assert process.ask(request, 60) == {"error": "cpu"}
