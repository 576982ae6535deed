"""The attacks of attacks.py: each is one caller that does one hostile thing, once, and says what came of it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import httpx

PATIENCE_S: Final = 90.0
HELD_S: Final = 3.0
"""How long a connection that sends nothing useful is kept."""
MISTAKES: Final = 1_300_000
JSON_TYPE: Final = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Caller:
    """One attacker.

    Attributes:
        http: connections from an address of its own.
        address: that address.
        host: of the service.
        port: of the service.
        random: numbers of its own.
    """

    http: httpx.AsyncClient
    address: str
    host: str
    port: int
    random: random.Random

    async def post(self, path: str, body: object) -> str:
        """The status of an answer, with its code."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            reply = await self.http.post(path, content=content, headers=JSON_TYPE)
        except httpx.HTTPError as error:
            return type(error).__name__
        code = reply.json().get("code", "") if "json" in reply.headers.get("content-type", "") else ""
        return f"{reply.status_code} {code}".strip()

    async def raw(self, pieces: list[bytes], pause_s: float = 0.0, held_s: float = 0.0) -> str:
        """The status line that bytes get."""
        reader, writer = await asyncio.open_connection(self.host, self.port, local_addr=(self.address, 0))
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)
            line = await asyncio.wait_for(reader.readline(), max(held_s, HELD_S))
            return line.decode("latin-1").strip()[9:] or "closed"
        except TimeoutError:
            return "kept open"
        except OSError as error:
            return type(error).__name__
        finally:
            writer.close()


def _file(file_format: str, text: str) -> dict[str, object]:
    return {"structure": {"kind": "file", "format": file_format, "text": text}}


def _atoms(number: int, places: list[list[float]]) -> dict[str, object]:
    return {"structure": {"kind": "atoms", "numbers": [number] * len(places), "positions": places}}


async def _columns(caller: Caller) -> str:
    return await caller.post(
        "/v1/predict", _file("extxyz", "1\nProperties=species:S:1:pos:R:3:x:R:20000000\nH 0 0 0\n")
    )


async def _symmetry(caller: Caller) -> str:
    """A true file of two kilobytes that takes a reader most of a second: 60 sites, 192 operations."""
    sites = "".join(f"H{i} {0.013 * i % 1:.4f} {0.017 * i % 1:.4f} {0.029 * i % 1:.4f}\n" for i in range(60))
    cell = "".join(f"_cell_length_{axis} 20\n" for axis in "abc")
    cell += "".join(f"_cell_angle_{angle} 90\n" for angle in ("alpha", "beta", "gamma"))
    places = "".join(f"_atom_site_{name}\n" for name in ("label", "fract_x", "fract_y", "fract_z"))
    text = f"data_x\n{cell}_symmetry_space_group_name_H-M 'F m -3 m'\nloop_\n{places}{sites}"
    return await caller.post("/v1/predict", _file("cif", text))


async def _cube(caller: Caller) -> str:
    """27 carbon atoms on a grid of 3 Å, two of them bonded: the density at 90 points in each direction."""
    places = [[3.0 * (k % 3), 3.0 * (k // 3 % 3), 3.0 * (k // 9)] for k in range(27)]
    places[13][0] = caller.random.uniform(1.3, 1.5)
    return await caller.post("/v1/initial-guess", {**_atoms(6, places), "format_out": "cube"})


async def _mistakes(caller: Caller) -> str:
    path, body = caller.random.choice(_mistaken())
    return await caller.post(f"/v1/predict{path}", body)


@cache
def _mistaken() -> list[tuple[str, bytes]]:
    """Routes and bodies of a million mistakes."""
    many = {item: ",".join([item] * MISTAKES) for item in ('""', "[]", "{}")}
    bodies = [
        ("", f'{{"structure":{{"kind":"atoms","numbers":[1],"positions":[{many["[]"]}]}}}}'),
        ("", f'{{"structure":{{"kind":"atoms","positions":[],"numbers":[{many[chr(34) * 2]}]}}}}'),
        ("", f'{{"structure":{{"kind":"qcschema","molecule":{{"geometry":[{many[chr(34) * 2]}]}}}}}}'),
        ("/batch", f'{{"structures":[{many["{}"]}]}}'),
    ]
    return [(path, body.encode()) for path, body in bodies]


async def _right_but_long(caller: Caller) -> str:
    """400,000 atoms: nothing is wrong but their number."""
    return await caller.post("/v1/predict", _long())


@cache
def _long() -> bytes:
    rows = ",".join(["[0,0,1]"] * 400_000)
    return f'{{"structure":{{"kind":"atoms","numbers":[{",".join(["1"] * 400_000)}],"positions":[{rows}]}}}}'.encode()


async def _at_the_cap(caller: Caller) -> str:
    """1000 orbitals: the largest structure that the service takes, a different one each time."""
    step = caller.random.uniform(1.5, 1.6)
    return await caller.post("/v1/predict", _atoms(1, [[0.0, 0.0, step * k - 0.8 * (k == 1)] for k in range(200)]))


async def _headers(caller: Caller) -> str:
    return await caller.raw([b"GET /health/live HTTP/1.1\r\n", *[b"A1: b\r\n" * 10_000] * 20])


async def _idle(caller: Caller) -> str:
    results = await asyncio.gather(*(caller.raw([b""], held_s=2 * HELD_S) for _ in range(10)))
    return results[0]


async def _drip(caller: Caller) -> str:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    return await caller.raw([head, *[b"1\r\nx\r\n"] * 10], pause_s=0.5)


async def _upgrade(caller: Caller) -> str:
    fields = b"Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    return await caller.raw(
        [b"GET /v1/models HTTP/1.1\r\n" + fields + b"Sec-WebSocket-Key: " + b"A" * 22 + b"==\r\n\r\n"]
    )


async def _nonsense(caller: Caller) -> str:
    return await caller.raw([caller.random.randbytes(200) + b"\r\n\r\n"])


ATTACKS: Final[Mapping[str, tuple[int, Callable[[Caller], Awaitable[str]]]]] = {
    "20 million columns": (20, _columns),
    "crystal of 192 operations": (20, _symmetry),
    "cube of 729,000 points": (6, _cube),
    "1.3 million mistakes": (2, _mistakes),
    "400,000 atoms": (2, _right_but_long),
    "1000 orbitals": (8, _at_the_cap),
    "flood of headers": (6, _headers),
    "idle connections": (20, _idle),
    "dripping bodies": (20, _drip),
    "upgrades to WebSockets": (20, _upgrade),
    "no HTTP at all": (20, _nonsense),
}
"""By name: callers at a time, and what each does again and again."""
