"""Which format the answer has: ``format_out`` first, then the Accept header, then JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.errors import ServiceError

MAX_ACCEPT_LENGTH = 2000


@dataclass(frozen=True)
class OutputFormat:
    """A format that answers come in.

    Attributes:
        name: its ``format_out``.
        media_type: its content type.
        suffix: of the offered file name; None for JSON, which is shown rather than saved.
        holds_arrays: whether it carries arrays of any name (and so any outputs, AO order and unit).
    """

    name: str
    media_type: str
    suffix: str | None
    holds_arrays: bool


JSON: Final = OutputFormat("json", "application/json", None, True)
NPZ: Final = OutputFormat("npz", "application/x-npz", "npz", True)
SAFETENSORS: Final = OutputFormat("safetensors", "application/vnd.safetensors", "safetensors", True)
CHK: Final = OutputFormat("chk", "application/x-hdf5", "chk", False)
MOLDEN: Final = OutputFormat("molden", "chemical/x-molden", "molden", False)
CUBE: Final = OutputFormat("cube", "chemical/x-cube", "cube", False)
QCSCHEMA: Final = OutputFormat("qcschema", "application/x-qcschema+json", "qcschema", False)

PREDICT_FORMATS: Final = (JSON, NPZ, SAFETENSORS)
GUESS_FORMATS: Final = (JSON, NPZ, SAFETENSORS, CHK, MOLDEN, CUBE, QCSCHEMA)


def choose_format(format_out: str | None, accept: str | None, available: Sequence[OutputFormat]) -> OutputFormat:
    """The format of the answer.

    Args:
        format_out: what the caller named, or None.
        accept: the Accept header, or None.
        available: what the route can write, the default first.

    Raises:
        ServiceError: ``not_acceptable``.
    """
    names = [known.name for known in available]
    if format_out is not None:
        for known in available:
            if known.name == format_out.lower():
                return known
        raise ServiceError(
            "not_acceptable",
            "This format_out is not available on this route.",
            field="format_out",
            allowed=names,
            hint="Ask for one of the available formats.",
        )
    if accept is None or not accept.strip():
        return available[0]
    by_type: Mapping[str, OutputFormat] = {known.media_type: known for known in available}
    for wanted in _by_preference(accept):
        if wanted in by_type:
            return by_type[wanted]
        kind = wanted.removesuffix("/*")
        for known in available:
            if wanted == "*/*" or (kind != wanted and known.media_type.startswith(kind + "/")):
                return known
    raise ServiceError(
        "not_acceptable",
        "None of the types in the Accept header is available on this route.",
        field="Accept",
        allowed=list(by_type),
        hint="Accept one of the available types, or name one of " + ", ".join(names) + " in format_out.",
    )


def _by_preference(accept: str) -> list[str]:
    """Media types of an Accept header, the most wanted first; those with q=0 left out."""
    weighted: list[tuple[float, int, str]] = []
    for index, part in enumerate(accept[:MAX_ACCEPT_LENGTH].split(",")):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = min(1.0, max(0.0, float(parameter[2:])))
                except ValueError:
                    quality = 0.0
        if media_type and quality > 0.0:
            weighted.append((-quality, index, media_type))
    return [media_type for _, _, media_type in sorted(weighted)]
