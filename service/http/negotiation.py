"""Which format the answer has: ``format_out`` first, then the Accept header, then JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.answers.output_formats import OutputFormat
from service.errors import ServiceError

MAX_ACCEPT_LENGTH = 2000


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
    # of several with one media type the first is meant
    by_type: Mapping[str, OutputFormat] = {known.media_type: known for known in reversed(available)}
    for wanted in by_preference(accept):
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
        allowed=list(dict.fromkeys(known.media_type for known in available)),
        hint="Accept one of the available types, or name one of " + ", ".join(names) + " in format_out.",
    )


def by_preference(accept: str) -> list[str]:
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
