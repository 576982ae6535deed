"""Bytes of a structure file to text."""

from __future__ import annotations

import codecs


def decode_text(data: bytes) -> str | None:
    """UTF-8, UTF-16 where a mark says so, else Windows-1252 (Latin-1): comments hold umlauts and Å.

    Returns:
        the text, or None for what is no text.
    """
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError:
                return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    if any(byte < 32 and byte not in b"\t\n\r\f\x1a" for byte in data):
        return None
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")
