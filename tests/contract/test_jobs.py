"""Jobs over a real socket, with a real checkpoint: the answer of the route, later; and nothing accepted is ever lost."""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service.access.new_key import new_key, table_of
from service.app import create_app
from service.jobs.records import JobLimits
from service.jobs.store import JobStore
from service.schemas.jobs import JobStatus

from .wrapped import Wrapped

SECRET = "secret-in-the-exception"
UNKNOWN = "A" * 43
JSON_OUTPUTS = ["orbital_energies", "hamiltonian", "overlap", "mo_coeff", "density_matrix", "blocks"]


@pytest.fixture
def blocked(serve: Any, settings: Any, predictor: Any, registry_of: Any, tmp_path: Path):
    """``blocked(**settings)``: a service whose model waits until the gate opens, and the gate."""

    @contextmanager
    def make(**changes: Any) -> Iterator[tuple[httpx.Client, threading.Event]]:
        gate = threading.Event()
        changed = settings.model_copy(update={"jobs_folder": tmp_path / "jobs", **changes})
        with serve(create_app(changed, registry=registry_of(Wrapped(predictor, gate.wait), 8))) as client:
            try:
                yield client, gate
            finally:
                gate.set()

    return make


def submit(client: httpx.Client, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    reply = client.post("/v1/jobs", json=body, headers=headers)
    assert reply.status_code == 202, reply.text
    job: dict[str, Any] = reply.json()
    return job


def until(client: httpx.Client, job: dict[str, Any], *states: str, **headers: str) -> dict[str, Any]:
    """The job once it is in one of the states."""
    end = time.monotonic() + 60
    while (status := client.get(job["links"]["status"], headers=headers).json())["state"] not in states:
        assert time.monotonic() < end, status
        time.sleep(0.01)
    return status


def result(client: httpx.Client, job: dict[str, Any], **headers: str) -> httpx.Response:
    until(client, job, "done", "failed", **headers)
    return client.get(job["links"]["result"], headers=headers)


def refused(reply: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["request_id"] == reply.headers["x-request-id"]
    body: dict[str, Any] = reply.json()
    return body


# --- the answer


def test_a_job_is_accepted_with_its_place_and_its_times(client, water):
    reply = client.post("/v1/jobs", json=water, headers={"X-Request-ID": "my-request"})
    assert reply.status_code == 202
    job = JobStatus.model_validate_json(reply.content)
    assert reply.headers["location"] == job.links.status == f"/v1/jobs/{job.id}"
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", job.id)
    assert job.links.result == f"/v1/jobs/{job.id}/result"
    assert (job.kind, job.format_out, job.state, job.request_id) == ("predict", "json", "queued", "my-request")
    assert job.progress.position >= 1
    assert int(reply.headers["retry-after"]) >= 1
    assert job.created < job.expires
    done = until(client, reply.json(), "done")
    JobStatus.model_validate_json(json.dumps(done))
    assert (done["progress"], done["attempts"]) == (
        {"stage": None, "fraction": 1.0, "position": None, "k_points": None, "k_points_solved": None},
        1,
    )
    assert job.created <= done["started"] <= done["finished"] < done["expires"]
    assert job.expires <= done["expires"]


def test_a_jobs_answer_is_the_answer_of_its_route(client, water):
    options = {"outputs": JSON_OUTPUTS, "ao_order": "e3nn", "energy_unit": "eV"}
    direct = client.post("/v1/predict", json={**water, **options}).json()
    reply = result(client, submit(client, {**water, **options}, **{"X-Request-ID": "submission"}))
    assert reply.status_code == 200
    answer = reply.json()
    assert answer["meta"].pop("request_id") == "submission"
    for body in (direct, answer):
        for name in ("request_id", "timings_ms", "cached"):
            body["meta"].pop(name, None)
    assert answer == direct


@pytest.mark.parametrize(
    ("kind", "route"), [("predict", "/v1/predict"), ("initial-guess", "/v1/initial-guess")], ids=["predict", "guess"]
)
@pytest.mark.parametrize("format_out", ["npz", "safetensors", "chk", "molden", "cube"])
def test_every_format_of_a_route_is_a_format_of_its_jobs(client, water, kind, route, format_out):
    body = {**water, "format_out": format_out}
    direct = client.post(route, json=body)
    submission = client.post("/v1/jobs", json={**body, "kind": kind})
    if direct.status_code == 406:
        assert refused(submission, 406, "not_acceptable")["allowed"] == direct.json()["allowed"]
        return
    assert submission.status_code == 202
    reply = result(client, submission.json())
    for name in ("content-type", "content-disposition", "warning"):
        assert reply.headers.get(name) == direct.headers.get(name)
    assert int(reply.headers["content-length"]) == len(reply.content)
    if format_out == "npz":
        ours, theirs = np.load(io.BytesIO(reply.content)), np.load(io.BytesIO(direct.content))
        assert set(ours) == set(theirs)
        for name in set(ours) - {"meta"}:
            np.testing.assert_array_equal(ours[name], theirs[name])
    if format_out == "cube":
        assert reply.content.splitlines()[2:] == direct.content.splitlines()[2:]


def test_accept_chooses_the_format_of_the_result(client, water):
    job = submit(client, {**water, "kind": "initial-guess"}, Accept="application/x-npz")
    assert job["format_out"] == "npz"
    assert result(client, job, Accept="application/json").headers["content-type"] == "application/x-npz"


def test_warnings_of_an_answer_are_stored_with_it(client, water):
    body = {**water, "xc": "pbe"}
    direct = client.post("/v1/initial-guess", json=body)
    reply = result(client, submit(client, {**body, "kind": "initial-guess"}))
    assert reply.json()["warnings"] == direct.json()["warnings"]
    assert reply.headers["warning"] == direct.headers["warning"]


def test_all_three_ways_of_sending_are_ways_to_submit(client, water_xyz):
    options = {"kind": "initial-guess", "outputs": "overlap", "energy_unit": "eV"}
    file = {"structure": {"kind": "file", "format": "xyz", "text": water_xyz}}
    replies = [
        client.post("/v1/jobs", files={"file": ("water.xyz", water_xyz)}, data=options),
        client.post("/v1/jobs", content=water_xyz, params=options, headers={"Content-Type": "chemical/x-xyz"}),
        client.post("/v1/jobs", json={**file, **options, "outputs": ["overlap"]}),
    ]
    for reply in replies:
        assert reply.status_code == 202, reply.text
        answer = result(client, reply.json()).json()
        assert {"overlap", "density_matrix"} <= set(answer["results"])
        assert answer["meta"]["energy_unit"] == "eV"


# --- refusals at submission


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"kind": "bands"}, 422, "invalid_request"),
        ({"kind": None}, 422, "invalid_request"),
        ({"outputs": []}, 422, "invalid_request"),
        ({"kind": "initial-guess", "format_out": "chk", "energy_unit": "eV"}, 422, "invalid_request"),
        ({"kind": "predict", "format_out": "chk"}, 406, "not_acceptable"),
        ({"model": "no-such-model"}, 404, "unknown_model"),
        ({"charge": 1}, 422, "electron_count"),
        ({"structure": {"kind": "file", "format": "xyz", "text": "no structure"}}, 422, "unparsable_structure"),
        ({"structure": {"kind": "atoms", "numbers": [79, 1], "positions": [[0, 0, 0], [0, 0, 1]]}}, 422, None),
        ({"unknown": 1}, 422, "invalid_request"),
    ],
)
def test_what_cannot_be_computed_is_refused_at_once(client, water, change, status, code):
    reply = client.post("/v1/jobs", json={**water, **change})
    refused(reply, status, code or reply.json()["code"])


