"""What a parser process says is wrong, as an error of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.errors import ServiceError
from service.structures.formats import HINTS


def unreadable(reply: Mapping[str, Any], usual: str | None = None) -> ServiceError:
    """Of a file or frame that cannot be read; ``usual`` is the hint where the reader has none."""
    hint = reply["hint"] or usual or "Check the file and its format."
    place = {name: reply[name] for name in ("line", "frame")}
    return ServiceError(reply["code"], reply["detail"], field="file", hint=hint, **place)


def error_of(reply: Mapping[str, Any], file_format: str, max_frames: int) -> ServiceError:
    """Of a file as a whole."""
    reason = reply["error"]
    if reason == "unreadable":
        return unreadable(reply, HINTS.get(file_format))
    if reason == "many_frames" and max_frames == 1:
        return ServiceError(
            "invalid_request",
            "The file holds more than one structure; this route takes one.",
            field="file",
            hint="Name one with the option frame (frame=1 is the first), or send the whole file to /v1/predict/batch.",
        )
    if reason == "no_frame":
        return ServiceError(
            "invalid_request",
            f"The file holds {reply['frames']} structures, and frame asks for another.",
            field="frame",
            hint=f"Ask for one from 1 to {reply['frames']}.",
        )
    if reason == "many_frames":
        return ServiceError(
            "too_many_structures",
            f"The file holds more than {max_frames} structures, the limit of this route.",
            field="file",
            hint="Send it in parts.",
        )
    hint = HINTS.get(file_format)
    detail = f"The text cannot be read as {file_format}."
    if reason in ("memory", "limits", "cpu"):
        detail = f"Reading the text as {file_format} took more time or memory than allowed."
    return ServiceError("unparsable_structure", detail, field="file", hint=hint or "Check the file and its format.")
