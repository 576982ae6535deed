"""A real Prometheus scrapes the running service, loads the shipped rules, and answers every question of the dashboard."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from service.app import create_app

from .waiting import wait_until

MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
PANELS: list[dict[str, Any]] = json.loads((MONITORING / "grafana" / "dashboards" / "tracegrad.json").read_text())[
    "panels"
]
WATER = "3\n\nO 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n"
NOTHING_SO_FAR = {"Refusals by reason"}
"""Panels that are empty where nothing has gone wrong; one of a share shows zero then."""
PROMETHEUS = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus (Debian: prometheus) on this machine")


@pytest.fixture(scope="module")
def prometheus(settings, serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A Prometheus that has scraped the service, some predictions behind it, several times."""
    folder = tmp_path_factory.mktemp("prometheus")
    with serve(create_app(settings)) as client, socket.socket() as free:
        assert client.post("/v1/predict", content=WATER, headers={"Content-Type": "chemical/x-xyz"}).status_code == 200
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        shipped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
        shutil.copy(MONITORING / "alerts.yml", folder)
        target = f"{client.base_url.host}:{client.base_url.port}"
        # the names of containers are known to their network alone; all else is as shipped, but oftener
        scrape = [{"job_name": "tracegrad", "static_configs": [{"targets": [target]}]}]
        shipped |= {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "scrape_configs": scrape}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(shipped))
        assert PROMETHEUS is not None
        command = [
            PROMETHEUS,
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address={address}",
        ]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            with httpx.Client(base_url=f"http://{address}", trust_env=False) as http:
                wait_until(lambda: scraped(http) >= 3, 60)
                yield http
        finally:
            process.terminate()
            process.wait(30)


def scraped(http: httpx.Client) -> float:
    """How often the service has been scraped."""
    try:
        (found,) = asked(http, 'count_over_time(up{job="tracegrad"}[5m])') or [{"value": [0, 0]}]
    except httpx.TransportError:
        return 0
    return float(found["value"][1])


def asked(http: httpx.Client, expression: str) -> list[dict[str, Any]]:
    """The series that an expression has."""
    answer = http.get("/api/v1/query", params={"query": expression})
    if answer.status_code == 503:
        return []  # it starts
    assert answer.status_code == 200, answer.text
    result: list[dict[str, Any]] = answer.json()["data"]["result"]
    return result


def filled(expression: str) -> str:
    """An expression as Grafana sends it."""
    return expression.replace("$__rate_interval", "1m").replace("$instance", ".*")


def test_the_service_is_scraped_without_complaint(prometheus: httpx.Client) -> None:
    (target,) = prometheus.get("/api/v1/targets").json()["data"]["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert [each["value"][1] for each in asked(prometheus, "up")] == ["1"]


def test_the_rules_are_evaluated_and_none_fires_on_a_service_in_good_order(prometheus: httpx.Client) -> None:
    rules = [rule for group in prometheus.get("/api/v1/rules").json()["data"]["groups"] for rule in group["rules"]]
    shipped = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    assert {rule["name"] for rule in rules} == {rule["alert"] for rule in shipped}
    assert {rule["health"] for rule in rules} == {"ok"}
    assert {rule["name"]: rule["lastError"] for rule in rules if rule.get("lastError")} == {}
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


@pytest.mark.parametrize("title", [panel["title"] for panel in PANELS])
def test_every_panel_is_answered(prometheus: httpx.Client, title: str) -> None:
    (panel,) = [panel for panel in PANELS if panel["title"] == title]
    for target in panel["targets"]:
        asked(prometheus, filled(target["expr"]))


def test_every_panel_shows_what_the_service_has_done(prometheus: httpx.Client) -> None:
    shown = {
        panel["title"]: sum(len(asked(prometheus, filled(target["expr"]))) for target in panel["targets"])
        for panel in PANELS
    }
    assert {title for title, count in shown.items() if not count} == NOTHING_SO_FAR