def test_an_unknown_option_is_told_those_of_jobs(client, water):
    assert "kind" in refused(client.post("/v1/jobs", json={**water, "unknown": 1}), 422, "invalid_request")["hint"]


def test_jobs_have_limits_of_their_own_and_larger_ones(serve, settings, water, water_xyz):
    small = settings.model_copy(update={"max_atoms": 2, "max_orbitals": 10, "job_max_atoms": 3})
    with serve(create_app(small)) as client:
        refused(client.post("/v1/predict", json=water), 413, "too_many_atoms")
        assert result(client, submit(client, water)).json()["meta"]["n_ao"] == 24
        file = {"structure": {"kind": "file", "format": "xyz", "text": water_xyz}}
        assert result(client, submit(client, file)).json()["meta"]["n_ao"] == 24
        larger = "4" + water_xyz[1:] + "H 5 5 5\n"
        for structure in (
            {"kind": "file", "format": "xyz", "text": larger},
            {"kind": "atoms", "numbers": [1] * 4, "positions": [[0, 0, float(index)] for index in range(4)]},
        ):
            refused(client.post("/v1/jobs", json={"structure": structure}), 413, "too_many_atoms")


def test_more_waiting_jobs_than_allowed_are_503(blocked, water):
    with blocked(max_jobs=1) as (client, gate):
        until(client, first := submit(client, water), "running")
        second = submit(client, water)
        reply = client.post("/v1/jobs", json=water)
        refused(reply, 503, "queue_full")
        assert int(reply.headers["retry-after"]) >= 1
        assert client.get(second["links"]["status"]).json()["progress"]["position"] == 1
        gate.set()
        assert [result(client, job).status_code for job in (first, second)] == [200, 200]


