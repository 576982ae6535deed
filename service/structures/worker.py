"""The parser process: reads one structure file after another with ASE, behind limits, and answers with plain numbers.

Started by ``service.structures.pool`` as a process of its own, because a 300-byte file can make a reader allocate
gigabytes or open other files. Protocol, on stdin and (the original) stdout: a 4-byte big-endian length, then JSON.

    request   {"format": "xyz", "text": "...", "max_atoms": 300, "max_frames": 1, "frame": null, "cpu_seconds": 5};
              a frame, from 1, is the only one of the reply
    reply     {"frames": [{"numbers": [...], "positions": [[x, y, z], ...], "cell": [[...]] or null, "pbc": [...],
               "charge": int or null, "multiplicity": int or null, "notes": [...]}
               or {"error": "too_many_atoms"} or {"error": "unreadable", "detail": ..., "hint": ..., "code": ...,
               "line": int or null, "frame": int or null}, ...]}
              or {"error": "no_frame", "frames": how many} or {"error": "unparsable" | "many_frames" | "memory"}, or the
              unreadable one, of the whole file; with "cpu_s", the CPU time that it took
    first     {"ready": true}, once everything is imported

Imports numpy and ASE, never torch, and nothing of ``service``: the readers are ``model.structure_files``.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import struct
import sys
import time
import warnings
from pathlib import Path
from typing import Any, BinaryIO

from model.structure_files.frame import Frame, ManyFramesError, UnreadableError
from model.structure_files.read import OWN_READERS, read_structures

MAX_FILE_WRITTEN_BYTES = 64 * 1024 * 1024
MAX_OPEN_FILES = 64
SHORTEST_TIMER_S = 0.01
_BLOCKED_EVENTS = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.kill",
    "sqlite3.",
    "ctypes.dlopen",
    "urllib.",
    "http.",
    "ftplib.",
)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Reply to one request; never raises."""
    try:
        frames = read_structures(request["format"], request["text"], request["max_frames"])
        frame = request.get("frame")
        if frame is not None:
            if frame > len(frames):
                return {"error": "no_frame", "frames": len(frames)}
            frames = [frames[frame - 1]]
        return {"frames": [_plain(frame, request["max_atoms"]) for frame in frames]}
    except ManyFramesError:
        return {"error": "many_frames"}
    except MemoryError:
        return {"error": "memory"}
    except UnreadableError as error:
        return _unreadable(error)
    except BaseException:  # readers raise anything, SystemExit included; the text of it may hold input or paths
        return {"error": "unparsable"}


def _plain(frame: Frame | UnreadableError, max_atoms: int) -> dict[str, Any]:
    if isinstance(frame, UnreadableError):
        return _unreadable(frame)
    if len(frame.numbers) > max_atoms:
        return {"error": "too_many_atoms"}
    names = ("numbers", "positions", "cell", "pbc", "charge", "multiplicity", "notes")
    return {name: getattr(frame, name) for name in names}


def _unreadable(error: UnreadableError) -> dict[str, Any]:
    place = {"line": error.line, "frame": error.frame}
    return {"error": "unreadable", "detail": str(error), "hint": error.hint, "code": error.code, **place}


def limit_cpu(seconds: float) -> None:
    """Allow this process ``seconds`` of CPU time from now on; the kernel ends it afterwards, by SIGPROF."""
    signal.setitimer(signal.ITIMER_PROF, max(seconds, SHORTEST_TIMER_S))
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    # in whole seconds, for a reader that would take the signal
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + seconds) + 2, hard))


def limit_resources(memory_bytes: int) -> None:
    """Cap the address space, written files and open files of this process, and leave no core dumps."""
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, MAX_FILE_WRITTEN_BYTES),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def forbid_side_effects(library_roots: list[str], private_folder: str) -> None:
    """Refuse from now on to open files elsewhere than in the private folder, to connect, and to start processes.

    Library files may still be read. A second line of defence behind the closed list of formats.
    """
    readable = tuple(os.path.realpath(root) + os.sep for root in library_roots)
    private = os.path.realpath(private_folder) + os.sep

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, int):
                return
            full = os.path.realpath(os.fsdecode(path))
            if full.startswith(private):
                return
            writes = (isinstance(mode, str) and any(letter in mode for letter in "wax+")) or (
                isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
            )
            if writes or not full.startswith(readable):
                raise PermissionError("the parser opens no files")
        elif event.startswith(_BLOCKED_EVENTS):
            raise PermissionError("the parser has no side effects")

    sys.addaudithook(hook)


def preload(formats: list[str]) -> None:
    """Import every reader now, so that no import is left for after the limits."""
    import ase
    from ase.io.formats import ioformats

    for name in formats:
        if name not in OWN_READERS:
            _ = ioformats[name].module
    read_structures("extxyz", "1\nProperties=species:S:1:pos:R:3\nH 0 0 0\n", 1)
    roots = [sys.prefix, sys.base_prefix, str(Path(ase.__file__).parent.parent)]
    forbid_side_effects(roots, os.getcwd())


def send(stream: BinaryIO, message: dict[str, Any]) -> None:
    """Write one message."""
    data = json.dumps(message).encode()
    stream.write(struct.pack(">I", len(data)) + data)
    stream.flush()


def main() -> None:
    """Serve requests until stdin closes. Arguments: address space in bytes, then the formats to import."""
    warnings.simplefilter("ignore")
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    # Some readers print; a stray line must not end up between two replies.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    with contextlib.suppress(OSError):
        # where the kernel must kill for memory, a file's parser goes and not the service
        Path("/proc/self/oom_score_adj").write_text("1000")
    preload(sys.argv[2:])
    limit_resources(int(sys.argv[1]))
    send(replies, {"ready": True})
    while header := requests.read(4):
        request = json.loads(requests.read(struct.unpack(">I", header)[0]))
        limit_cpu(request["cpu_seconds"])
        before = time.process_time()
        reply = answer(request)
        reply["cpu_s"] = time.process_time() - before
        send(replies, reply)
        if reply.get("error") == "memory":
            # The heap of a process that met its limit is not worth trusting: the parent starts a fresh one.
            return
