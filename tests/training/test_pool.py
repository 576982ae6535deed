"""Worker processes do not outlive the process that started them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = """
import time
from training.pool import parallel_map

def work(folder):
    import os
    open(f"{folder}/{os.getpid()}", "w").close()
    time.sleep(600)

if __name__ == "__main__":
    import sys
    list(parallel_map(work, [sys.argv[1]], total=1, processes=1, title="test", chunk=1))
"""


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_worker_ends_when_its_parent_is_killed(tmp_path):
    program, marks = tmp_path / "program.py", tmp_path / "marks"
    marks.mkdir()
    program.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    parent = subprocess.Popen([sys.executable, str(program), str(marks)], env=environment, stderr=subprocess.DEVNULL)
    wait_until(lambda: any(marks.iterdir()))
    worker = int(next(marks.iterdir()).name)
    assert runs(worker)
    parent.kill()
    parent.wait()
    wait_until(lambda: not runs(worker))
