"""Parsl as the executor: a worker that is killed costs time, and no structure."""

from __future__ import annotations

import os
import time
from pathlib import Path
from threading import Thread

import pytest
from ase.io import write

from training.executors import opened, read_config
from training.parts import Part
from training.predict.run import predict
from training.predict.work import Job
from training.tables import ConfigError

from .conftest import displaced

pytest.importorskip("parsl", reason="Parsl is not installed (extra parsl)")
psutil = pytest.importorskip("psutil")

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "default"
N_STRUCTURES = 24


def workers(folder: Path) -> list[int]:
    """Worker processes of the pool that logs into ``folder``; the pool is no child of this process."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if "process_worker_pool" in line and str(folder) in line:
            found += [child.pid for child in process.children() if child.cpu_times().user > 1.0]
    return found


@pytest.mark.filterwarnings("ignore")
def test_nothing_is_lost_when_one_of_two_workers_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(CHECKPOINT.parents[1]))
    file = tmp_path / "many.xyz"
    write(file, [displaced("CH3CH2OH", seed) for seed in range(N_STRUCTURES)], format="extxyz")
    output = tmp_path / "out"
    job = Job(CHECKPOINT, output, ("hamiltonian",), "float32", 1000, 1000, False, "cpu")
    done_then: list[int] = []

    def kill_one_at_work() -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and not done_then:
            n_done = len(list((output / "chunks").glob("*.h5")))
            if n_done and (found := workers(tmp_path)):
                os.kill(found[0], 9)
                done_then.append(n_done)
            time.sleep(0.05)

    monkeypatch.setattr("training.predict.pieces.SCANNED_FROM", 1)
    killer = Thread(target=kill_one_at_work)
    killer.start()
    with opened("parsl", 2) as executor:
        done = predict(job, [file], chunk=1, part=Part(), executor=executor)
    killer.join()
    assert 0 < done_then[0] < N_STRUCTURES, "a worker was killed when there was work"
    assert (done.chunks, done.answered, done.failed) == (N_STRUCTURES, N_STRUCTURES, 0)


def test_a_file_without_a_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("x = 1\n")
    for name, words in (("empty.py", "defines no config"), ("nowhere.py", "is not a Python file")):
        with pytest.raises(ConfigError, match=words):
            read_config(tmp_path / name)
