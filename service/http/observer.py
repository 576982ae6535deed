"""One request under observation: its fields in the log, its span, its counts, and its line when it is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Message, Scope

from service.http.deadline import CLIENT_GONE
from service.http.route_table import RoutePattern, fitting, route_patterns
from service.observability import logs
from service.observability.metrics import OTHER, Metrics
from service.observability.tracing import Tracing

logger = logging.getLogger("service.access")

PROBES: Final = frozenset({"/health/live", "/health/ready", "/metrics"})
"""Asked every few seconds: no traces, and a log line at level ``debug`` unless they fail."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestRecord:
    """What is known of a request so far.

    Attributes:
        status: as sent; ``CLIENT_GONE`` until then.
        code: of the problem that was sent, if it was one.
        sent_bytes: of the answer's body.
    """

    def __init__(self) -> None:
        self.status = CLIENT_GONE
        self.code: str | None = None
        self.sent_bytes = 0
        self._started = time.perf_counter()
        self._ended: float | None = None

    def sent(self, message: Message) -> None:
        """A part of the answer goes out."""
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
        elif message["type"] == "http.response.body":
            self.sent_bytes += len(message.get("body", b""))
            if not message.get("more_body", False):
                self._ended = time.perf_counter()

    def broken(self) -> None:
        """Half an answer is out, and no more will follow."""
        self.status, self.code = 500, "internal_error"

    @property
    def seconds(self) -> float:
        """From the arrival to the last part of the answer, or to now if there was none."""
        return (self._ended or time.perf_counter()) - self._started


class Observer:
    """Watches the requests of one app.

    Args:
        metrics: of the app.
        tracing: of the app, or None.
    """

    def __init__(self, metrics: Metrics, tracing: Tracing | None) -> None:
        self._metrics = metrics
        self._tracing = tracing
        self._routes: list[RoutePattern] | None = None

    @contextmanager
    def request(self, scope: Scope, request_id: str) -> Iterator[RequestRecord]:
        """Observe a request; its problem code, if any, is found in the state of the scope.

        Args:
            scope: of the ASGI request.
            request_id: given to it.
        """
        route = self._template(scope)
        method = scope["method"] if scope["method"] in _METHODS else OTHER
        record = RequestRecord()
        self._metrics.request_started()
        tracing = self._tracing if route not in PROBES else None
        span = tracing.request(route, method, request_id, Headers(scope=scope)) if tracing else nullcontext()
        with logs.context(request_id=request_id, method=method, route=route), span as request_span:
            if request_span is not None:
                logs.note(trace_id=request_span.trace_id)
            try:
                yield record
            finally:
                state = scope["state"]
                record.code = record.code or state.get("problem_code")
                logs.note(key_name=state.get("key_name"))
                if request_span is not None:
                    request_span.finish(record.status, record.code)
                self._metrics.request_finished(route, method, record.status, record.seconds, record.sent_bytes)
                if record.status >= 400 and record.status != CLIENT_GONE:
                    self._metrics.rejection(record.code or OTHER)
                _log(record, route)

    def _template(self, scope: Scope) -> str:
        """Template of the route whose path fits, whatever the method."""
        if self._routes is None:
            self._routes = route_patterns(scope["app"])
        return next((route.template for route in fitting(self._routes, scope)), OTHER)


def _log(record: RequestRecord, route: str) -> None:
    level = logging.INFO
    if record.status >= 500:
        level = logging.WARNING
    elif record.status < 400 and route in PROBES:
        level = logging.DEBUG
    extra = {"status": record.status, "seconds": round(record.seconds, 6), "bytes": record.sent_bytes}
    logger.log(level, "answered", extra=extra if record.code is None else {**extra, "code": record.code})
