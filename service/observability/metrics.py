"""What the service counts, for Prometheus: methods that say what happened, and a page to scrape.

Callers never see Prometheus. Each app has its own registry, so that several in one process do not share counts. Every
label has a closed set of values: a route is a template and never a path, a model is one that has been loaded, a reason is
a code of the error table. Whatever is in no set counts as ``other``, so no caller can make series without end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    exposition,
)
from prometheus_client.openmetrics import exposition as openmetrics

from service.errors import ERROR_TABLE
from service.schemas.jobs import Stage

if TYPE_CHECKING:
    from model.predictor import CrystalPrediction, Prediction

WarningKind = Literal["domain", "intruder", "sanity", "functional", "basis", "other"]
Outcome = Literal["ok", "warned", "failed"]

OTHER: Final = "other"
OPENMETRICS: Final = "application/openmetrics-text"

STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
WARNING_KINDS: Final[tuple[WarningKind, ...]] = get_args(WarningKind)
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_STRUCTURES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_COST: Final = (10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)


class Metrics:
    """The counts of one app. Every method may be called from any thread."""

    def __init__(self) -> None:
        # when each series began: twice the page, and nobody reads it
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = CollectorRegistry(auto_describe=True)
        self._registry = registry
        self._models: set[str] = set()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)

        def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(f"tracegrad_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
            return Gauge(f"tracegrad_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
            return Histogram(f"tracegrad_{name}", text, labels, buckets=buckets, registry=registry)

        self._requests = counter("requests", "Finished requests.", ("route", "method", "status"))
        self._request_seconds = histogram(
            "request_seconds", "From the arrival of a request to the last byte of its answer.", ("route",), _SECONDS
        )
        self._response_bytes = counter("response_bytes", "Bytes of response bodies.", ("route",))
        self._rejections = counter("rejections", "Answers with an error, by the code of the problem.", ("reason",))
        self._in_flight = gauge("in_flight", "Requests being answered, this scrape included.")
        self._queue_wait = histogram("queue_wait_seconds", "Wait of a structure for its batch.", ("model",), _SECONDS)
        self._batch_structures = histogram("batch_structures", "Structures in a forward pass.", ("model",), _STRUCTURES)
        self._batch_cost = histogram("batch_cost", "Blocks (atoms and pairs) in a forward pass.", ("model",), _COST)
        self._stage_seconds = histogram("stage_seconds", "Duration of a stage.", ("model", "stage"), _SECONDS)
        self._queue_depth = gauge("queue_depth", "Predictions that run or wait.", ("model",))
        self._predictions = counter("predictions", "Predicted structures, by outcome.", ("model", "outcome"))
        self._out_of_domain = counter("out_of_domain", "Predictions outside the tested domain.", ("model",))
        self._warnings = counter("warnings", "Warnings that predictions carried.", ("model", "kind"))
        self._memory_splits = counter("memory_splits", "Batches halved for want of memory.", ("model",))
        self._cache_hits = counter("cache_hits", "Answers taken from the cache.")
        self._cache_misses = counter("cache_misses", "Answers that the cache did not have.")
        self._loaded = Info("tracegrad_model_loaded", "The loaded models.", ("model",), registry=registry)
        self._ready = gauge("ready", "1 if the service takes structures, else 0.")
        for code in (*ERROR_TABLE, OTHER):
            self._rejections.labels(code)  # there from the start: the first rejection must be an increase

    def request_started(self) -> None:
        """A request has arrived; :meth:`request_finished` follows."""
        self._in_flight.inc()

    def request_finished(self, route: str, method: str, status: int, seconds: float, sent_bytes: int) -> None:
        """A request has its answer.

        Args:
            route: template of the route, or ``other``.
            method: one of HTTP's own, or ``other``.
            status: as sent.
            seconds: from its arrival to the last byte of the answer.
            sent_bytes: length of the answer's body.
        """
        self._in_flight.dec()
        self._requests.labels(route, method, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)
        self._response_bytes.labels(route).inc(sent_bytes)

    def rejection(self, code: str) -> None:
        """An answer was the problem of this code."""
        self._rejections.labels(code if code in ERROR_TABLE else OTHER).inc()

    def batch(self, model: str, structures: int, cost: int, wait_s: Sequence[float]) -> None:
        """A forward pass starts.

        Args:
            model: name of a loaded model.
            structures: in the batch.
            cost: atoms and pairs of the batch.
            wait_s: seconds in the queue, of each structure.
        """
        name = self._known(model)
        self._batch_structures.labels(name).observe(structures)
        self._batch_cost.labels(name).observe(cost)
        for seconds in wait_s:
            self._queue_wait.labels(name).observe(seconds)

    def memory_split(self, model: str) -> None:
        """A batch did not fit into memory and is halved."""
        self._memory_splits.labels(self._known(model)).inc()

    def stage(self, model: str, stage: Stage, seconds: float) -> None:
        """A stage of a prediction took so long."""
        self._stage_seconds.labels(self._known(model), stage if stage in STAGES else OTHER).observe(seconds)

    def prediction(self, model: str, in_domain: bool, warnings: Iterable[WarningKind] = ()) -> None:
        """A structure has been predicted; ``warnings`` as :func:`warning_kinds` finds them."""
        name, kinds = self._known(model), list(warnings)
        self._predictions.labels(name, "ok" if in_domain and not kinds else "warned").inc()
        if not in_domain:
            self._out_of_domain.labels(name).inc()
        for kind in kinds:
            self._warnings.labels(name, kind if kind in WARNING_KINDS else OTHER).inc()

    def prediction_failed(self, model: str) -> None:
        """A structure that a model had accepted has no prediction."""
        self._predictions.labels(self._known(model), "failed").inc()

    def cache(self, hit: bool) -> None:
        """The cache was asked."""
        (self._cache_hits if hit else self._cache_misses).inc()

    def model_loaded(self, model: str, version: str, sha256: str) -> None:
        """A model serves from now on, perhaps in place of another version of its name."""
        self._models.add(model)
        self._loaded.labels(model).info({"version": version, "sha256": sha256})
        for outcome in OUTCOMES:
            self._predictions.labels(model, outcome)
        for kind in WARNING_KINDS:
            self._warnings.labels(model, kind)
        self._out_of_domain.labels(model)
        self._memory_splits.labels(model)

    def model_unloaded(self, model: str) -> None:
        """A model serves no more; its counts stay."""
        self._loaded.remove(model)
        self._queue_depth.remove(model)

    def watch_queue(self, model: str, depth: Callable[[], int]) -> None:
        """Ask ``depth`` at each scrape; it must not block."""
        self._queue_depth.labels(self._known(model)).set_function(lambda: float(depth()))

    def watch_ready(self, ready: Callable[[], bool]) -> None:
        """Ask ``ready`` at each scrape; it must not block."""
        self._ready.set_function(lambda: float(ready()))

    def render(self, types: Collection[str] = ()) -> tuple[bytes, str]:
        """All counts and their content type: OpenMetrics if it is among the accepted types, else Prometheus text."""
        # Not the library's own choice: it takes over a version from the header, and fails where that is no version.
        if OPENMETRICS in types:
            page: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return page, openmetrics.CONTENT_TYPE_LATEST
        return exposition.generate_latest(self._registry), exposition.CONTENT_TYPE_PLAIN_0_0_4

    def _known(self, model: str) -> str:
        return model if model in self._models else OTHER


def warning_kinds(prediction: Prediction | CrystalPrediction, differences: Sequence[str] = ()) -> list[WarningKind]:
    """Kinds of the warnings that go out with a prediction.

    Args:
        prediction: the model's answer.
        differences: in what the model's level of theory differs from the caller's.
    """
    guess, checks = getattr(prediction, "guess", None), getattr(prediction, "checks", None)  # crystals have neither
    found: dict[WarningKind, bool] = {
        "domain": not prediction.in_domain,
        "intruder": guess is not None and guess.has_intruder,
        "sanity": checks is not None and not checks.ok,
        "functional": "xc" in differences,
        "basis": "basis" in differences,
    }
    return [kind for kind, present in found.items() if present]
