"""Reading structure files: a small pool of parser processes with limits, and the plain numbers they send back.

A file is untrusted: ASE reads it in ``service.structures.worker``, a process with a cap on memory, CPU and open files,
which is killed when it exceeds the time limit and started again for the next file. Between files it stays, so that
the usual file costs a millisecond or two.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import ServiceError
from service.schemas.structures import MAX_FRAMES
from service.scratch import own_folder
from service.serving.fair import FairPool
from service.serving.turns import Room, caller
from service.settings import Settings
from service.structures.declared import is_dear, refuse_impossible
from service.structures.formats import ACCEPTED
from service.structures.replies import error_of, unreadable

START_TIMEOUT_S = 60.0
CHEAP_CPU_S = 0.5
"""CPU time of a file that looks like any other: a hundred times what one takes."""
MAX_REPLY_BYTES = 64 * 1024 * 1024

_START = "import sys; sys.path.insert(0, {root!r}); from service.structures.worker import main; main()"


@dataclass(frozen=True)
class RawStructure:
    """What a structure says before anyone judged it; lengths in Å.

    Attributes:
        numbers: atomic numbers.
        positions: one row of three for each atom.
        cell: three lattice vectors, or None.
        pbc: periodicity along each.
        charge: the charge that the source states, or None.
        multiplicity: the multiplicity that the source states, or None.
        notes: what its reader chose or converted.
    """

    numbers: list[int]
    positions: list[Any]
    cell: list[Any] | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)
    charge: int | None = None
    multiplicity: int | None = None
    notes: tuple[str, ...] = ()


class _WorkerDiedError(Exception):
    """The parser process ended, or had to be ended."""


class ParserProcess:
    """One parser process, started on first use and again after trouble. Not for concurrent use."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        """Start the process unless it runs; returns once it can read files."""
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        root = str(Path(__file__).resolve().parents[2])
        self._folder = tempfile.TemporaryDirectory(prefix="parse-", dir=own_folder())
        # -I: no environment variables, no working directory on the path; the environment is empty of secrets besides.
        command = [sys.executable, "-I", "-B", "-c", _START.format(root=root), str(self._memory_bytes), *ACCEPTED]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.name,
            env={
                "HOME": self._folder.name,
                "TMPDIR": self._folder.name,
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "LC_ALL": "C.UTF-8",
            },
            process_group=0,  # a Ctrl-C in the terminal is the service's; its session's share of the processor stays one
        )
        try:
            self._receive(START_TIMEOUT_S)
        except _WorkerDiedError as error:
            self.stop()
            raise RuntimeError("the structure file parser does not start") from error

    def stop(self) -> int | None:
        """Kill the process, if there is one, and remove its folder; what it ended with."""
        status = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05 if self._process.poll() is None else 0)  # if it ends by itself, by what?
            self._process.kill()
            status = self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        return status

    def ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """One request, one reply; a process that dies or exceeds the time is replaced next time.

        Returns:
            the reply, or ``{"error": "limits"}``; ``{"error": "cpu"}`` if the CPU time of the request was over first.
        """
        self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        data = json.dumps(request).encode()
        try:
            self._process.stdin.write(struct.pack(">I", len(data)) + data)
            self._process.stdin.flush()
            reply = self._receive(timeout_s)
        except (_WorkerDiedError, OSError):
            return {"error": "cpu" if self.stop() == -signal.SIGPROF else "limits"}
        if reply.get("error") == "memory":
            self.stop()
        return reply

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        (size,) = struct.unpack(">I", self._read(4, deadline))
        if size > MAX_REPLY_BYTES:
            raise _WorkerDiedError
        try:
            reply = json.loads(self._read(size, deadline))
        except ValueError as error:
            raise _WorkerDiedError from error
        if not isinstance(reply, dict):
            raise _WorkerDiedError
        return reply

    def _read(self, size: int, deadline: float) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        chunks = bytearray()
        while len(chunks) < size:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(descriptor, min(size - len(chunks), 1 << 20)) if ready else b""
            if not chunk:
                raise _WorkerDiedError
            chunks += chunk
        return bytes(chunks)


class ParserPool:
    """A few parser processes behind a bounded queue, shared out by caller."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._processes: queue.SimpleQueue[ParserProcess] = queue.SimpleQueue()
        self._all = [ParserProcess(settings.parse_memory_bytes) for _ in range(settings.parse_workers)]
        for process in self._all:
            self._processes.put(process)
        self._threads = FairPool(settings.parse_workers, "parser")
        self._room = Room(settings.queue_limit)
        self._closing = False

    def start(self) -> None:
        """Start all processes, so that the first file does not wait for ASE to be imported."""
        for process in self._all:
            process.start()

    def close(self) -> None:
        """Wait for the file being read, then end all processes."""
        self._closing = True
        self._threads.close()
        for process in self._all:
            process.stop()

    async def parse(
        self, file_format: str, text: str, *, max_atoms: int | None = None, frame: int | None = None
    ) -> RawStructure:
        """Read a file of one structure, or one of several.

        Args:
            file_format: a name of ``formats.ACCEPTED``.
            text: the whole file.
            max_atoms: by default the limit of the settings.
            frame: which structure of it, from 1; None for the only one.

        Raises:
            ServiceError: ``empty_structure``, ``unparsable_structure``, ``invalid_request`` (several structures, or fewer
                than ``frame``), ``too_many_atoms``, ``body_too_large`` or ``queue_full``.
        """
        most = 1 if frame is None else MAX_FRAMES
        (found,) = await self._frames(file_format, text, most, max_atoms or self._settings.max_atoms, frame)
        if isinstance(found, ServiceError):
            raise found
        return found

    async def parse_many(self, file_format: str, text: str, max_frames: int) -> list[RawStructure | ServiceError]:
        """Read a file of up to ``max_frames`` structures; what is wrong with one is an error in its place.

        Raises:
            ServiceError: as :meth:`parse`; ``too_many_structures``.
        """
        return await self._frames(file_format, text, max_frames, self._settings.max_atoms)

    async def _frames(
        self, file_format: str, text: str, max_frames: int, max_atoms: int, frame: int | None = None
    ) -> list[RawStructure | ServiceError]:
        if not text.strip("\ufeff \t\r\n\0"):
            raise ServiceError("empty_structure", "The structure file is empty.", hint="Send at least one atom.")
        limit = self._settings.max_file_bytes
        if len(text) > limit or len(text.encode("utf-8", "replace")) > limit:
            raise ServiceError("body_too_large", f"A structure file may have at most {limit} bytes.", field="file")
        owner = caller.get()
        if not self._room.takes(owner, light=self._threads.is_light(owner)):
            raise ServiceError("queue_full", "Too many structure files are waiting to be read.", retry_after_s=1)
        self._room.enter(owner)
        try:
            refuse_impossible(file_format, text)
            limits = {"max_atoms": max_atoms, "max_frames": max_frames}
            request = {"format": file_format, "text": text, "frame": frame, **limits}
            reply = await self._read(request, dear=is_dear(file_format, text))
        finally:
            self._room.leave(owner)
        if "error" in reply:
            raise error_of(reply, file_format, max_frames)
        return [_raw(frame, max_atoms) for frame in reply["frames"]]

    async def _read(self, request: dict[str, Any], *, dear: bool) -> dict[str, Any]:
        """A reply; what is not done soon begins again where it keeps nobody from a parser."""
        seconds = self._settings.parse_timeout_s
        if not dear and seconds > CHEAP_CPU_S:
            cheap = {**request, "cpu_seconds": CHEAP_CPU_S}
            reply = await self._threads.run(self._ask, cheap, seconds, cost_s=_cost_s)
            if reply.get("error") != "cpu":
                return reply
        slow = {**request, "cpu_seconds": seconds}
        return await self._threads.run(self._ask, slow, seconds, dear=True, cost_s=_cost_s)

    def _ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        process = self._processes.get()
        try:
            began = time.monotonic()
            reply = process.ask(request, seconds)
            asked = time.monotonic()
            if "error" in reply and not self._closing:
                process.start()  # on the time of this caller, not of the next one
            cost = reply.get("cpu_s", asked - began) + (time.monotonic() - asked)
            return {**reply, "cost_s": cost}
        finally:
            self._processes.put(process)


def _cost_s(reply: dict[str, Any]) -> float:
    """What a file has cost: CPU time of its reader, and the seconds until there was another one if that one ended."""
    return float(reply["cost_s"])


def _raw(frame: dict[str, Any], max_atoms: int) -> RawStructure | ServiceError:
    if frame.get("error") == "unreadable":
        return unreadable(frame)
    if "error" in frame:
        return ServiceError(
            "too_many_atoms", f"The structure has more than {max_atoms} atoms, the limit of this server.", field="file"
        )
    return RawStructure(**{**frame, "pbc": tuple(frame["pbc"]), "notes": tuple(frame["notes"])})
