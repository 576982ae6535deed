"""What is installed: two distributions of one version, each with its own packages and nothing of the other's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICE, CLIENT = ROOT, ROOT / "tracegrad_client"
OWN_PACKAGES = {"model", "service", "training", "tracegrad_client"}


def project(folder: Path) -> dict[str, Any]:
    declared: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return declared


def wheel_files(folder: Path, out: Path) -> set[str]:
    """The files of the wheel that setuptools makes of a copy of ``folder``; needs no network."""
    source = out / "source"
    shutil.copytree(
        folder,
        source,
        ignore=lambda at, names: {
            name
            for name in names
            if name in {"__pycache__", "build"}
            or name.endswith(".egg-info")
            or (Path(at) == ROOT and (ROOT / name).is_dir() and name not in OWN_PACKAGES)
        },
    )
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, str(out)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = out.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def packages(files: set[str]) -> set[str]:
    return {name.split("/")[0] for name in files if ".dist-info/" not in name}


def modules_of(package: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py") if "build" not in path.parts}


def test_the_clients_wheel_has_the_client_alone_and_its_types(tmp_path: Path) -> None:
    files = wheel_files(CLIENT, tmp_path)
    assert packages(files) == {"tracegrad_client"}
    assert {name for name in files if name.endswith(".py")} == modules_of("tracegrad_client")
    assert "tracegrad_client/py.typed" in files
    assert any(name.endswith("licenses/LICENSE") for name in files)


def test_the_services_wheel_has_everything_but_the_client(tmp_path: Path) -> None:
    files = wheel_files(SERVICE, tmp_path)
    assert packages(files) == OWN_PACKAGES - {"tracegrad_client"}
    expected = set().union(*(modules_of(package) for package in packages(files)))
    assert {name for name in files if name.endswith(".py")} == expected
    kernels = {str(path.relative_to(ROOT)) for path in ROOT.glob("model/**/*.c")}
    assert len(kernels) > 1
    assert {"service/static/index.html", *kernels} <= files
    assert any(name.endswith("licenses/LICENSE") for name in files)


def test_the_client_needs_numpy_and_httpx_alone() -> None:
    needed = {re.split(r"[<>=~!\[ ]", line)[0] for line in project(CLIENT)["dependencies"]}
    assert needed == {"numpy", "httpx"}
    assert not any("tracegrad" in line for line in project(SERVICE)["dependencies"])
    assert (CLIENT / "LICENSE").read_text() == (SERVICE / "LICENSE").read_text()


def test_there_is_one_version() -> None:
    version = project(SERVICE)["version"]
    assert project(CLIENT)["version"] == version
    newest = re.search(r"^## (?:Unreleased \()?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == version
    assert json.loads((ROOT / "docs" / "openapi.json").read_text())["info"]["version"] == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("folder", [SERVICE, CLIENT], ids=["service", "client"])
def test_what_is_installed_is_this_version(folder: Path) -> None:
    declared = project(folder)
    assert metadata.version(declared["name"]) == declared["version"], "installed from older files: run `make setup`"


def test_releases_in_the_changelog_go_down_and_have_dates() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = headings[1:] if headings[0].startswith("Unreleased") else headings
    numbers = []
    for heading in released:
        found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+) \(\d{4}-\d\d-\d\d\)", heading)
        assert found, heading
        numbers.append(tuple(map(int, found.groups())))
    assert numbers == sorted(set(numbers), reverse=True)
