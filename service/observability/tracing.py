"""OpenTelemetry traces: a span for each request, and spans inside it for the stages.

Off by default, and then nothing of OpenTelemetry's SDK is imported and :func:`span` does nothing. A span says route,
method, status and request id; paths, queries, headers and the texts of exceptions stay out. Each app has its own provider,
none is made global. Where spans go is set by the standard ``OTEL_*`` variables.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from service.errors import StartupError
from service.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import Span

EXTRA: Final = "tracegrad-service[tracing]"
SERVICE_NAME: Final = "tracegrad"
CLOSE_TIMEOUT_S: Final = 5.0

_active: ContextVar[Tracing | None] = ContextVar("tracing", default=None)


class RequestSpan:
    """The span of a request."""

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def trace_id(self) -> str | None:
        """As other systems write it, 32 hexadecimal digits; None where OTEL_SDK_DISABLED is set."""
        context = self._span.get_span_context()
        return f"{context.trace_id:032x}" if context.is_valid else None

    def finish(self, status: int, code: str | None) -> None:
        """Say how the request ended; 5xx marks the span as failed.

        Args:
            status: HTTP status.
            code: of the problem, if it was one.
        """
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_attribute("error.type", code or str(status))
            self._span.set_status(StatusCode.ERROR)


class Tracing:
    """Makes spans and sends them off.

    Args:
        processor: takes the finished spans.
        close_timeout_s: how long :meth:`close` may take.
    """

    def __init__(self, processor: SpanProcessor, *, close_timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        self._close_timeout_s = close_timeout_s
        self._provider: TracerProvider = _provider(processor)
        self._tracer = self._provider.get_tracer("tracegrad")

    @contextmanager
    def request(self, route: str, method: str, request_id: str, headers: Mapping[str, str]) -> Iterator[RequestSpan]:
        """The span of a request, as a child of the caller's own if the headers name one.

        Args:
            route: template of the route.
            method: HTTP method.
            request_id: of the request.
            headers: of the request, names in lower case; read for the trace context only.
        """
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        attributes = {"http.request.method": method, "http.route": route, "tracegrad.request_id": request_id}
        with self._tracer.start_as_current_span(
            f"{method} {route}",
            context=extract(headers),
            kind=SpanKind.SERVER,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as current:
            token = _active.set(self)
            try:
                yield RequestSpan(current)
            finally:
                _active.reset(token)

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """A span inside the current one. An exception marks it with the name of its type."""
        from opentelemetry.trace import StatusCode

        with self._tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as current:
            try:
                yield
            except BaseException as error:
                current.set_attribute("error.type", type(error).__qualname__)
                current.set_status(StatusCode.ERROR)
                raise

    def finished(self, name: str, start_ns: int, end_ns: int) -> None:
        """A span that is over, inside the current one; nanoseconds since the epoch."""
        self._tracer.start_span(name, start_time=start_ns).end(end_ns)

    def close(self) -> None:
        """Send what is left, and end. Blocks, but not for long: a collector that does not answer must not hold up the
        stop. From any thread but the event loop's.
        """
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(self._close_timeout_s)


@contextmanager
def span(name: str) -> Iterator[None]:
    """A span inside the current request's; nothing if tracing is off or there is no request."""
    tracing = _active.get()
    if tracing is None:
        yield
        return
    with tracing.span(name):
        yield


def finished_spans(stages: Sequence[tuple[str, float]]) -> None:
    """Spans for stages that others have timed, one behind another, the last one ending now.

    Args:
        stages: name and seconds, in order.
    """
    tracing = _active.get()
    if tracing is None:
        return
    start = time.time_ns() - sum(round(1e9 * max(0.0, seconds)) for _, seconds in stages)
    for name, seconds in stages:
        end = start + round(1e9 * max(0.0, seconds))
        tracing.finished(name, start, end)
        start = end


def open_tracing(settings: Settings) -> Tracing | None:
    """Traces over OTLP (HTTP), if the settings ask for them.

    Raises:
        StartupError: they do, but the packages are not installed.
    """
    if not settings.tracing:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise StartupError(
            f"TRACEGRAD_TRACING is set, but OpenTelemetry is not installed. Run: pip install '{EXTRA}', or unset it."
        ) from error
    return Tracing(BatchSpanProcessor(OTLPSpanExporter()))


def _provider(processor: SpanProcessor) -> TracerProvider:
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider

    # what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say wins over our name
    resource = Resource.create({"service.name": SERVICE_NAME}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider
