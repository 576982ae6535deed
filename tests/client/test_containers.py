"""What the container files promise, read from the files themselves: that needs no container engine."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

yaml = import_module("yaml")  # it ships no types

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = [
    line for line in re.sub(r"\\\n", " ", DOCKERFILE).splitlines() if line.strip() and not line.startswith("#")
]


def compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return services


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_both_profiles_run_locked_down(name: str) -> None:
    service = compose()[name]
    assert service["profiles"] == [name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [entry.split(":")[0] for entry in service["tmpfs"]] == ["/tmp"]
    assert service["pids_limit"] > 0
    assert re.fullmatch(r"\d+g", service["mem_limit"])
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["volumes"] == ["./checkpoints:/checkpoints:ro", "jobs:/jobs"], "nothing else of the host, read-only"


def test_only_the_gpu_profile_asks_for_a_gpu() -> None:
    services = compose()
    assert "deploy" not in services["cpu"]
    (device,) = services["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert services["cpu"]["environment"]["TRACEGRAD_DEVICE"] == "cpu"
    assert services["gpu"]["environment"]["TRACEGRAD_DEVICE"] == "cuda"


def test_the_cpu_image_takes_the_cpu_build_of_torch_unless_told_otherwise() -> None:
    (default,) = re.findall(r"^ARG TORCH_INDEX=(\S+)", DOCKERFILE, re.MULTILINE)
    services = compose()
    assert default.endswith("/cpu")
    assert services["cpu"]["build"]["args"]["TORCH_INDEX"] == default
    assert "/cu" in services["gpu"]["build"]["args"]["TORCH_INDEX"]


def test_every_installation_follows_the_constraints() -> None:
    installs = [line for line in INSTRUCTIONS if "pip install" in line]
    assert len(installs) == 2
    assert all("constraints.txt" in line for line in installs)
    pins = (ROOT / "constraints.txt").read_text()
    assert len(re.findall(r"^torch==\S+$", pins, re.MULTILINE)) == 1  # the Dockerfile reads the version from here


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
    assert copied == kept
    assert all((ROOT / source).exists() for source in copied)


def test_no_secret_is_in_the_image_or_the_compose_file() -> None:
    text = DOCKERFILE + (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"(?i)(api_?key|password|secret|token)\w*\s*[:=]\s*\S", text)


def test_the_health_check_is_python_that_compiles() -> None:
    (line,) = [line for line in INSTRUCTIONS if line.startswith("HEALTHCHECK")]
    command = yaml.safe_load(line[line.index("[") :])
    assert command[:2] == ["python", "-c"]
    assert "/health/ready" in command[2]
    compile(command[2], "healthcheck", "exec")
