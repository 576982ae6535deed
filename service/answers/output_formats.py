"""The formats that answers come in: names, media types, what each can carry, and the headers that go with one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from service.errors import ServiceError
from service.schemas.requests import StructureOptions

MAX_WARNING_LENGTH: Final = 500


@dataclass(frozen=True)
class OutputFormat:
    """A format that answers come in.

    Attributes:
        name: its ``format_out``.
        media_type: its content type.
        suffix: of the offered file name; None for JSON, which is shown rather than saved.
        holds_arrays: whether it carries arrays of any name (and so any outputs, AO order and unit).
        systems: what it can describe.
    """

    name: str
    media_type: str
    suffix: str | None
    holds_arrays: bool
    systems: Literal["any", "molecules", "crystals"] = "any"


JSON: Final = OutputFormat("json", "application/json", None, True)
NPZ: Final = OutputFormat("npz", "application/x-npz", "npz", True)
SAFETENSORS: Final = OutputFormat("safetensors", "application/vnd.safetensors", "safetensors", True)
CHK: Final = OutputFormat("chk", "application/x-hdf5", "chk", False, "molecules")
MOLDEN: Final = OutputFormat("molden", "chemical/x-molden", "molden", False, "molecules")
CUBE: Final = OutputFormat("cube", "chemical/x-cube", "cube", False, "molecules")
QCSCHEMA: Final = OutputFormat("qcschema", "application/x-qcschema+json", "qcschema", False, "molecules")
QCSCHEMA_V1: Final = OutputFormat("qcschema-v1", "application/x-qcschema+json", "qcschema", False, "molecules")
DEEPH: Final = OutputFormat("deeph", "application/zip", "zip", False, "crystals")
DEEPH_LEGACY: Final = OutputFormat("deeph-legacy", "application/zip", "zip", False, "crystals")
ABACUS: Final = OutputFormat("abacus", "application/zip", "zip", False, "crystals")
SIESTA: Final = OutputFormat("siesta", "application/zip", "zip", False, "crystals")
SISL: Final = OutputFormat("sisl", "application/x-netcdf", "nc", False, "crystals")

PNG: Final = OutputFormat("png", "image/png", "png", False, "crystals")
SVG: Final = OutputFormat("svg", "image/svg+xml", "svg", False, "crystals")

ARRAY_FORMATS: Final = (JSON, NPZ, SAFETENSORS)
PICTURE_FORMATS: Final = (PNG, SVG)
BAND_FORMATS: Final = (*ARRAY_FORMATS, *PICTURE_FORMATS)
"""Of bands and of densities of states."""
FOLDER_FORMATS: Final = (DEEPH, DEEPH_LEGACY, ABACUS, SIESTA, SISL)
"""Files of other programs."""
WITH_DENSITY: Final = (SIESTA,)
"""Of those, the ones that hold D(R)."""
PREDICT_FORMATS: Final = (*ARRAY_FORMATS, *FOLDER_FORMATS)
GUESS_FORMATS: Final = (*ARRAY_FORMATS, CHK, MOLDEN, CUBE, QCSCHEMA, QCSCHEMA_V1, ABACUS, SIESTA)
JOB_FORMATS: Final = tuple(dict.fromkeys((*GUESS_FORMATS, *FOLDER_FORMATS, *PICTURE_FORMATS)))


def refuse_array_options(options: StructureOptions, form: OutputFormat) -> None:
    """A file format has its own order, unit and contents: say so rather than ignore what was asked for.

    Raises:
        ServiceError: ``invalid_request``.
    """
    if getattr(options, "orbital", None) is not None and form.name != "cube":
        raise ServiceError(
            "invalid_request",
            "Only cubes show an orbital.",
            field="orbital",
            hint="Ask for format_out=cube, or leave it out.",
        )
    if form.holds_arrays:
        return
    asked = {
        "ao_order": getattr(options, "ao_order", "pyscf") != "pyscf",
        "energy_unit": options.energy_unit != "hartree",
        "outputs": "outputs" in options.model_fields_set and bool(getattr(options, "outputs", ())),
    }
    for name in [name for name, is_asked in asked.items() if is_asked]:
        raise ServiceError(
            "invalid_request",
            f"The format {form.name} has its own contents, AO order and units; {name} does not apply.",
            field=name,
            hint=f"Leave out {name}, or ask for json, npz or safetensors.",
        )


def refuse_other_systems(form: OutputFormat, formats: Sequence[OutputFormat], *, is_periodic: bool) -> None:
    """Refuse a format that has no place for this kind of system; ``formats`` are those of the route.

    Raises:
        ServiceError: ``invalid_request``.
    """
    kind = "crystals" if is_periodic else "molecules"
    if form.systems not in ("any", kind):
        raise ServiceError(
            "invalid_request",
            f"The format {form.name} is for {form.systems}, and the structure is {'' if is_periodic else 'not '}periodic.",
            field="format_out",
            allowed=[known.name for known in formats if known.systems in ("any", kind)],
            hint="Ask for another format, or say with pbc what the cell is.",
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
