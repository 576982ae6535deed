"""Models, health, the OpenAPI document and the two pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.documents import api_page, openapi_file
from service.errors import ERROR_TABLE

ROOT = Path(__file__).resolve().parents[2]

CONTRACT_CODES = {
    400: {"malformed_body"},
    401: {"missing_key"},
    403: {"forbidden"},
    404: {"unknown_model", "unknown_job"},
    406: {"not_acceptable"},
    415: {"unsupported_media_type"},
    413: {"body_too_large", "too_many_atoms", "too_many_orbitals", "too_large_for_memory"},
    422: {
        "invalid_request",
        "unparsable_structure",
        "unsupported_format",
        "unsupported_element",
        "unsupported_charge",
        "unsupported_multiplicity",
        "unsupported_basis",
        "unsupported_periodicity",
        "atoms_too_close",
        "non_finite_coordinates",
        "empty_structure",
        "electron_count",
    },
    429: {"quota_exceeded"},
    503: {"queue_full", "not_ready", "draining"},
    504: {"deadline_exceeded"},
}


def test_every_code_of_the_contract_has_its_status():
    for status, codes in CONTRACT_CODES.items():
        for code in codes:
            assert ERROR_TABLE[code].status == status


def test_the_card_is_what_the_checkpoint_says(client, predictor):
    listed = client.get("/v1/models").json()
    (card,) = listed["models"]
    assert card["default"] is True
    assert listed["default"] == {"molecules": predictor.card.name, "crystals": None}
    assert card["weights_sha256"] == predictor.card.weights_sha256
    assert card["elements"] == list(predictor.card.elements)
    assert client.get(f"/v1/models/{predictor.card.name}").json() == card


def test_health(client, predictor):
    assert client.get("/health/live").json() == {"status": "alive"}
    assert client.get("/health/ready").json() == {"status": "ready", "models": [predictor.card.name]}


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_elsewhere(client, path):
    reply = client.get(path)
    assert reply.headers["content-type"].startswith("text/html")
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", reply.text)
    assert "default-src 'none'" in reply.headers["content-security-policy"]


def test_the_page_keeps_no_key(client):
    page = client.get("/").text
    (field,) = re.findall(r"<input[^>]*id=\"key\"[^>]*>", page)
    assert 'type="password"' in field
    assert 'autocomplete="off"' in field
    assert "name=" not in field  # what has no name is in no form
    assert not re.search(r"localStorage|sessionStorage|indexedDB|cookie", page)


def test_the_document_describes_every_route(client):
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/predict",
        "/v1/predict/batch",
        "/v1/bands",
        "/v1/evaluate",
        "/v1/dos",
        "/v1/initial-guess",
        "/v1/jobs",
        "/v1/jobs/{id}",
        "/v1/jobs/{id}/result",
        "/v1/models",
        "/v1/models/{name}",
        "/v1/admin/models/{name}/load",
        "/v1/admin/models/{name}/unload",
        "/health/live",
        "/health/ready",
        "/metrics",
    }
    content = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    assert {"application/json", "multipart/form-data", "chemical/x-xyz", "text/plain"} <= set(content)


def test_every_reference_in_the_document_resolves(client):
    reply = client.get("/openapi.json")
    names = set(reply.json()["components"]["schemas"])
    referenced = set(re.findall(r'"\$ref":\s*"#/components/schemas/([^"]+)"', reply.text))
    assert referenced
    assert referenced <= names


def test_the_stored_document_is_current():
    stored = (ROOT / "docs" / "openapi.json").read_bytes()
    assert stored == openapi_file(), "run: python -m service.documents"


def test_the_table_of_errors_in_the_docs_is_the_error_table():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert page == api_page(page), "run: python -m service.documents"
    assert all(page.count(f"| `{code}` |") == 1 for code in ERROR_TABLE)


def test_real_answers_fit_the_documented_schema(client, water):
    from service.schemas.responses import Answer, ProblemBody

    outputs = ["orbital_energies", "hamiltonian", "overlap", "mo_coeff", "density_matrix", "blocks"]
    reply = client.post("/v1/predict", json={**water, "outputs": outputs})
    assert Answer.model_validate_json(reply.content).results.hamiltonian is not None
    problem = client.post("/v1/predict", json={"structure": {}, "charge": "x"})
    assert len(ProblemBody.model_validate_json(problem.content).errors or []) == 2
