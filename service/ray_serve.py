"""The service as a Ray Serve application, for clusters whose GPUs come and go: ``serve run service.ray_serve:app``.

Settings are the ``TRACEGRAD_*`` variables of the replicas' environment. Replicas take no jobs (``TRACEGRAD_JOBS=off`` unless
it is set): the instance that does stands outside, docs/scaling.md. Every replica hands its metrics to Ray's agent on its node
as ``ray_tracegrad_...`` with the number of the replica, since ``/metrics`` behind Ray answers for any one of them.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Final

from fastapi import FastAPI
from ray import serve
from ray.util.metrics import Gauge

from service.asgi import build
from service.observability.metrics import Metrics

EXPORT_EVERY_S: Final = 5.0
LABEL: Final = "replica"


def build_replica() -> FastAPI:
    """The application of one replica; jobs are off where nothing is said."""
    os.environ.setdefault("TRACEGRAD_JOBS", "off")
    return build()


@serve.deployment(
    num_replicas=2,
    max_ongoing_requests=64,  # the service has a bounded queue of its own, and says when it is full
    max_queued_requests=256,
    health_check_period_s=10.0,
    graceful_shutdown_timeout_s=90.0,  # longer than a request may take
)
@serve.ingress(build_replica)
class TraceGrad:
    """One replica."""

    def __init__(self) -> None:
        self._gauges: dict[str, Gauge] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._export_always, name="metrics", daemon=True)
        self._thread.start()

    @property
    def _services(self) -> Any:
        """None before the application has started."""
        try:
            return self.app.state.services  # type: ignore[attr-defined]  # of what serve.ingress makes
        except AttributeError:
            return None

    def check_health(self) -> None:
        """Ray asks now and then, and replaces a replica that raises.

        Raises:
            RuntimeError: a device failed for good.
        """
        services = self._services
        if services is not None and not all(model.backend.healthy for model in services.registry.models):
            raise RuntimeError("a device failed for good; this replica answers nothing more")

    def _export_always(self) -> None:
        replica = serve.get_replica_context().replica_id.unique_id
        while not self._ended.wait(EXPORT_EVERY_S):
            if self._services is not None:
                export(self._services.metrics, replica, self._gauges)


def export(metrics: Metrics, replica: str, gauges: dict[str, Gauge]) -> None:
    """Hand a registry's present values to Ray.

    Args:
        metrics: of one replica.
        replica: its number, the value of the label ``replica``.
        gauges: what has been handed over before, by name; added to.
    """
    for name, labels, value in samples(metrics):
        if name not in gauges:
            gauges[name] = Gauge(name, name, tag_keys=(LABEL, *sorted(labels)))
        gauges[name].set(value, tags={LABEL: replica, **labels})


def samples(metrics: Metrics) -> list[tuple[str, dict[str, str], float]]:
    """Name, labels and value of the service's own metrics; counters keep their ``_total``, histograms their ``_bucket``."""
    from prometheus_client.parser import text_string_to_metric_families

    page, _ = metrics.render()
    return [
        (sample.name, dict(sample.labels), float(sample.value))
        for family in text_string_to_metric_families(page.decode())
        if family.name.startswith("tracegrad_")
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]


app = TraceGrad.bind()  # type: ignore[attr-defined]  # it is a deployment, no class
"""What ``serve run`` deploys; ``TraceGrad.options(...)`` changes replicas, GPUs and autoscaling."""
