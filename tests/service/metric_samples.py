"""Samples of the service's metrics, for tests of what reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families as parse_text

from service.observability.metrics import STAGES, WARNING_KINDS, Metrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(metrics: Metrics, prefix: str = "tracegrad_") -> Samples:
    """Every sample by name and labels."""
    families = parse_text(metrics.render()[0].decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith(prefix)
    }


def every_metric() -> Metrics:
    """Metrics of which every series has a value."""
    metrics = Metrics()
    metrics.model_loaded('with "quotes"\nand a line', "1.0", "abc")
    metrics.model_loaded("tiny", "1.0", "abc")
    metrics.watch_queue("tiny", lambda: 3)
    metrics.watch_ready(lambda: True)
    metrics.request_started()
    metrics.request_finished("/v1/predict", "POST", 200, 0.2, 1000)
    metrics.batch("tiny", 3, 27, [0.25, 0.5, 1.0])
    for stage in STAGES:
        metrics.stage("tiny", stage, 0.1)
    metrics.prediction("tiny", False, WARNING_KINDS)
    metrics.prediction_failed("tiny")
    metrics.memory_split("tiny")
    for hit in (True, False):
        metrics.cache(hit)
    return metrics
