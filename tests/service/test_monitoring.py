"""What the shipped alert rules and the dashboard ask for exists in /metrics, and Prometheus' own tool takes all of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .metric_samples import every_metric, samples

MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "grafana" / "dashboards" / "tracegrad.json").read_text())
RULES: list[dict[str, Any]] = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool (Debian: prometheus) on this machine")


def expressions() -> dict[str, str]:
    """Every expression by the alert or panel that it is of."""
    found = {rule["alert"]: rule["expr"] for rule in RULES}
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


@pytest.mark.parametrize("name", expressions())
def test_every_series_that_is_asked_for_exists(name: str) -> None:
    known = samples(every_metric(), prefix="")
    names = {metric for metric, _ in known}
    expression = expressions()[name]
    asked = re.findall(r"\b((?:tracegrad|process|python)_\w+)(?:\{([^}]*)\})?", expression)
    assert asked
    for metric, matchers in asked:
        assert metric in names
        labels = {label for other, found in known if other == metric for label, _ in found}
        for label, operator, value in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', matchers):
            if label in ("instance", "job"):
                continue  # Prometheus' own
            assert label in labels, f"{metric} has no label {label}"
            if operator == "=":
                values = {dict(found).get(label) for other, found in known if other == metric}
                assert value in values, f"{metric} has no {label} {value}"
        grouped = {part.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for part in group.split(",")}
        of_all = {label for other, _ in asked for key, found in known if key == other for label, _ in found}
        assert grouped <= of_all | {"instance", "job"}


def test_the_dashboard_shows_every_metric_and_names_its_own_source() -> None:
    families = {metric for metric, _ in samples(every_metric())}
    base = {re.sub(r"_(bucket|count|sum)$", "", metric) for metric in families}
    text = " ".join(expressions().values())
    assert [metric for metric in sorted(base) if metric not in text] == []
    sources = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    asked = {target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel["targets"]}
    assert asked == {source["uid"] for source in sources}
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


def promtool(*arguments: str | Path) -> None:
    assert PROMTOOL is not None
    ended = subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@needs_promtool
def test_prometheus_takes_configuration_and_rules_and_the_rules_fire_where_they_should() -> None:
    promtool("check", "config", MONITORING / "prometheus.yml")
    promtool("test", "rules", MONITORING / "alerts_test.yml")


def test_every_rule_has_a_case_in_which_it_fires() -> None:
    cases = yaml.safe_load((MONITORING / "alerts_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in cases for case in test["alert_rule_test"] if case.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in RULES}


@needs_promtool
def test_prometheus_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel{number}", "expr": text.replace("$__rate_interval", "5m").replace("$instance", ".*")}
        for number, text in enumerate(expressions().values())
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yml")
