"""What a killed process left is gone after the next start; what a living one has stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOLD = "from service.scratch import own_folder; print(own_folder(), flush=True); input()"
CLEAN = "from service.scratch import remove_leftovers; print(remove_leftovers())"


def holder(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    environment = {**os.environ, "TMPDIR": str(folder)}
    command = [sys.executable, "-c", HOLD]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def cleaned(folder: Path) -> int:
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", CLEAN], cwd=ROOT, env=environment, capture_output=True, check=True)
    return int(done.stdout)


def test_leftovers_of_the_dead_go_and_nothing_else_does(tmp_path: Path) -> None:
    (tmp_path / "tracegrad-notes").mkdir()  # somebody's own, without a lock
    (tmp_path / "tracegrad-link").symlink_to(ROOT, target_is_directory=True)
    killed, its_folder = holder(tmp_path)
    living, other_folder = holder(tmp_path)
    killed.kill()
    killed.wait()
    try:
        (its_folder / "parse").mkdir()
        assert cleaned(tmp_path) == 1
        assert not its_folder.exists()
        assert other_folder.exists()
    finally:
        living.communicate("\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tracegrad-link", "tracegrad-notes"]
