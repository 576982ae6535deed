"""``POST /v1/predict``, ``/v1/initial-guess``, ``/v1/bands`` and ``/v1/dos``: one structure in, numbers or a file out."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.answer import Answered, Ask, answer
from service.answers.output_formats import ARRAY_FORMATS, BAND_FORMATS, GUESS_FORMATS, PREDICT_FORMATS, OutputFormat
from service.http.deadline import deadline, while_connected
from service.http.intake import read_request
from service.http.negotiation import choose_format
from service.http.openapi import structure_operation
from service.routes.ready import ready_services
from service.schemas.evaluation import EvaluateAnswer, EvaluateRequest
from service.schemas.requests import BandsRequest, DosRequest, GuessRequest, PredictRequest
from service.schemas.responses import BandsAnswer, DosAnswer
from service.state import limits_of

router = APIRouter(prefix="/v1", tags=["structures"])


@router.post(
    "/predict",
    summary="Predict the Kohn-Sham Hamiltonian of one structure",
    openapi_extra=structure_operation(PredictRequest, PREDICT_FORMATS),
    response_class=Response,
)
async def predict(request: Request) -> Response:
    """Send a structure as JSON, as a file (multipart) or as a raw body; get back the asked outputs."""
    return await _answer(request, PredictRequest, PREDICT_FORMATS)


@router.post(
    "/initial-guess",
    summary="Predict a starting point for an SCF calculation",
    openapi_extra=structure_operation(GuessRequest, GUESS_FORMATS),
    response_class=Response,
)
async def initial_guess(request: Request) -> Response:
    """Send a structure; get back a density matrix and orbitals, as arrays or as a file that PySCF reads."""
    return await _answer(request, GuessRequest, GUESS_FORMATS)


@router.post(
    "/bands",
    summary="Predict the bands of a crystal",
    openapi_extra=structure_operation(BandsRequest, BAND_FORMATS, BandsAnswer),
    response_class=Response,
)
async def bands(request: Request) -> Response:
    """Send a crystal, and a path or k-points; get back energies, Fermi level and gap, or a picture."""
    return await _answer(request, BandsRequest, BAND_FORMATS)


@router.post(
    "/dos",
    summary="Predict the density of states of a crystal",
    openapi_extra=structure_operation(DosRequest, BAND_FORMATS, DosAnswer),
    response_class=Response,
)
async def dos(request: Request) -> Response:
    """Send a crystal; get back its density of states on a mesh of k-points, or a picture."""
    return await _answer(request, DosRequest, BAND_FORMATS)


@router.post(
    "/evaluate",
    summary="Compare the prediction with a Kohn-Sham matrix of your own",
    openapi_extra=structure_operation(EvaluateRequest, ARRAY_FORMATS, EvaluateAnswer),
    response_class=Response,
)
async def evaluate(request: Request) -> Response:
    """Send a molecule and the converged Fock matrix that you have of it; get back how far the prediction is from it."""
    return await _answer(request, EvaluateRequest, ARRAY_FORMATS)


async def _answer(
    request: Request,
    model: type[PredictRequest | GuessRequest | BandsRequest | DosRequest | EvaluateRequest],
    formats: Sequence[OutputFormat],
) -> Response:
    services = ready_services(request)
    started = time.perf_counter()
    async with deadline(services.settings.request_timeout_s):
        body = await read_request(request, model)
        form = choose_format(body.format_out, request.headers.get("accept"), formats)
        ask = Ask(
            body.structure,
            body,
            form,
            limits_of(services.settings),
            str(request.state.request_id),
            known_tags=request.headers.get("if-none-match"),
            started=started,
        )
        return _response(await while_connected(request, answer(services, ask)), form)


def _response(answered: Answered, form: OutputFormat) -> Response:
    # it may be kept by the caller, and must be asked about again: the model may have been replaced
    headers = {**answered.headers, "Vary": "Accept", "ETag": answered.tag, "Cache-Control": "private, no-cache"}
    if answered.content is None:
        return Response(status_code=304, headers=headers)
    assert isinstance(answered.content, bytes)
    return Response(answered.content, media_type=form.media_type, headers=headers)
