"""The Kubernetes manifests: valid for the API, and true of the service that they run. No cluster is needed."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.observability.metrics import Metrics
from service.settings import Settings, misspelt

from .kustomized import Manifest, containers, render, rendered, yaml

ROOT = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
RENDERED = {
    "base": render(ROOT / "base"),
    "cpu": render(ROOT / "overlays" / "cpu"),
    "gpu": render(ROOT / "overlays" / "gpu"),
}
CUSTOM = {"ServiceMonitor"}
"""Kinds of operators, which the API's schemas do not know."""
VERSIONS = ("1.30", "1.37")


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name)]
    return found


def pods(manifests: list[Manifest]) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in ("Deployment", "StatefulSet")]


def environment(manifests: list[Manifest], workload: Manifest) -> dict[str, str]:
    (container,) = containers(workload)
    shared = one(manifests, "ConfigMap", container["envFrom"][0]["configMapRef"]["name"])["data"]
    return {**shared, **{entry["name"]: entry["value"] for entry in container["env"]}}


@pytest.mark.parametrize(("name", "version"), list(product(RENDERED, VERSIONS)))
def test_every_manifest_is_valid_for_the_api(name: str, version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed").validate
    for manifest in RENDERED[name]:
        if manifest["kind"] not in CUSTOM:
            validate(manifest, version, strict=True)


def test_a_misspelt_key_is_found() -> None:
    """The check before can fail."""
    module = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    wrong = one(render(ROOT / "base"), "Deployment", "tracegrad-replica")
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(module.ValidationError):
        module.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("name", RENDERED)
def test_settings_are_settings_and_their_values_are_allowed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for workload in pods(RENDERED[name]):
        found = environment(RENDERED[name], workload)
        assert not misspelt(found)
        with monkeypatch.context() as own:
            for variable, value in found.items():
                own.setenv(variable, value)
            settings = Settings()
        spec = workload["spec"]["template"]["spec"]
        stop = containers(workload)[0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        grace = spec["terminationGracePeriodSeconds"]
        assert grace > stop + settings.drain_delay_s + settings.request_timeout_s, "a stop cuts no request off"
        assert settings.max_connections_per_address == 0, "all callers have the proxy's address"
    jobs = environment(RENDERED[name], one(RENDERED[name], "StatefulSet", "tracegrad-jobs"))
    replica = environment(RENDERED[name], one(RENDERED[name], "Deployment", "tracegrad-replica"))
    assert (replica["TRACEGRAD_JOBS"], jobs["TRACEGRAD_JOBS"]) == ("off", "process")


def test_probes_ports_and_paths_are_the_services_own() -> None:
    paths = set(create_app(Settings()).openapi()["paths"]) | {"/", "/docs", "/openapi.json"}
    for workload in pods(RENDERED["base"]):
        (container,) = containers(workload)
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["path"] in paths
            assert container[probe]["httpGet"]["port"] == container["ports"][0]["name"]
        assert container["ports"][0]["containerPort"] == Settings.model_fields["port"].default
    rules = one(RENDERED["base"], "Ingress", "tracegrad")["spec"]["rules"][0]["http"]["paths"]

    def led_to(path: str) -> str | None:
        fitting = [
            rule
            for rule in rules
            if path == rule["path"] or (rule["pathType"] == "Prefix" and path.startswith(rule["path"] + "/"))
        ]
        if not fitting:
            return None
        longest = max(fitting, key=lambda rule: len(rule["path"]))
        return str(longest["backend"]["service"]["name"])

    for path in paths:
        expected = "tracegrad-jobs" if path.startswith("/v1/jobs") else None if path == "/metrics" else "tracegrad"
        assert led_to(path) == expected, path
    for rule in rules:
        assert any(path == rule["path"] or path.startswith(rule["path"].rstrip("/") + "/") for path in paths), rule[
            "path"
        ]


def test_services_policies_and_the_autoscaler_select_what_there_is() -> None:
    manifests = RENDERED["gpu"]
    labels = {
        workload["metadata"]["name"]: workload["spec"]["template"]["metadata"]["labels"] for workload in pods(manifests)
    }
    for service, workload in (("tracegrad", "tracegrad-replica"), ("tracegrad-jobs", "tracegrad-jobs")):
        spec = one(manifests, "Service", service)["spec"]
        chosen = [name for name, own in labels.items() if spec["selector"].items() <= own.items()]
        assert chosen == [workload]
    budget = one(manifests, "PodDisruptionBudget", "tracegrad-replica")["spec"]["selector"]["matchLabels"]
    assert budget.items() <= labels["tracegrad-replica"].items()
    (expression,) = one(manifests, "NetworkPolicy", "tracegrad")["spec"]["podSelector"]["matchExpressions"]
    assert all(own[expression["key"]] in expression["values"] for own in labels.values())
    target = one(manifests, "HorizontalPodAutoscaler", "tracegrad-replica")["spec"]["scaleTargetRef"]
    assert one(manifests, target["kind"], target["name"])["apiVersion"] == target["apiVersion"]
    assert one(manifests, "StatefulSet", "tracegrad-jobs")["spec"]["replicas"] == 1


def test_what_is_scraped_and_scaled_by_is_exported() -> None:
    page, _ = Metrics().render()
    names = {line.split()[2] for line in page.decode().splitlines() if line.startswith("# HELP")}
    scaler = one(RENDERED["gpu"], "HorizontalPodAutoscaler", "tracegrad-replica")["spec"]["metrics"]
    wanted = [entry["pods"]["metric"]["name"] for entry in scaler if entry["type"] == "Pods"]
    assert wanted == ["tracegrad_queue_depth"]
    assert set(wanted) <= names
    adapter = yaml.safe_load((ROOT / "components" / "prometheus" / "adapter-rule.yaml").read_text())
    (rule,) = adapter["rules"]["custom"]
    assert rule["name"] == {"matches": wanted[0], "as": wanted[0]}
    assert rule["seriesQuery"].startswith(wanted[0] + "{")
    monitor = one(RENDERED["gpu"], "ServiceMonitor", "tracegrad")
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["path"] in create_app(Settings()).openapi()["paths"]
    for name in ("tracegrad", "tracegrad-jobs"):
        service = one(RENDERED["gpu"], "Service", name)
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]


@pytest.mark.parametrize("name", RENDERED)
def test_everything_runs_locked_down(name: str) -> None:
    for workload in pods(RENDERED[name]):
        spec: dict[str, Any] = workload["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False, "TRACEGRAD_PORT=tcp://... would be a setting"
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert {spec["securityContext"][key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {10001}
        (container,) = containers(workload)
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
        volumes = {volume["name"] for volume in spec["volumes"]} | {
            claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])
        }
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert one(RENDERED[name], "Namespace", "tracegrad")["metadata"]["labels"] == {
        "pod-security.kubernetes.io/enforce": "restricted",
        "app.kubernetes.io/name": "tracegrad",
    }


def test_keys_are_a_component() -> None:
    manifests = render(ROOT / "base")
    with_keys = rendered(ROOT / "components" / "keys", manifests)
    for workload in pods(with_keys):
        found = environment(with_keys, workload)
        mounts = {mount["name"]: mount["mountPath"] for mount in containers(workload)[0]["volumeMounts"]}
        assert found["TRACEGRAD_API_KEYS_FILE"].startswith(mounts["keys"] + "/")
        assert not misspelt(found)


def test_the_gpu_overlay_asks_for_one_gpu_and_uses_it() -> None:
    replica = one(RENDERED["gpu"], "Deployment", "tracegrad-replica")
    (container,) = containers(replica)
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert environment(RENDERED["gpu"], replica)["TRACEGRAD_DEVICE"] == "cuda"
    assert container["image"].endswith(":gpu")
    jobs = one(RENDERED["gpu"], "StatefulSet", "tracegrad-jobs")
    assert environment(RENDERED["gpu"], jobs)["TRACEGRAD_DEVICE"] == "cpu"
