"""Pins with hashes: what the image installs beside torch, each archive by its SHA-256, for ``pip install --require-hashes``.

``python deploy/pins.py [--check]``, in the environment that ``make setup`` makes. The names are those of the service with
its extras ``tracing`` and ``pictures`` and whatever these need, the versions those of constraints.txt, the hashes pip's own
report of what it would install on this platform: run it on the platform of the image. torch is left out, since its archive
is another for each index (and with it the libraries of GPUs that only its CUDA build needs).
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parents[1]
EXTRAS: Final = ("tracing", "pictures")
LEFT_OUT: Final = frozenset({"torch"})
GPU_LIBRARIES: Final = ("nvidia-", "cuda-", "triton")


def pins_file() -> Path:
    """Of this platform."""
    version = "".join(platform.python_version_tuple()[:2])
    return ROOT / "deploy" / f"pins-cp{version}-{platform.system().lower()}-{platform.machine()}.txt"


def constraints() -> dict[str, str]:
    """Versions by name."""
    lines = (line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    return {canonicalize_name(name): version.strip() for name, _, version in lines}


def needed() -> list[str]:
    """Names of everything that the service and its extras need, sorted."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in EXTRAS for text in project["optional-dependencies"][extra])]
    seen: set[tuple[str, str]] = set()
    found: set[str] = set()
    waiting = [(Requirement(text), "") for text in texts]
    while waiting:
        requirement, asked_by = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": asked_by}):
            continue
        name = canonicalize_name(requirement.name)
        if name.startswith(GPU_LIBRARIES):
            continue
        found.add(name)
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += [(Requirement(text), extra) for text in distribution(name).requires or ()]
    return sorted(found - LEFT_OUT)


def hashes(pins: list[str]) -> dict[str, str]:
    """SHA-256 of the archive that pip would install, by name."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--report", "-", *pins]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {
        canonicalize_name(entry["metadata"]["name"]): entry["download_info"]["archive_info"]["hashes"]["sha256"]
        for entry in report["install"]
    }


def lines() -> Iterator[str]:
    """Of the file."""
    versions = constraints()
    names = needed()
    missing = [name for name in names if name not in versions]
    if missing:
        raise SystemExit(f"constraints.txt has no version of {', '.join(missing)}")
    found = hashes([f"{name}=={versions[name]}" for name in names])
    yield "# made by deploy/pins.py (make pins); torch comes first and by itself, from its own index"
    for name in names:
        yield f"{name}=={versions[name]} --hash=sha256:{found[name]}"


def main() -> int:
    """Write the file, or say whether it has the names and versions of today; the exit code."""
    path = pins_file()
    if "--check" not in sys.argv[1:]:
        path.write_text("\n".join(lines()) + "\n")
        return 0
    versions = constraints()
    wanted = [f"{name}=={versions.get(name)}" for name in needed()]
    written = [line.split()[0] for line in path.read_text().splitlines() if not line.startswith("#")]
    if wanted != written:
        print(f"{path.name} is not of today's constraints.txt and pyproject.toml; run make pins", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
