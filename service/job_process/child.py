"""One process of jobs, as the service sees it: started, asked, ended; and why it died."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import Any, Final

from service.errors import ServiceError
from service.job_process.frames import Frame, pack, read_frame
from service.memory.machine import out_of_memory_kills
from service.settings import Settings

START_TIMEOUT_S: Final = 300.0
_ROOT: Final = str(Path(__file__).resolve().parents[2])
_START: Final = f"import sys; sys.path.insert(0, {_ROOT!r}); from service.job_process.worker import main; main()"


class DiedError(Exception):
    """The process has ended.

    Attributes:
        cause: in words, for the log.
        for_memory: whether the kernel ended it because memory had run out, as far as one can tell.
    """

    def __init__(self, cause: str, *, for_memory: bool) -> None:
        super().__init__(cause)
        self.cause = cause
        self.for_memory = for_memory


class Child:
    """A process that computes one job at a time.

    Args:
        process: started by :meth:`start`.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._kills_before = out_of_memory_kills()

    @classmethod
    async def start(cls, settings: Settings) -> Child:
        """Start a process; returns once it can take a job.

        Raises:
            DiedError: it does not start.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _START,
            settings.model_dump_json(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        child = cls(process)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await child.receive()
        except TimeoutError:
            await child.end()
            raise DiedError(f"it was not ready within {START_TIMEOUT_S:g} s", for_memory=False) from None
        except BaseException:
            await child.end()
            raise
        return child

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.returncode is None

    async def answers(self) -> bool:
        """Whether a process that has waited still does: its death is known a moment after it."""
        self.send("ping")
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while (await self.receive()).kind != "ready":
                    pass
        except (TimeoutError, DiedError):
            return False
        return True

    def send(self, kind: str, **fields: Any) -> None:
        """Send a message; one to a process that has died is lost, and :meth:`receive` tells."""
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(pack(kind, **fields))

    async def receive(self) -> Frame:
        """The next message.

        Raises:
            DiedError: there is none any more.
        """
        assert self._process.stdout is not None
        frame = await read_frame(self._process.stdout)
        if frame is None:
            raise await self._death()
        return frame

    async def end(self) -> None:
        """End the process, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def _death(self) -> DiedError:
        code = await self._process.wait()
        kills = out_of_memory_kills()
        if code >= 0:
            return DiedError(f"exit code {code}", for_memory=False)
        name = signal.Signals(-code).name
        for_memory = -code == signal.SIGKILL and kills > self._kills_before
        return DiedError(
            f"{name}, {'killed by the kernel for memory' if for_memory else 'sent by something else'}",
            for_memory=for_memory,
        )


def error_of(fields: dict[str, Any]) -> Exception:
    """The exception that a ``failed`` message tells of."""
    if "internal" in fields:
        return RuntimeError(f"the job's process failed: {fields['internal']}")
    return ServiceError(**fields)
