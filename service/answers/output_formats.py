"""The formats that answers come in: names, media types, what each can carry, and the headers that go with one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.errors import ServiceError
from service.schemas.requests import GuessOptions, PredictOptions

MAX_WARNING_LENGTH: Final = 500


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
GUESS_FORMATS: Final = (*PREDICT_FORMATS, CHK, MOLDEN, CUBE, QCSCHEMA)


def refuse_array_options(options: PredictOptions | GuessOptions, form: OutputFormat) -> None:
    """A file format has its own order, unit and contents: say so rather than ignore what was asked for.

    Raises:
        ServiceError: ``invalid_request``.
    """
    asked = {
        "ao_order": options.ao_order != "pyscf",
        "energy_unit": options.energy_unit != "hartree",
        "outputs": bool(options.outputs),
    }
    for name in [name for name, is_asked in asked.items() if is_asked and not form.holds_arrays]:
        raise ServiceError(
            "invalid_request",
            f"The format {form.name} has its own contents, AO order and units; {name} does not apply.",
            field=name,
            hint=f"Leave out {name}, or ask for json, npz or safetensors.",
        )


def headers_of(form: OutputFormat, file_stem: str, warnings: Sequence[str]) -> dict[str, str]:
    """The headers that an answer has whoever gets it and whenever: a file name, and its warnings."""
    headers = {}
    if form.suffix is not None:
        headers["Content-Disposition"] = f'attachment; filename="{file_stem}.{form.suffix}"'
    if warnings:
        headers["Warning"] = ", ".join(f'299 tracegrad "{header_text(warning)}"' for warning in warnings)
    return headers


def header_text(text: str) -> str:
    """A text as the inside of a quoted string in a header: printable ASCII, no quotes or backslashes."""
    plain = (char if " " <= char <= "~" and char not in '"\\' else "?" for char in text)
    return "".join(plain)[:MAX_WARNING_LENGTH]
