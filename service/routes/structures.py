"""``POST /v1/predict``, ``/v1/initial-guess`` and ``/v1/predict/batch``: structures in, numbers or files out."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.batch import answer_batch
from service.http.negotiation import GUESS_FORMATS, PREDICT_FORMATS
from service.http.openapi import structure_operation
from service.pipeline import answer_request
from service.schemas.requests import BatchRequest, GuessRequest, PredictRequest
from service.schemas.responses import BatchAnswer

router = APIRouter(prefix="/v1", tags=["structures"])


@router.post(
    "/predict",
    summary="Predict the Kohn-Sham Hamiltonian of one structure",
    openapi_extra=structure_operation(PredictRequest, PREDICT_FORMATS),
    response_class=Response,
)
async def predict(request: Request) -> Response:
    """Send a structure as JSON, as a file (multipart) or as a raw body; get back the asked outputs."""
    return await answer_request(request, PredictRequest, PREDICT_FORMATS, "prediction")


@router.post(
    "/predict/batch",
    summary="Predict the Kohn-Sham Hamiltonians of many structures",
    openapi_extra=structure_operation(BatchRequest, PREDICT_FORMATS, BatchAnswer),
    response_class=Response,
)
async def predict_batch(request: Request) -> Response:
    """Send up to 256 structures as JSON, or a file of many frames; each gets its own answer or its own problem."""
    return await answer_batch(request)


@router.post(
    "/initial-guess",
    summary="Predict a starting point for an SCF calculation",
    openapi_extra=structure_operation(GuessRequest, GUESS_FORMATS),
    response_class=Response,
)
async def initial_guess(request: Request) -> Response:
    """Send a structure; get back a density matrix and orbitals, as arrays or as a file that PySCF reads."""
    return await answer_request(request, GuessRequest, GUESS_FORMATS, "guess")
