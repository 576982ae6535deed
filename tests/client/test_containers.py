"""What the container files promise, read from the files themselves: that needs no container engine."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from service.documents import environment_file
from service.settings import Settings

yaml = import_module("yaml")  # it ships no types

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = [
    line for line in re.sub(r"\\\n", " ", DOCKERFILE).splitlines() if line.strip() and not line.startswith("#")
]
SERVICES = ["cpu", "gpu", "replica", "jobs"]


def compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return services


PROFILES = {"cpu": "cpu", "gpu": "gpu", "replica": "scale", "jobs": "scale", "proxy": "scale"}
PROFILES |= {"prometheus": "monitoring", "grafana": "monitoring"}
KEPT = {"jobs:/jobs", "prometheus:/prometheus", "grafana:/var/lib/grafana"}


def test_every_service_belongs_to_a_profile() -> None:
    assert {name: service["profiles"] for name, service in compose().items()} == {
        name: [profile] for name, profile in PROFILES.items()
    }


@pytest.mark.parametrize("name", PROFILES)
def test_everything_runs_locked_down(name: str) -> None:
    service = compose()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] > 0
    assert re.fullmatch(r"(\$\{TRACEGRAD_MEMORY:-\d+g\}|\d+[mg])", service["mem_limit"])
    assert service["logging"]["options"] == {"max-size": "20m", "max-file": "5"}, "a log that ends somewhere"
    assert service["restart"].startswith("on-failure:"), "a mistake in the settings does not loop for ever"
    assert all(volume.endswith(":ro") or volume in KEPT for volume in service["volumes"])
    assert all((ROOT / volume.split(":")[0]).exists() for volume in service["volumes"] if volume.startswith("./"))


@pytest.mark.parametrize("name", SERVICES)
def test_settings_come_from_a_file_that_need_not_be_there(name: str) -> None:
    service = compose()[name]
    assert service["env_file"] == [{"path": "tracegrad.env", "required": False}]
    assert [entry.split(":")[0] for entry in service["tmpfs"]] == ["/tmp"]
    for variable in service["environment"]:
        assert variable.removeprefix("TRACEGRAD_").lower() in Settings.model_fields


def test_only_what_callers_reach_has_a_port_and_by_default_on_this_machine_alone() -> None:
    ports = {name: service["ports"] for name, service in compose().items() if "ports" in service}
    assert set(ports) == {"cpu", "gpu", "proxy", "prometheus", "grafana"}
    addresses = ("${TRACEGRAD_PUBLIC_ADDRESS:-127.0.0.1}:", "127.0.0.1:")
    assert all(port.startswith(addresses) for entry in ports.values() for port in entry)


def test_prometheus_asks_every_service_by_a_name_that_it_answers_to() -> None:
    jobs = yaml.safe_load((ROOT / "deploy/monitoring/prometheus.yml").read_text())["scrape_configs"]
    (pool, alone) = [job["dns_sd_configs"][0]["names"] for job in jobs]
    assert sorted([*pool, *alone]) == sorted(SERVICES)
    for name in SERVICES:
        allowed = compose()[name]["environment"].get("TRACEGRAD_ALLOWED_HOSTS")
        assert (allowed is None) == (name in pool), "those are called by their address"
        assert allowed is None or name in allowed.split(",")


def test_keys_are_a_secret_of_every_service() -> None:
    override = yaml.safe_load((ROOT / "deploy" / "compose.keys.yml").read_text())
    assert sorted(override["services"]) == sorted(SERVICES)
    for service in override["services"].values():
        (secret,) = service["secrets"]
        assert service["environment"] == {"TRACEGRAD_API_KEYS_FILE": f"/run/secrets/{secret}"}
        assert secret in override["secrets"]


def test_tls_is_an_addition_to_the_proxy_alone() -> None:
    override = yaml.safe_load((ROOT / "deploy" / "compose.tls.yml").read_text())
    (proxy,) = override["services"].values()
    assert set(override["services"]) == {"proxy"}
    inside = {volume.split(":")[1] for volume in proxy["volumes"]}
    assert {part for part in proxy["command"] if part.endswith(".cfg")} == inside
    assert f"/run/secrets/{proxy['secrets'][0]}" in (ROOT / "deploy" / "tls.cfg").read_text()


def test_one_instance_takes_the_jobs_and_replicas_take_none() -> None:
    services = compose()
    assert services["replica"]["environment"]["TRACEGRAD_JOBS"] == "off"
    assert services["jobs"]["environment"]["TRACEGRAD_JOBS"] == "process"
    assert services["replica"]["volumes"] == ["./checkpoints:/checkpoints:ro"]
    assert "jobs:/jobs" in services["jobs"]["volumes"]


def test_the_proxy_leads_jobs_to_the_instance_that_takes_them_and_tries_again() -> None:
    text = (ROOT / "deploy" / "haproxy.cfg").read_text()
    assert re.search(r"acl jobs path_beg /v1/jobs\b", text)
    assert re.search(r"server-template replica \d+ replica:8000 check", text)
    (retried,) = re.findall(r"retry-on (.*)", text)
    assert "conn-failure" in retried
    assert "empty-response" in retried
    (buffer,) = re.findall(r"tune.bufsize (\d+)", text)
    assert int(buffer) > Settings.model_fields["max_file_bytes"].default, "a request is only sent again if it fits"
    (seconds,) = re.findall(r"timeout server (\d+)s", text)
    assert int(seconds) > Settings.model_fields["request_timeout_s"].default


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="no haproxy on this machine")
def test_haproxy_takes_its_configuration() -> None:
    checked = subprocess.run(
        ["haproxy", "-c", "-f", str(ROOT / "deploy" / "haproxy.cfg")], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_the_example_of_settings_is_that_of_the_code() -> None:
    text = (ROOT / "tracegrad.env.example").read_text()
    assert text == environment_file(), "python -m service.documents writes it"
    named = [name.lower() for name in re.findall(r"^#TRACEGRAD_(\w+)=", text, re.MULTILINE)]
    assert sorted(named) == sorted(Settings.model_fields)


def test_only_the_gpu_profile_asks_for_a_gpu() -> None:
    services = compose()
    assert [name for name, service in services.items() if "deploy" in service] == ["gpu"]
    (device,) = services["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert services["cpu"]["environment"]["TRACEGRAD_DEVICE"] == "cpu"
    assert services["gpu"]["environment"]["TRACEGRAD_DEVICE"] == "cuda"


def test_the_cpu_image_takes_the_cpu_build_of_torch_unless_told_otherwise() -> None:
    (default,) = re.findall(r"^ARG TORCH_INDEX=(\S+)", DOCKERFILE, re.MULTILINE)
    services = compose()
    assert default.endswith("/cpu")
    assert services["cpu"]["build"]["args"]["TORCH_INDEX"] == f"${{TORCH_INDEX:-{default}}}"
    assert "/cu" in services["gpu"]["build"]["args"]["TORCH_INDEX"]


def test_every_installation_of_a_dependency_follows_the_constraints() -> None:
    installs = [line for line in INSTRUCTIONS if "pip install" in line]
    dependencies = [line for line in installs if "/wheel" not in line and "setuptools" not in line]
    assert len(dependencies) == 3
    assert all("constraints.txt" in line or "--require-hashes" in line for line in dependencies)
    (product,) = [line for line in installs if "/wheel" in line]
    assert "--no-deps" in product
    pins = (ROOT / "constraints.txt").read_text()
    assert len(re.findall(r"^torch==\S+$", pins, re.MULTILINE)) == 1  # the Dockerfile reads the version from here


def test_a_change_of_code_leaves_the_layer_of_the_dependencies_as_it_is() -> None:
    start = next(index for index, line in enumerate(INSTRUCTIONS) if line.endswith("AS installed"))
    end = next(index for index, line in enumerate(INSTRUCTIONS) if index > start and line.startswith("FROM"))
    copied = {part for line in INSTRUCTIONS[start:end] if line.startswith("COPY") for part in shlex.split(line)[1:-1]}
    assert copied == {"constraints.txt", "deploy/pins-*.txt", "--from=requirements", "/requirements.txt"}


def test_the_image_runs_as_a_user_without_rights() -> None:
    users = [line.split()[1] for line in INSTRUCTIONS if line.startswith("USER ")]
    assert users == ["10001:10001"]
    assert INSTRUCTIONS.index("USER 10001:10001") > max(
        index for index, line in enumerate(INSTRUCTIONS) if line.startswith(("RUN", "COPY", "FROM"))
    )


def test_nothing_is_copied_that_the_build_context_leaves_out() -> None:
    lines = (ROOT / ".dockerignore").read_text().split()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    copies = [shlex.split(line)[1:-1] for line in INSTRUCTIONS if line.startswith("COPY ") and "--from" not in line]
    copied = {source.removeprefix("./") for sources in copies for source in sources}
    whole = {source if "*" in source or source in kept else source.split("/")[0] for source in copied}
    assert whole == kept
    assert all(any(ROOT.glob(source)) for source in copied)


def test_no_secret_is_in_the_image_or_the_compose_file() -> None:
    text = DOCKERFILE + (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"(?i)(api_?key|password|secret|token)\w*\s*[:=]\s*\S", text)


def test_the_health_check_is_python_that_compiles() -> None:
    (line,) = [line for line in INSTRUCTIONS if line.startswith("HEALTHCHECK")]
    command = yaml.safe_load(line[line.index("[") :])
    assert command[:2] == ["python", "-c"]
    assert "/health/ready" in command[2]
    compile(command[2], "healthcheck", "exec")


def test_nothing_of_the_image_comes_from_a_mount_of_another_stage() -> None:
    """Builders other than BuildKit do not see that it has changed, and would keep the old product."""
    assert not [line for line in INSTRUCTIONS if "--mount" in line]
