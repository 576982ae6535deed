"""The hashed pins of the image have the names and versions of constraints.txt and pyproject.toml."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "deploy").glob("pins-*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_pin_has_a_hash_and_the_version_of_the_constraints(path: Path) -> None:
    versions = {
        re.sub(r"[-_.]+", "-", name).lower(): version
        for name, _, version in (line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    }
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 50
    for line in lines:
        found = re.fullmatch(r"([a-z0-9-]+)==(\S+) --hash=sha256:[0-9a-f]{64}", line)
        assert found is not None, line
        assert versions.get(found[1]) == found[2], line


def test_nothing_is_missing_on_the_platform_that_has_pins() -> None:
    version = "".join(map(str, sys.version_info[:2]))
    if not any(path.stem.startswith(f"pins-cp{version}-{sys.platform}") for path in FILES):
        pytest.skip("no pins for this platform")
    checked = subprocess.run(
        [sys.executable, "deploy/pins.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