# --- a job's life


def test_an_unfinished_job_has_no_result_yet(blocked, water):
    with blocked() as (client, gate):
        jobs = [submit(client, water) for _ in range(2)]
        until(client, jobs[0], "running")
        for job, state in zip(jobs, ("running", "queued"), strict=True):
            reply = client.get(job["links"]["result"])
            assert state in refused(reply, 409, "job_not_finished")["detail"]
            assert int(reply.headers["retry-after"]) >= 1
        running = client.get(jobs[0]["links"]["status"])
        assert running.json()["progress"]["stage"] in ("integrals", "forward")
        assert int(running.headers["retry-after"]) >= 1
        # Neither the event loop nor a request that is waited for minds.
        assert client.get("/health/ready").status_code == 200
        gate.set()
        assert [result(client, job).status_code for job in jobs] == [200, 200]


@pytest.mark.parametrize("state", ["queued", "running", "done"])
def test_a_deleted_job_is_gone_and_the_others_go_on(blocked, water, state):
    with blocked() as (client, gate):
        jobs = [submit(client, water) for _ in range(3)]
        until(client, jobs[0], "running")
        if state == "done":
            gate.set()
            until(client, jobs[0], "done")
        target = jobs[1] if state == "queued" else jobs[0]
        reply = client.delete(target["links"]["status"])
        assert (reply.status_code, reply.content) == (204, b"")
        for gone in (
            client.get(target["links"]["status"]),
            client.get(target["links"]["result"]),
            client.delete(target["links"]["status"]),
        ):
            refused(gone, 404, "unknown_job")
        gate.set()
        for job in jobs:
            if job is not target:
                assert result(client, job).status_code == 200


def test_a_result_is_there_until_its_time_is_over(serve, settings, water, tmp_path):
    now = [1e9]
    store = JobStore(tmp_path / "jobs", JobLimits(ttl_s=50.0), clock=lambda: now[0])
    with serve(create_app(settings, job_store=store)) as client:
        job = submit(client, water)
        assert (job["created"], job["expires"]) == ("2001-09-09T01:46:40.000Z", "2001-09-09T01:47:30.000Z")
        assert result(client, job).status_code == 200
        now[0] += 49.9
        assert client.get(job["links"]["result"]).status_code == 200
        now[0] += 0.1
        refused(client.get(job["links"]["result"]), 404, "unknown_job")
        refused(client.get(job["links"]["status"]), 404, "unknown_job")


# --- failures


def test_a_failed_job_answers_with_its_own_problem(serve, settings, predictor, registry_of, water):
    def fail() -> None:
        raise RuntimeError(SECRET)

    with serve(create_app(settings, registry=registry_of(Wrapped(predictor, fail), 4))) as client:
        job = submit(client, water)
        status = until(client, job, "failed")
        JobStatus.model_validate_json(json.dumps(status))
        assert status["progress"]["stage"] == "forward"
        reply = client.get(job["links"]["result"])
        body = refused(reply, 500, "internal_error")
        assert body | {"request_id": 0} == status["problem"] | {"request_id": 0}
        assert SECRET not in reply.text + json.dumps(status)


def test_a_result_without_room_is_a_failed_job_and_a_submission_without_room_is_507(serve, settings, water):
    tight = settings.model_copy(update={"job_storage_bytes": 4096})
    with serve(create_app(tight)) as client:
        assert result(client, submit(client, {**water, "outputs": ["orbital_energies"]})).status_code == 200
        refused(result(client, submit(client, {**water, "outputs": ["hamiltonian"]})), 507, "storage_full")
    with serve(create_app(tight.model_copy(update={"job_storage_bytes": 0}))) as client:
        refused(client.post("/v1/jobs", json=water), 507, "storage_full")
        assert client.post("/v1/predict", json=water).status_code == 200


# --- whose job it is


