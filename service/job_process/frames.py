"""Messages between the service and a process of jobs, on pipes: two big-endian lengths, a JSON object, and raw bytes.

to the process     job       request, structure, models, defaults, largest
                   held      the memory that was asked for is there
                   ping      whether it still waits for a job
from the process   ready     everything is imported, or: it waits
                   stage     a stage of the job begins, or has done so many of its steps
                   metric    something to count: name and arguments of a method of ``Metrics``
                   hold      memory is needed: bytes
                   done      media type and headers; the content is the raw bytes
                   failed    a problem of the input: the fields of a ``ServiceError``; or internal: an error's name
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from typing import Any, Final

import orjson

_HEADER: Final = struct.Struct(">IQ")
MAX_JSON_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True)
class Frame:
    """A message.

    Attributes:
        kind: as above.
        fields: of its kind.
        content: raw bytes that go with it.
    """

    kind: str
    fields: dict[str, Any]
    content: bytes = b""


def pack(kind: str, content: bytes = b"", /, **fields: Any) -> bytes:
    """A message as bytes."""
    text = orjson.dumps({"kind": kind, **fields}, option=orjson.OPT_SERIALIZE_NUMPY)
    return _HEADER.pack(len(text), len(content)) + text + content


async def read_frame(reader: asyncio.StreamReader) -> Frame | None:
    """The next message; None where the other side has ended.

    Raises:
        ValueError: what came is no message.
    """
    try:
        length, size = _HEADER.unpack(await reader.readexactly(_HEADER.size))
        if length > MAX_JSON_BYTES:
            raise ValueError("a message that is too long")
        fields = orjson.loads(await reader.readexactly(length))
        content = await reader.readexactly(size) if size else b""
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return Frame(fields.pop("kind"), fields, content)
