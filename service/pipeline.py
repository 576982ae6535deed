"""The road of a request: read, negotiate, check, predict, encode. Both structure routes walk it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from service.answers import GUESS_OUTPUTS, NEEDS_ORBITALS, make_result
from service.comparison import check_basis, xc_warnings
from service.encoding import encode_json, encode_npz, encode_safetensors
from service.error_table import ServiceError
from service.exports import WRITERS
from service.intake import RequestModel, read_request
from service.negotiation import JSON, OutputFormat, choose_format
from service.schemas.requests import GuessRequest, PredictRequest
from service.state import Services, ready_services
from service.translate import build_structure, check_orbital_count, option_defaults, raw_structure

_ENCODERS: Final = {"json": encode_json, "npz": encode_npz, "safetensors": encode_safetensors}


async def answer_request(
    request: Request, model: type[RequestModel], formats: Sequence[OutputFormat], file_stem: str
) -> Response:
    """Answer a structure route.

    Args:
        request: of any of the three ways.
        model: the request model of the route.
        formats: what the route can write.
        file_stem: stem of the file name offered for binary answers.

    Raises:
        ServiceError, ModelError: with a code of the error table.
    """
    services = ready_services(request)
    limit = services.settings.request_timeout_s
    try:
        async with asyncio.timeout(limit):
            return await _answer(request, services, model, formats, file_stem)
    except TimeoutError as error:
        raise ServiceError(
            "deadline_exceeded",
            f"The answer was not ready within {limit:g} s.",
            hint="Try again later, or send a smaller structure.",
        ) from error


async def _answer(
    request: Request,
    services: Services,
    model: type[RequestModel],
    formats: Sequence[OutputFormat],
    file_stem: str,
) -> Response:
    started = time.perf_counter()
    body = await read_request(request, model)
    chosen = choose_format(body.format_out, request.headers.get("accept"), formats)
    loaded = services.registry.get(body.model)
    predictor = loaded.predictor
    outputs, warnings = _plan(body, chosen, predictor.card.xc, predictor.card.basis.name)

    parse_started = time.perf_counter()
    raw = await raw_structure(body, services.parsers)
    parse_ms = 1000.0 * (time.perf_counter() - parse_started)
    submission = build_structure(raw, body, services.settings)
    structure = submission.structure
    predictor.check(structure)
    check_orbital_count(predictor.count_orbitals(structure), services.settings)

    answer = await loaded.engine.predict(structure, orbitals=bool(NEEDS_ORBITALS.intersection(outputs)))
    prediction = answer.prediction
    timings = {
        "parse": parse_ms,
        "queue": answer.queue_ms,
        **{name: prediction.timings_ms.get(name, 0.0) for name in ("integrals", "forward", "eigensolve")},
        "total": 1000.0 * (time.perf_counter() - started),
    }
    if not chosen.holds_arrays:
        content = await services.encode(WRITERS[chosen.name], prediction, predictor.card.basis.name)
        return _response(content, chosen, file_stem, [*prediction.warnings, *warnings])
    result = make_result(
        prediction,
        predictor.card,
        body,
        outputs,
        device=predictor.device,
        request_id=request.state.request_id,
        timings_ms=timings,
        batch_size=answer.batch_size,
        warnings=warnings,
        defaults_applied=[*submission.defaults_applied, *option_defaults(body, loaded.name)],
    )
    content = await services.encode(_ENCODERS[chosen.name], result)
    return _response(content, chosen, file_stem, result.warnings)


def _plan(
    body: PredictRequest | GuessRequest, chosen: OutputFormat, xc: str, basis: str
) -> tuple[tuple[str, ...], list[str]]:
    """Which arrays to send, and the warnings that need no prediction."""
    if isinstance(body, PredictRequest):
        return body.outputs, []
    check_basis(body.basis, basis)
    if not chosen.holds_arrays:
        _refuse_array_options(body, chosen)
    outputs = (*GUESS_OUTPUTS, *(name for name in body.outputs if name not in GUESS_OUTPUTS))
    return outputs, xc_warnings(body.xc, xc)


def _refuse_array_options(body: GuessRequest, chosen: OutputFormat) -> None:
    """A file format has its own order, unit and contents: say so rather than ignore what was asked for."""
    asked: Mapping[str, bool] = {
        "ao_order": body.ao_order != "pyscf",
        "energy_unit": body.energy_unit != "hartree",
        "outputs": bool(body.outputs),
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise ServiceError(
                "invalid_request",
                f"The format {chosen.name} has its own contents, AO order and units; {name} does not apply.",
                field=name,
                hint=f"Leave out {name}, or ask for json, npz or safetensors.",
            )


def _response(content: bytes, chosen: OutputFormat, file_stem: str, warnings: Sequence[str]) -> Response:
    response = Response(content, media_type=chosen.media_type, headers={"Vary": "Accept"})
    if chosen is not JSON:
        response.headers["Content-Disposition"] = f'attachment; filename="{file_stem}.{chosen.suffix}"'
    for warning in warnings:
        response.headers.append("Warning", f'299 tracegrad "{header_text(warning)}"')
    return response


def header_text(text: str, limit: int = 500) -> str:
    """A text as the inside of a quoted string in a header: printable ASCII, no quotes or backslashes."""
    return "".join(char if " " <= char <= "~" and char not in '"\\' else "?" for char in text)[:limit]