def test_a_job_belongs_to_the_key_that_submitted_it(serve, settings, water, tmp_path):
    keys = {name: new_key() for name in ("alice", "bob")}
    path = tmp_path / "keys.toml"
    path.write_text("".join(table_of(name, key) for name, key in keys.items()))
    alice, bob = ({"X-API-Key": keys[name]} for name in ("alice", "bob"))
    folder = {"jobs_folder": tmp_path / "jobs"}
    with serve(create_app(settings.model_copy(update={"api_keys_file": path, **folder}))) as client:
        job = submit(client, water, **alice)
        assert result(client, job, **alice).status_code == 200
        for reply in (
            client.get(job["links"]["status"], headers=bob),
            client.get(job["links"]["result"], headers=bob),
            client.delete(job["links"]["status"], headers=bob),
        ):
            refused(reply, 404, "unknown_job")
        assert client.get(job["links"]["status"]).status_code == 401
        assert client.get(job["links"]["status"], headers=alice).status_code == 200
    with serve(create_app(settings.model_copy(update=folder))) as client:
        refused(client.get(job["links"]["status"]), 404, "unknown_job")


@hypothesis_settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(job_id=st.text(min_size=1, max_size=60) | st.from_regex(r"[A-Za-z0-9_-]{40,46}", fullmatch=True))
def test_no_id_whatsoever_is_a_server_error(client, job_id):
    path = "/v1/jobs/" + "".join(f"%{byte:02x}" for byte in job_id.encode("utf-8", "surrogatepass"))
    for reply in (client.get(path), client.get(path + "/result"), client.delete(path)):
        assert reply.status_code in (307, 404, 405), reply.text
        if len(job_id) == 43:
            assert reply.json()["code"] == "unknown_job"


def test_other_methods_are_not_allowed(client):
    refused(client.get("/v1/jobs"), 405, "method_not_allowed")
    refused(client.put(f"/v1/jobs/{UNKNOWN}"), 405, "method_not_allowed")


# --- restarts


def test_a_service_that_stops_leaves_its_jobs_to_the_next_one(blocked, serve, settings, water, tmp_path):
    with blocked() as (client, gate):
        jobs = [submit(client, water, **{"X-Request-ID": name}) for name in ("first", "second")]
        until(client, jobs[0], "running")
        threading.Timer(0.2, gate.set).start()  # the service is stopping by then
    with serve(create_app(settings.model_copy(update={"jobs_folder": tmp_path / "jobs"}))) as client:
        for job, name in zip(jobs, ("first", "second"), strict=True):
            assert result(client, job).json()["meta"]["request_id"] == name
            assert until(client, job, "done")["attempts"] == 1


# --- idempotency keys, artifacts


def test_the_same_request_under_a_key_is_one_job_and_another_one_is_refused(serve, settings, water, tmp_path):
    changed, key = settings.model_copy(update={"jobs_folder": tmp_path / "jobs"}), {"Idempotency-Key": "a key of ours"}
    with serve(create_app(changed)) as client:
        job = submit(client, water, **key)
        assert submit(client, water, **key)["id"] == job["id"]
        assert submit(client, water)["id"] != job["id"]
        until(client, job, "done")
    with serve(create_app(changed)) as client:
        again = submit(client, water, **key)
        assert (again["id"], again["state"]) == (job["id"], "done")
        reply = client.post("/v1/jobs", json={**water, "outputs": ["hamiltonian"]}, headers=key)
        refused(reply, 422, "invalid_request")
        assert reply.json()["field"] == "Idempotency-Key"
        assert client.delete(job["links"]["status"]).status_code == 204
        assert submit(client, water, **key)["id"] != job["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9", "a\tb"])
def test_a_key_that_is_none_is_refused(client, water, key):
    reply = client.post("/v1/jobs", json=water, headers={"Idempotency-Key": key.encode("latin-1")})
    refused(reply, 422, "invalid_request")


@pytest.mark.parametrize(("format_out", "suffix"), [("json", "json"), ("npz", "npz")])
def test_a_done_job_lists_what_it_gave(client, water, format_out, suffix):
    job = submit(client, {**water, "format_out": format_out})
    content = result(client, job)
    (artifact,) = until(client, job, "done")["artifacts"]
    assert artifact == {
        "name": f"predict.{suffix}",
        "media_type": content.headers["content-type"],
        "bytes": len(content.content),
        "sha256": hashlib.sha256(content.content).hexdigest(),
        "link": job["links"]["result"],
    }
