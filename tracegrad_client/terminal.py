"""Text for a terminal: what came from elsewhere may hold sequences that a terminal obeys."""

from __future__ import annotations

from typing import BinaryIO, TextIO


class Printable:
    """A text stream whose control characters come out as escapes; line ends stay."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def buffer(self) -> BinaryIO:
        """For bytes that were asked for, as they are."""
        return self._stream.buffer

    def isatty(self) -> bool:
        """Whether a person may be reading."""
        return self._stream.isatty()

    def write(self, text: str) -> int:
        """Write a text."""
        self._stream.write("".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()
