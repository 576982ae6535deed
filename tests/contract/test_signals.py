"""How ``python -m service`` ends: orderly on SIGTERM and SIGHUP at any time, and by itself when it hangs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]


def started(checkpoints: Path, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"PORT": str(port), "CHECKPOINTS": str(checkpoints), "JOBS_FOLDER": str(folder), "DEVICE": "cpu"}
    environment = {**os.environ, **{f"TRACEGRAD_{name}": value for name, value in settings.items()}}
    process = subprocess.Popen([sys.executable, "-m", "service"], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    return process, f"http://127.0.0.1:{port}"


def test_hanging_up_ends_it_as_a_request_to_stop_does(checkpoints, tmp_path):
    process, url = started(checkpoints, tmp_path)
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end and process.poll() is None:
            try:
                if httpx.get(url + "/health/ready", trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 0
    finally:
        process.kill()


def test_a_request_to_stop_while_it_starts_is_no_failure(checkpoints, tmp_path):
    process, _ = started(checkpoints, tmp_path)
    try:
        status = f"/proc/{process.pid}/status"
        caught, end = 0, time.monotonic() + 30
        while not caught & (1 << (signal.SIGTERM - 1)) and time.monotonic() < end:  # as soon as Python runs our code
            line = next(line for line in Path(status).read_text().splitlines() if line.startswith("SigCgt"))
            caught = int(line.split()[1], 16)
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()


def test_a_process_that_hangs_ends():
    """The thread that holds Python's lock sleeps, as after a panic inside a library."""
    code = (
        "import asyncio, ctypes\n"
        "from service.server import end_if_hung\n"
        "async def main():\n"
        "    task = asyncio.create_task(end_if_hung(1.0))\n"
        "    await asyncio.sleep(2.5)\n"  # as long as the loop runs, so does the process
        "    print('alive', flush=True)\n"
        "    ctypes.PyDLL(None).sleep(60)\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=50, check=False)
    assert (ended.returncode, ended.stdout) == (1, b"alive\n")
    assert b"line 7 in main" in ended.stderr
