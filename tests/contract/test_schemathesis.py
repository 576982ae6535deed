"""Requests made up from our own OpenAPI document: every answer has a status, a content type and a body as documented.

The document describes what is well formed, and generated requests are both: as it says, and broken in one place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.access.new_key import new_key, table_of
from service.app import create_app
from service.structures.formats import CONTENT_TYPES

MAX_EXAMPLES = 25
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
CONFORMANCE = [status_code_conformance, content_type_conformance, response_schema_conformance]
BUSY = (503, 504, 507)
"""Documented answers of a server that has no room or time; every other 5xx is a fault."""


def without_defaults() -> dict[str, Any]:
    """The document with the statuses that it names and no others: a default answer would fit every status."""
    document: dict[str, Any] = json.loads(DOCUMENT.read_bytes())
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path != "/v1/jobs/{id}/result":  # a failed job's own problem has any status
                del operation["responses"]["default"]
    return document


schema = schemathesis.openapi.from_dict(without_defaults())
schema.config.generation.update(max_examples=MAX_EXAMPLES, deterministic=True, with_security_parameters=False)
bounded = settings(max_examples=MAX_EXAMPLES, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@schemathesis.serializer(*CONTENT_TYPES)
def structure_file(_: Any, value: Any) -> bytes:
    """A made-up body of a chemical content type."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def operator(
    serve: Any, settings: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, dict[str, str]]]:
    """URL of a service with a keys file, and the header of a key that may do everything."""
    path: Path = tmp_path_factory.mktemp("keys") / "keys.toml"
    key = new_key()
    path.write_text(table_of("operator", key, admin=True))
    with serve(create_app(settings.model_copy(update={"api_keys_file": path}))) as client:
        yield str(client.base_url), {"X-API-Key": key}


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def check(case: schemathesis.Case, base_url: str, session: requests.Session, headers: dict[str, str]) -> None:
    reply = case.call(base_url=base_url, session=session, headers=headers, allow_redirects=False, timeout=120)
    busy = reply.status_code in BUSY
    case.validate_response(reply, checks=CONFORMANCE if busy else [not_a_server_error, *CONFORMANCE])


@schema.exclude(path_regex="^/v1/admin/").parametrize()
@bounded
def test_answers_are_as_documented(case: schemathesis.Case, client: httpx.Client, session: requests.Session):
    check(case, str(client.base_url), session, {})


@schema.include(path_regex="^/v1/admin/").parametrize()
@bounded
def test_admin_answers_are_as_documented(case: schemathesis.Case, operator: Any, session: requests.Session):
    base_url, headers = operator
    check(case, base_url, session, headers)
