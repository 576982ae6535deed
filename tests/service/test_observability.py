"""What an operator sees: counts that move by one, lines that belong to their request, spans inside spans."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from starlette.responses import StreamingResponse

from model.errors import CheckpointError
from service.app import create_app
from service.errors import ERROR_TABLE, ServiceError, StartupError
from service.http.deadline import CLIENT_GONE
from service.observability import logs
from service.observability.metrics import OTHER, OUTCOMES, WARNING_KINDS, Metrics, warning_kinds
from service.observability.tracing import Tracing, finished_spans, open_tracing, span
from service.settings import Settings

from .metric_samples import Samples, every_metric, samples

ROOT = Path(__file__).resolve().parents[2]
SECRET = "s3cret-of-a-caller"
TEMPLATES = {"/v1/predict", "/v1/initial-guess", "/v1/models/{name}", "/health/live", "/metrics", "/openapi.json", "/"}


def moved(before: Samples, after: Samples) -> Samples:
    """What changed, and by how much."""
    return {key: value - before.get(key, 0.0) for key, value in after.items() if value != before.get(key, 0.0)}


def send(app: FastAPI, method: str, path: str, **options: Any) -> httpx.Response:
    """One request to an app that has not been started, and so has no models."""

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return await client.request(method, path, **options)

    return asyncio.run(ask())


async def call(app: FastAPI, method: str, path: str, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    """One request below the level at which a client would refuse to send it."""
    incoming = [*messages, {"type": "http.disconnect"}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0) if len(incoming) > 1 else incoming[0]

    async def collect(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(errors="surrogatepass"),
        "query_string": b"",
        "headers": [],
        "root_path": "",
        "scheme": "http",
        "server": ("service", 80),
        "client": ("caller", 1),
        "http_version": "1.1",
        "asgi": {"version": "3.0"},
    }
    await app(scope, receive, collect)
    return sent


BODY = {"type": "http.request", "body": b"{}", "more_body": False}


# ---- metrics


@pytest.mark.parametrize(
    ("method", "path", "route", "status", "code"),
    [
        ("GET", "/health/live", "/health/live", 200, None),
        ("GET", "/health/ready", "/health/ready", 503, "not_ready"),
        ("POST", "/v1/predict", "/v1/predict", 503, "not_ready"),
        ("GET", "/v1/models/some-name", "/v1/models/{name}", 503, "not_ready"),
        ("DELETE", "/v1/predict", "/v1/predict", 405, "method_not_allowed"),
        ("GET", "/nowhere", OTHER, 404, "not_found"),
    ],
)
def test_a_request_moves_its_own_counters_by_one_and_no_others(method, path, route, status, code):
    app = create_app(Settings())
    metrics = app.state.metrics
    before = samples(metrics)
    reply = send(app, method, path)
    assert reply.status_code == status
    change = moved(before, samples(metrics))
    request = (("method", method), ("route", route), ("status", str(status)))
    expected = {
        ("tracegrad_requests_total", request): 1.0,
        ("tracegrad_request_seconds_count", (("route", route),)): 1.0,
        ("tracegrad_response_bytes_total", (("route", route),)): float(len(reply.content)),
    }
    if code is not None:
        expected["tracegrad_rejections_total", (("reason", code),)] = 1.0
    timed = {key for key in change if key[0] in ("tracegrad_request_seconds_bucket", "tracegrad_request_seconds_sum")}
    assert {key: value for key, value in change.items() if key not in timed} == expected


def test_a_body_above_the_limit_is_counted_for_its_route():
    app = create_app(Settings(max_body_bytes=1024))
    assert send(app, "POST", "/v1/predict", content=b" " * 2000).status_code == 413
    counts = samples(app.state.metrics)
    assert counts["tracegrad_rejections_total", (("reason", "body_too_large"),)] == 1
    assert counts["tracegrad_request_seconds_count", (("route", "/v1/predict"),)] == 1


def test_two_apps_do_not_share_counts():
    first, second = create_app(Settings()), create_app(Settings())
    before = samples(second.state.metrics)
    send(first, "GET", "/health/live")
    assert moved(before, samples(second.state.metrics)) == {}


@given(
    requests=st.lists(
        st.tuples(
            st.one_of(st.sampled_from(["GET", "POST", "PROPFIND"]), st.text(min_size=1, max_size=8)),
            st.one_of(st.text(max_size=20), st.text("ab/{}.%", max_size=12), st.sampled_from(sorted(TEMPLATES))),
        ),
        max_size=20,
    )
)
@settings(deadline=None, max_examples=40)
def test_labels_stay_in_their_sets_whatever_is_asked(requests):
    app = create_app(Settings())

    async def all_of_them() -> None:
        for method, path in requests:
            await call(app, method, "/" + path, BODY)

    asyncio.run(all_of_them())
    templates = {*app.openapi()["paths"], "/", "/docs", "/openapi.json", OTHER}
    methods = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", OTHER}
    for (name, labels), _ in samples(app.state.metrics).items():
        values = dict(labels)
        assert values.get("route", OTHER) in templates, name
        assert values.get("method", OTHER) in methods, name
        assert values.get("reason", OTHER) in {*ERROR_TABLE, OTHER}, name
        assert re.fullmatch("[1-5][0-9][0-9]", values.get("status", "200")), name


def test_names_that_are_in_no_set_are_other():
    metrics = Metrics()
    metrics.model_loaded("tiny", "1.0", "abc")
    before = samples(metrics)
    metrics.rejection("made_up")
    metrics.stage("stranger", "made_up", 0.1)  # type: ignore[arg-type]
    metrics.prediction("stranger", True, ["made_up"])  # type: ignore[list-item]
    metrics.batch("stranger", 1, 1, [0.0])
    metrics.memory_split("stranger")
    changed = {label for _, labels in moved(before, samples(metrics)) for label in labels}
    named = {label for label in changed if label[0] != "le"}
    assert named == {("reason", OTHER), ("model", OTHER), ("stage", OTHER), ("kind", OTHER), ("outcome", "warned")}


def test_a_batch_counts_each_of_its_structures():
    metrics = Metrics()
    metrics.model_loaded("tiny", "1.0", "abc")
    metrics.batch("tiny", 3, 27, [0.25, 0.5, 1.0])
    counts, model = samples(metrics), (("model", "tiny"),)
    assert counts["tracegrad_batch_structures_count", model] == 1
    assert counts["tracegrad_batch_structures_sum", model] == 3
    assert counts["tracegrad_batch_cost_sum", model] == 27
    assert counts["tracegrad_queue_wait_seconds_count", model] == 3
    assert counts["tracegrad_queue_wait_seconds_sum", model] == 1.75


@pytest.mark.parametrize(
    ("in_domain", "kinds", "outcome"),
    [(True, [], "ok"), (True, ["intruder"], "warned"), (False, ["domain", "sanity"], "warned")],
)
def test_a_prediction_has_one_outcome_and_a_count_for_each_warning(in_domain, kinds, outcome):
    metrics = Metrics()
    metrics.model_loaded("tiny", "1.0", "abc")
    before = samples(metrics)
    metrics.prediction("tiny", in_domain, kinds)
    expected: dict[Any, float] = {("tracegrad_predictions_total", (("model", "tiny"), ("outcome", outcome))): 1.0}
    if not in_domain:
        expected["tracegrad_out_of_domain_total", (("model", "tiny"),)] = 1.0
    for kind in kinds:
        expected["tracegrad_warnings_total", (("kind", kind), ("model", "tiny"))] = 1.0
    assert moved(before, samples(metrics)) == expected


@pytest.mark.parametrize("trouble", ["domain", "intruder", "sanity", "functional", "basis", None])
def test_each_trouble_of_a_prediction_is_one_kind_of_warning(trouble):
    prediction: Any = SimpleNamespace(
        in_domain=trouble != "domain",
        guess=SimpleNamespace(has_intruder=trouble == "intruder"),
        checks=SimpleNamespace(ok=trouble != "sanity"),
    )
    kinds = warning_kinds(prediction, {"functional": ["xc"], "basis": ["basis"]}.get(trouble, []))
    assert kinds == ([] if trouble is None else [trouble])
    assert set(kinds) <= set(WARNING_KINDS)


def test_gauges_ask_at_each_scrape_and_a_reload_leaves_one_version():
    metrics = Metrics()
    waiting: list[int] = []
    metrics.watch_ready(lambda: bool(waiting))
    metrics.model_loaded("tiny", "1.0", "abc")
    metrics.watch_queue("tiny", lambda: len(waiting))
    assert samples(metrics)["tracegrad_queue_depth", (("model", "tiny"),)] == 0
    waiting += [1, 2]
    metrics.model_loaded("tiny", "1.1", "def")
    counts = samples(metrics)
    assert counts["tracegrad_queue_depth", (("model", "tiny"),)] == 2
    assert counts["tracegrad_ready", ()] == 1
    loaded = [dict(labels) for name, labels in counts if name == "tracegrad_model_loaded_info"]
    assert loaded == [{"model": "tiny", "version": "1.1", "sha256": "def"}]
    metrics.model_unloaded("tiny")
    gone = {name for name, labels in samples(metrics)}
    assert not gone & {"tracegrad_model_loaded_info", "tracegrad_queue_depth"}


@pytest.mark.parametrize(
    ("accept", "content_type", "parse"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8", parse_text),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", parse_text),
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1",
            "application/openmetrics-text",
            parse_openmetrics,
        ),
        ("application/openmetrics-text; version=nonsense", "application/openmetrics-text", parse_openmetrics),
        ("text/plain; version=9.9; q=x, ;;,", "text/plain; version=0.0.4; charset=utf-8", parse_text),
    ],
)
def test_the_page_parses_in_the_format_that_it_states(accept, content_type, parse):
    page, stated = every_metric().render(accept)
    assert stated.startswith(content_type)
    found = {sample.name for family in parse(page.decode()) for sample in family.samples}
    assert {
        "tracegrad_requests_total",
        "tracegrad_request_seconds_bucket",
        "tracegrad_response_bytes_total",
        "tracegrad_rejections_total",
        "tracegrad_queue_wait_seconds_bucket",
        "tracegrad_batch_structures_bucket",
        "tracegrad_batch_cost_bucket",
        "tracegrad_stage_seconds_bucket",
        "tracegrad_queue_depth",
        "tracegrad_in_flight",
        "tracegrad_predictions_total",
        "tracegrad_out_of_domain_total",
        "tracegrad_warnings_total",
        "tracegrad_memory_splits_total",
        "tracegrad_cache_hits_total",
        "tracegrad_cache_misses_total",
        "tracegrad_model_loaded_info",
        "tracegrad_ready",
        "process_resident_memory_bytes",
        "python_info",
    } <= found


def test_the_operators_page_lists_every_metric_and_no_other():
    page = (ROOT / "docs" / "operations.md").read_text()
    rows = page[page.index("| metric (`tracegrad_...`)") : page.index("Besides, `process_*`")].splitlines()
    listed = {name for row in rows if row.startswith("| `") for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    families = {family.name for family in parse_text(every_metric().render()[0].decode())}
    ours = {name.removeprefix("tracegrad_") for name in families if name.startswith("tracegrad_")}
    assert {name.removesuffix("_total") for name in listed} == ours


# ---- requests that do not end well


def app_with(path: str, endpoint: Callable[..., Any], **options: Any) -> FastAPI:
    """The app with one more route."""
    app = create_app(Settings(), **options)
    app.post(path)(endpoint)
    return app


def test_a_caller_who_leaves_is_no_error_of_ours():
    async def read(request: Request) -> None:
        await request.body()

    app = app_with("/read", read)
    before = samples(app.state.metrics)
    with log_lines("json") as lines:
        sent = asyncio.run(call(app, "POST", "/read"))
    assert sent == []
    change = moved(before, samples(app.state.metrics))
    labels = (("method", "POST"), ("route", "/read"), ("status", str(CLIENT_GONE)))
    assert change["tracegrad_requests_total", labels] == 1
    assert not any(name in ("tracegrad_rejections_total", "tracegrad_in_flight") for name, _ in change)
    assert [line["level"] for line in lines()] == ["info", "info"]


def test_half_an_answer_is_an_internal_error():
    async def halves() -> StreamingResponse:
        async def parts() -> Any:
            yield b"first half"
            raise RuntimeError(SECRET)

        return StreamingResponse(parts())

    app = app_with("/half", halves)
    with log_lines("json") as lines, pytest.raises(RuntimeError):
        asyncio.run(call(app, "POST", "/half", BODY))
    counts = samples(app.state.metrics)
    assert counts["tracegrad_requests_total", (("method", "POST"), ("route", "/half"), ("status", "500"))] == 1
    assert counts["tracegrad_rejections_total", (("reason", "internal_error"),)] == 1
    assert counts["tracegrad_in_flight", ()] == 0
    assert lines()[-1]["status"] == 500


def test_a_cancelled_request_is_over():
    started = asyncio.Event()

    async def forever() -> None:
        started.set()
        await asyncio.Event().wait()

    app = app_with("/forever", forever)

    async def scenario() -> float:
        task = asyncio.create_task(call(app, "POST", "/forever", BODY))
        await started.wait()
        running = samples(app.state.metrics)["tracegrad_in_flight", ()]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return running

    assert asyncio.run(scenario()) == 1
    assert samples(app.state.metrics)["tracegrad_in_flight", ()] == 0


# ---- logs


@contextmanager
def log_lines(log_format: str, level: str = "info") -> Iterator[Callable[[], list[Any]]]:
    """All log lines of the time being: parsed objects, or text."""
    stream = io.StringIO()
    handler = logs.make_handler(Settings(log_format=log_format, log_level=level), stream)
    handler.addFilter(lambda record: not record.name.startswith("httpx"))  # the client's own lines
    root = logging.getLogger()
    old_level = root.level
    root.addHandler(handler)
    root.setLevel(level.upper())

    def read() -> list[Any]:
        lines = stream.getvalue().splitlines()
        return [json.loads(line) for line in lines] if log_format == "json" else lines

    try:
        yield read
    finally:
        root.removeHandler(handler)
        root.setLevel(old_level)


def formatted(log_format: str, message: str, **fields: Any) -> str:
    record = logging.LogRecord("some.logger", logging.INFO, "file.py", 1, "%s", (message,), None)
    formatter = logs.make_handler(Settings(log_format=log_format), io.StringIO()).formatter
    assert formatter is not None
    with logs.context(**fields):
        return formatter.format(record)


@given(message=st.text(), key_name=st.text())
def test_a_record_is_one_json_object_on_one_line(message, key_name):
    line = formatted("json", message, key_name=key_name, request_id="abc")
    assert len(line.splitlines()) == 1
    entry = json.loads(line)
    assert entry["message"] == message
    assert (entry["key_name"], entry["request_id"]) == (key_name, "abc")
    assert {"time", "level", "logger"} <= set(entry)


@given(message=st.text(), key_name=st.text())
def test_a_record_is_one_line_of_printable_text(message, key_name):
    line = formatted("text", message, key_name=key_name, request_id="abc")
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert " request_id=abc" in line
    if message.isprintable():
        assert message in line


def test_every_line_of_a_request_has_its_id_in_any_thread_and_no_other_line_has():
    log = logging.getLogger("test.worker")

    async def work(request: Request) -> None:
        log.info("on the loop")
        await asyncio.sleep(0)
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(logs.bind(log.info), "in a thread")
            await asyncio.wrap_future(future)
            await asyncio.wrap_future(pool.submit(log.info, "by itself"))
        logs.note(model="tiny", key_name="alice")

    app = app_with("/work", work)

    async def two() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await asyncio.gather(*(client.post("/work", headers={"X-Request-ID": f"id-{n}"}) for n in range(5)))

    with log_lines("json") as lines:
        asyncio.run(two())
        ours = [line for line in lines() if line["logger"] in ("test.worker", "service.access")]
    for n in range(5):
        of_request = [line["message"] for line in ours if line.get("request_id") == f"id-{n}"]
        assert of_request == ["on the loop", "in a thread", "answered"]
    assert [line["message"] for line in ours if "request_id" not in line] == ["by itself"] * 5
    last = [line for line in ours if line["message"] == "answered"]
    assert all(
        (line["model"], line["key_name"], line["route"], line["status"]) == ("tiny", "alice", "/work", 200)
        for line in last
    )
    assert all(line["seconds"] >= 0 and line["level"] == "info" for line in last)


def test_a_bound_function_may_run_in_two_threads_at_once():
    meeting = threading.Barrier(2, timeout=30)
    with logs.context(request_id="abc"), ThreadPoolExecutor(2) as pool:
        bound = logs.bind(meeting.wait)
        assert sorted(future.result() for future in [pool.submit(bound), pool.submit(bound)]) == [0, 1]


@pytest.mark.parametrize(
    ("path", "status", "seen"),
    [("/health/live", 200, False), ("/metrics", 200, False), ("/health/ready", 503, True), ("/nowhere", 404, True)],
)
def test_a_probe_that_succeeds_is_quiet(path, status, seen):
    app = create_app(Settings())
    with log_lines("json") as lines:
        assert send(app, "GET", path).status_code == status
        found = [line for line in lines() if line["logger"] == "service.access"]
    assert len(found) == seen
    with log_lines("json", "debug") as lines:
        send(app, "GET", path)
        assert sum(line["logger"] == "service.access" for line in lines()) == 1


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nothing_of_a_caller_is_logged(log_format):
    async def fail(request: Request) -> None:
        await request.body()
        try:
            raise ValueError(SECRET)
        except ValueError as error:
            raise RuntimeError(f"{SECRET}\n2026-01-01T00:00:00.000Z INFO forged: line") from error

    app = app_with("/fail", fail)
    spoken = {
        "params": {"charge": SECRET},
        "headers": {"Authorization": f"Bearer {SECRET}", "X-Request-ID": f"{SECRET}\n", "User-Agent": SECRET},
        "content": SECRET.encode(),
    }
    with log_lines(log_format) as lines:
        for path in ("/fail", "/v1/predict", f"/v1/models/{SECRET}", f"/{SECRET}"):
            send(app, "POST", path, **spoken)
        seen = lines()
    text = json.dumps(seen)
    assert SECRET not in text
    assert "RuntimeError" in text
    assert "ValueError" in text
    assert "test_observability.py" in text  # the frames are there
    assert "internal_error" in text


def test_at_debug_the_text_of_an_exception_is_there_and_begins_no_line():
    async def fail() -> None:
        raise RuntimeError(f"{SECRET}\n2026-01-01T00:00:00.000Z INFO forged: line")

    app = app_with("/fail", fail)
    with log_lines("text", "debug") as lines:
        send(app, "POST", "/fail")
        seen = lines()
    assert any(SECRET in line for line in seen)
    assert not any(line.startswith("2026-01-01T00:00:00.000Z") for line in seen)
    assert all(line.startswith("  | ") or re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z [A-Z]+ [\w.]+: ", line) for line in seen)


@pytest.mark.parametrize(
    "error", [CheckpointError("the card is torn"), ServiceError("internal_error", "the card is torn")]
)
def test_our_own_errors_keep_their_text(error):
    with log_lines("json") as lines:
        try:
            raise error
        except type(error):
            logging.getLogger("test").exception("failed")
        assert "the card is torn" in lines()[0]["exception"]


def test_a_chain_of_exceptions_that_bites_its_tail_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert logs.exception_lines((ValueError, first, None), True) == ["ValueError: b", "ValueError: a"]


# ---- traces


@contextmanager
def traced(**options: Any) -> Iterator[tuple[Tracing, Callable[[], dict[str, Any]]]]:
    """Traces into memory, and how to read them: name -> span."""
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    tracing = Tracing(SimpleSpanProcessor(exporter))
    try:
        yield tracing, lambda: {found.name: found for found in exporter.get_finished_spans()}
    finally:
        tracing.close()


def test_spans_nest_inside_their_request_also_in_threads():
    async def work() -> None:
        with span("parse"), ThreadPoolExecutor(1) as pool:
            await asyncio.wrap_future(pool.submit(logs.bind(in_thread)))
        finished_spans([("queue", 0.5), ("forward", 0.25)])

    def in_thread() -> None:
        with span("inner"):
            pass

    with traced() as (tracing, spans), log_lines("json") as lines:
        app = app_with("/work", work, tracing=tracing)
        reply = send(app, "POST", "/work")
        found = spans()
        (line,) = (line for line in lines() if line["logger"] == "service.access")
    request = found["POST /work"]
    assert set(found) == {"POST /work", "parse", "inner", "queue", "forward"}
    assert request.parent is None
    for name in ("parse", "queue", "forward"):
        assert found[name].parent.span_id == request.context.span_id
    assert found["inner"].parent.span_id == found["parse"].context.span_id
    assert {entry.context.trace_id for entry in found.values()} == {request.context.trace_id}
    assert request.attributes["http.route"] == "/work"
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["tracegrad.request_id"] == reply.headers["x-request-id"]
    assert line["trace_id"] == f"{request.context.trace_id:032x}"
    # stages timed elsewhere lie end to end
    assert found["queue"].end_time == found["forward"].start_time
    assert found["queue"].end_time - found["queue"].start_time == 500_000_000
    assert found["forward"].end_time <= request.end_time


def test_a_trace_goes_on_where_the_caller_began_it():
    with traced() as (tracing, spans):
        app = create_app(Settings(), tracing=tracing)
        send(app, "POST", "/v1/predict", headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
        (request,) = spans().values()
    assert request.context.trace_id == int("a" * 32, 16)
    assert request.parent.span_id == int("b" * 16, 16)


def test_a_span_says_that_it_failed_and_nothing_of_a_caller():
    async def fail() -> None:
        with span("parse"):
            raise RuntimeError(SECRET)

    with traced() as (tracing, spans):
        app = app_with("/fail", fail, tracing=tracing)
        options = {"params": {"charge": SECRET}, "headers": {"X-API-Key": SECRET, "User-Agent": SECRET}}
        send(app, "POST", "/fail", **options)
        send(app, "GET", f"/{SECRET}", **options)
        found = spans()
    assert set(found) == {"POST /fail", "parse", f"GET {OTHER}"}
    assert not any(SECRET in entry.to_json() for entry in found.values())
    assert found["parse"].attributes["error.type"] == "RuntimeError"
    assert found["POST /fail"].attributes["error.type"] == "internal_error"
    statuses = {name: entry.status.is_ok for name, entry in found.items()}
    assert statuses == {"POST /fail": False, "parse": False, f"GET {OTHER}": True}


def test_probes_and_whatever_is_outside_a_request_make_no_spans():
    with traced() as (tracing, spans):
        app = create_app(Settings(), tracing=tracing)
        for path in ("/health/live", "/health/ready", "/metrics"):
            send(app, "GET", path)
        with span("parse"):
            finished_spans([("queue", 1.0)])
        assert spans() == {}


def test_the_standard_variables_say_where_traces_go_and_whose_they_are(monkeypatch):
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "another-name")
        tracing = open_tracing(Settings(tracing=True))
        assert tracing is not None
        send(create_app(Settings(), tracing=tracing), "POST", "/v1/predict")
        tracing.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    ((path, body),) = received
    assert path == "/v1/traces"
    assert b"another-name" in body
    assert b"POST /v1/predict" in body


def test_a_collector_that_does_not_answer_does_not_hold_up_the_stop():
    from opentelemetry.sdk.trace import SpanProcessor

    begun, release = threading.Event(), threading.Event()

    class Stuck(SpanProcessor):
        def shutdown(self) -> None:
            begun.set()
            release.wait(60)

    Tracing(Stuck(), close_timeout_s=0.05).close()
    assert begun.wait(30)
    assert not release.is_set()
    release.set()


def test_traces_without_their_packages_stop_the_start(monkeypatch):
    for module in ("opentelemetry.sdk.trace.export", "opentelemetry.exporter.otlp.proto.http.trace_exporter"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(StartupError, match=r"pip install 'tracegrad-service\[tracing\]'"):
        create_app(Settings(tracing=True))
    create_app(Settings())


def test_without_traces_nothing_more_of_opentelemetry_is_imported():
    # FastAPI itself imports the interfaces (opentelemetry-api); the SDK and the exporters are ours to leave alone.
    code = """
import asyncio, sys
import fastapi, fastapi.applications
def loaded(): return {name for name in sys.modules if name.startswith("opentelemetry")}
before = loaded()
import httpx
from service.app import create_app
from service.observability.tracing import finished_spans, span
from service.settings import Settings
async def ask():
    transport = httpx.ASGITransport(create_app(Settings()))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.post("/v1/predict")).status_code == 503
asyncio.run(ask())
with span("parse"): finished_spans([("queue", 1.0)])
print(sorted(loaded() - before), any("opentelemetry.sdk" in name for name in loaded()))
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] False"


def test_outcomes_are_there_before_the_first_prediction():
    metrics = Metrics()
    metrics.model_loaded("tiny", "1.0", "abc")
    outcomes = {dict(labels)["outcome"] for name, labels in samples(metrics) if name == "tracegrad_predictions_total"}
    assert outcomes == set(OUTCOMES)
