"""Several processes train one run as one process would: the same curve, stopped and gone on with in any number of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from model.architectures.deeph_e3.norms import RunningNorm
from model.architectures.deeph_e3.slots import Slot
from tests.tolerances import SAME_CURVE
from training.fit.config import ConfigError, RunConfig, read_run
from training.fit.ranks import Part, Ranks, own_device, refuse_batch_statistics
from training.fit.run import fit
from training.fit.state import saved_progress
from training.generate.run import Summary

from .conftest import write_run

TIMEOUT_S = 120.0


def curve(config: RunConfig) -> list[dict[str, Any]]:
    lines = (config.output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def assert_same_curve(one: RunConfig, other: RunConfig) -> None:
    first, second = curve(one), curve(other)
    assert [line["step"] for line in first] == [line["step"] for line in second]
    for line, same in zip(first, second, strict=True):
        assert same == pytest.approx(line, rel=SAME_CURVE), f"step {line['step']}"


def torchrun(run_file: Path, *arguments: str) -> str:
    """Two processes on this machine; what they print."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "training", "fit", str(run_file), *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_two_processes_give_the_curve_of_one(trained: RunConfig, tiny: Summary, tmp_path: Path) -> None:
    """Batches of one to three structures of unlike sizes: a mean over processes would miss by percents."""
    run_file = write_run(tmp_path, tiny.file)
    printed = torchrun(run_file)
    config = read_run(run_file)
    assert_same_curve(trained, config)
    assert printed.count("samples") == 1, "one process speaks"
    assert "2 processes" in printed
    assert len(list((config.output / "tensorboard").iterdir())) == 1, "and one writes"


def test_a_streamed_run_goes_on_in_any_number_of_processes(tiny: Summary, tmp_path: Path) -> None:
    """Of streamed samples each process makes those that it takes."""
    for name in ("one", "two"):
        path = write_run(tmp_path / name, tiny.file)
        path.write_text(path.read_text().replace("[data]", "[data]\nstream = true"))
    one, two = (read_run(tmp_path / name / "tiny.toml") for name in ("one", "two"))
    fit(one)
    fit(two, until_step=2)
    torchrun(tmp_path / "two" / "tiny.toml", "--until-step", "7")
    fit(two)
    assert_same_curve(one, two)


def test_a_signal_to_one_process_stops_all_at_the_same_step(tiny: Summary, tmp_path: Path) -> None:
    """As a machine does that is taken away: its process alone is told."""
    run_file = write_run(tmp_path, tiny.file)
    run_file.write_text(run_file.read_text().replace("steps = 12", "steps = 100000"))
    config = read_run(run_file)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "training", "fit", str(run_file)],
            env=os.environ
            | {
                "RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "LOCAL_RANK": "0",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        begun = time.monotonic()
        while saved_progress(config.output) is None and time.monotonic() - begun < TIMEOUT_S:
            time.sleep(0.2)
        processes[1].send_signal(signal.SIGTERM)
        printed = [process.communicate(timeout=TIMEOUT_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0], printed
    progress = saved_progress(config.output)
    assert progress is not None
    assert f"SIGTERM at step {progress['step']} of 100000; everything is saved" in printed[0][0]
    assert printed[1][0] == ""


@dataclass(frozen=True)
class Sized:
    n_blocks: int


@pytest.mark.parametrize("n_processes", [1, 2, 3, 5])
def test_every_sample_of_a_batch_is_counted_once_and_the_parts_are_of_like_size(n_processes: int) -> None:
    sizes = [Sized(n) for n in (4, 81, 9, 16, 25, 36, 81, 1, 64, 49)]
    group = [9, 3, 1, 0, 6, 2, 8]
    shares = [Ranks(rank, n_processes).share(group, sizes) for rank in range(n_processes)]
    counted = [sample for share in shares for sample in share.samples]
    assert sorted(counted) == sorted(group)
    assert all([group[place] for place in share.places] == list(share.samples) for share in shares)
    loads = [sum(sizes[sample].n_blocks for sample in share.samples) for share in shares]
    assert max(loads) - min(loads) <= max(size.n_blocks for size in sizes)


def test_a_process_without_a_sample_counts_nothing() -> None:
    few = [Ranks(rank, 3).share([7, 4], [Sized(5)] * 8) for rank in range(3)]
    assert [share.counts for share in few] == [True, True, False]
    assert few[2].samples == (7,)


class Others(Ranks):
    """Two processes, of which this one is asked: sums come from a list of what the other says."""

    def __init__(self, said: Sequence[torch.Tensor]) -> None:
        super().__init__(0, 2)
        self._said = list(said)

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        return value + self._said.pop(0)


def test_parts_are_weighted_by_true_numbers() -> None:
    ranks = Others([torch.tensor([3.0, 90.0], dtype=torch.float64)])
    part = Part.of(ranks, ranks.share([0, 1, 2, 3], [Sized(1)] * 4), 1, 10)
    assert (part.of_structures, part.of_blocks) == (0.25, 0.1)
    assert float(part.structures(torch.tensor(2.0))) == 0.5
    assert float(part.blocks(torch.tensor(2.0))) == pytest.approx(0.2)


def test_a_gradient_that_no_process_has_stays_none() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.ones(2)
    Others([torch.tensor([1.0, 2, 3, 4, 0, 0, 1, 1, 0])]).sum_gradients(parameters)
    found = [None if p.grad is None else p.grad.tolist() for p in parameters]
    assert found == [[2.0, 3.0], [3.0, 4.0], None]


def test_one_gpu_by_its_number_is_refused_for_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "h",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert own_device("cpu") == "cpu"
    assert own_device("cuda") == "cuda:1"
    with pytest.raises(ConfigError, match="2 processes were started"):
        own_device("cuda:0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert own_device("cuda:0") == "cuda:0"


def test_norms_over_a_whole_batch_are_refused() -> None:
    network = torch.nn.Sequential(RunningNorm((Slot(2, 0, 1),)))
    refuse_batch_statistics(network, Ranks())
    with pytest.raises(ConfigError, match="statistics over a whole batch"):
        refuse_batch_statistics(network, Ranks(0, 2))
