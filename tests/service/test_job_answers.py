"""A job that another version of the service took in: read where it still means the same, else failed with words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.errors import ServiceError
from service.job_answers import read_job
from service.jobs.records import JobRequest

BODY = '{"structure": {"kind": "atoms", "numbers": [2], "positions": [[0, 0, 0]]}}'
REQUEST = JobRequest("predict", BODY, "json", "id")


def test_a_stored_request_comes_back_with_its_format() -> None:
    body, form = read_job(REQUEST)
    assert (body.structure.kind, form.name) == ("atoms", "json")


@pytest.mark.parametrize(
    "change",
    [
        {"body": BODY[:-1] + ', "a_field_of_tomorrow": 1}'},
        {"body": "{}"},
        {"format_out": "a_format_of_tomorrow"},
        {"kind": "a_kind_of_tomorrow"},
    ],
)
def test_what_this_version_does_not_know_fails_with_words(change: dict[str, str]) -> None:
    with pytest.raises(ServiceError, match="another version of this service") as refused:
        read_job(replace(REQUEST, **change))  # type: ignore[arg-type]
    assert refused.value.code == "invalid_request"
