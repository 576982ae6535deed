"""The parser process: reads one structure file after another with ASE, behind limits, and answers with plain numbers.

Started by ``service.structures.pool`` as a process of its own, because a 300-byte file can make a reader allocate
gigabytes or open other files. Protocol, on stdin and (the original) stdout: a 4-byte big-endian length, then JSON.

    request   {"format": "xyz", "text": "...", "max_atoms": 300, "max_frames": 1, "cpu_seconds": 5}
    reply     {"frames": [{"numbers": [...], "positions": [[x, y, z], ...], "cell": [[...]] or null, "pbc": [...],
               "charge": int or null, "multiplicity": int or null} or {"error": "too_many_atoms"}, ...]}
              or {"error": "unparsable" | "many_frames" | "memory"}
    first     {"ready": true}, once everything is imported

Imports numpy and ASE, never torch, and nothing of ``service`` but ``ase_json``.
"""

from __future__ import annotations

import io
import json
import numbers
import os
import re
import resource
import struct
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, BinaryIO

MAX_FILE_WRITTEN_BYTES = 64 * 1024 * 1024
MAX_OPEN_FILES = 64
SDF_SEPARATOR = "$$$$"

_EXTENDED_COMMENT = re.compile(r"\b(Properties|Lattice)\s*=", re.IGNORECASE)
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


class ManyFramesError(Exception):
    """The file holds more structures than asked for."""


def read_structures(file_format: str, text: str, max_frames: int) -> list[dict[str, Any]]:
    """Read the structures of a file.

    Args:
        file_format: a name of ``formats.ACCEPTED``.
        text: the whole file.
        max_frames: so many at most.

    Returns:
        for each numbers (atom,), positions (atom, 3) in Å, cell (3, 3) in Å or None, pbc, and charge and multiplicity if
        the file states them; plain Python values.

    Raises:
        ManyFramesError: more than ``max_frames`` structures.
        Exception: whatever the reader raises on text it cannot read.
    """
    if file_format == "json":
        from service.structures.ase_json import decode_ase_json

        return [decode_ase_json(text)]
    _refuse_ambiguous(file_format, text)
    atoms_list = []
    for part in _records(file_format, text, max_frames):
        atoms_list += _read_with_ase(file_format, part, max_frames)
    if len(atoms_list) > max_frames:
        raise ManyFramesError
    if not atoms_list:
        return [
            {"numbers": [], "positions": [], "cell": None, "pbc": [False] * 3, "charge": None, "multiplicity": None}
        ]
    return [_plain(atoms) for atoms in atoms_list]


def _plain(atoms: Any) -> dict[str, Any]:
    cell = atoms.cell.array.tolist() if atoms.cell.rank == 3 else None
    return {
        "numbers": [int(number) for number in atoms.numbers],
        "positions": atoms.positions.tolist(),
        "cell": cell,
        "pbc": [bool(flag) for flag in atoms.pbc],
        "charge": _stated_integer(atoms.info, "charge", "total_charge"),
        "multiplicity": _stated_integer(atoms.info, "multiplicity", "spin_multiplicity"),
    }


def _refuse_ambiguous(file_format: str, text: str) -> None:
    """Refuse what ASE would read wrongly without a word."""
    if file_format == "lammps-data" and not re.search(r"^\s*(Masses|Atom Type Labels)\b", text, re.MULTILINE):
        raise ValueError("without masses ASE takes atom type 1 for hydrogen, 2 for helium, ...")


def _records(file_format: str, text: str, max_frames: int) -> list[str]:
    """An SD file's records, of which ASE reads the first only; other files as they are."""
    if file_format not in ("sdf", "mol") or SDF_SEPARATOR not in text:
        return [text]
    first, *others = text.replace("\r\n", "\n").split(SDF_SEPARATOR)
    records = [first, *(record.removeprefix("\n") for record in others)]  # the rest of the separator's line
    if not records[-1].strip():
        records.pop()
    if len(records) > max_frames:
        raise ManyFramesError
    return records


def _read_with_ase(file_format: str, text: str, max_frames: int) -> list[Any]:
    from ase.io import read
    from ase.io.formats import ioformats

    if file_format in ("xyz", "extxyz"):
        # ASE's plain reader takes a trailing blank line for another atom count.
        text = text.strip("\ufeff").rstrip() + "\n"
        if text.count("\n") == 1:
            text += "\n"  # a count without atoms still has its comment line
        lines = text.split("\n", 2)
        # A file that declares columns or a lattice must not be read as if it had none.
        if file_format == "xyz" and len(lines) > 1 and _EXTENDED_COMMENT.search(lines[1]):
            file_format = "extxyz"
    known = ioformats[file_format]
    index = slice(0, max_frames + 1)
    if known.acceptsfd:
        stream = io.BytesIO(text.encode()) if known.isbinary else io.StringIO(text)
        return list(read(stream, index=index, format=file_format))
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = Path(folder, "structure")
        path.write_text(text)
        return list(read(str(path), index=index, format=file_format))


def _stated_integer(info: dict[Any, Any], *names: str) -> int | None:
    for name in names:
        value = info.get(name)
        if isinstance(value, numbers.Real) and not isinstance(value, bool):
            number = float(value)
            return int(number) if number.is_integer() else None
    return None


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Reply to one request; never raises."""
    try:
        frames = read_structures(request["format"], request["text"], request["max_frames"])
        most = request["max_atoms"]
        return {"frames": [{"error": "too_many_atoms"} if len(frame["numbers"]) > most else frame for frame in frames]}
    except ManyFramesError:
        return {"error": "many_frames"}
    except MemoryError:
        return {"error": "memory"}
    except BaseException:  # readers raise anything, SystemExit included; the text of it may hold input or paths
        return {"error": "unparsable"}


def limit_cpu(seconds: float) -> None:
    """Allow this process ``seconds`` of CPU time from now on; the kernel ends it afterwards."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + seconds) + 1, hard))


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

    import service.structures.ase_json  # noqa: F401

    for name in formats:
        if name != "json":
            _ = ioformats[name].module
    read_structures("xyz", "1\n\nH 0 0 0\n", 1)
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
    preload(sys.argv[2:])
    limit_resources(int(sys.argv[1]))
    send(replies, {"ready": True})
    while header := requests.read(4):
        request = json.loads(requests.read(struct.unpack(">I", header)[0]))
        limit_cpu(request["cpu_seconds"])
        reply = answer(request)
        send(replies, reply)
        if reply.get("error") == "memory":
            # The heap of a process that met its limit is not worth trusting: the parent starts a fresh one.
            return
