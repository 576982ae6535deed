"""A machine may stop a run at any moment, start it twice, or start it with another file: nothing is lost or mixed up."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.errors import CheckpointError
from training.__main__ import main
from training.fit import run as fit_module
from training.fit.config import ConfigError, RunConfig, read_run
from training.fit.interruption import StoppedError, StopSignals, locked
from training.fit.run import fit
from training.fit.state import saved_progress
from training.generate.run import Summary

from .conftest import write_run


@pytest.fixture
def config(tiny: Summary, tmp_path: Path) -> RunConfig:
    return read_run(write_run(tmp_path, tiny.file))


def signal_at(number: int, reading: int) -> Callable[[], float]:
    """A clock that sends this process a signal when it is read for the n-th time."""
    readings = 0

    def clock() -> float:
        nonlocal readings
        readings += 1
        if readings == reading:
            os.kill(os.getpid(), number)
        return 0.0

    return clock


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_saved_and_it_goes_on_to_the_bit(
    number: signal.Signals, config: RunConfig, trained: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    fit(config, clock=signal_at(number, 6))
    assert signal.getsignal(number) == before, "handlers are put back"
    progress = saved_progress(config.output)
    assert progress is not None
    assert 0 < progress["step"] < 12
    said = capsys.readouterr().out
    assert f"{number.name} at step {progress['step']} of 12; everything is saved" in said
    assert "the same command goes on" in said
    fit(config)
    one, other = (load_file(run.output / "state.safetensors") for run in (config, trained))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_signal_before_the_first_step_ends_the_command_with_code_0(
    tiny: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(fit_module, "load_or_fit_reference", stop)
    assert main(["fit", str(write_run(tmp_path, tiny.file))]) == 0
    assert "stopped by SIGTERM before the first step; the same command begins again" in capsys.readouterr().out
    assert not (tmp_path / "run" / "state.safetensors").exists()


def test_a_second_signal_ends_at_once() -> None:
    stops = StopSignals()
    with stops.caught(), stops.at_a_step():
        os.kill(os.getpid(), signal.SIGINT)
        assert stops.received == "SIGINT"
        with pytest.raises(StoppedError, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_folder_belongs_to_one_process(config: RunConfig) -> None:
    config.output.mkdir()
    with (
        locked(config.output),
        pytest.raises(ConfigError, match=rf"being trained in by another process \(process {os.getpid()} on"),
    ):
        fit(config)
    fit(config, until_step=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda c: replace(c, loss=replace(c.loss, guess=5.0)),
            r"\[loss\].guess was 2.0, is 5.0\. Put them back",
        ),
        (
            lambda c: replace(
                c, network=replace(c.network, backbone_config=replace(c.network.backbone_config, hidden=8))
            ),
            r"\[network\].qhnet.hidden was 16, is 8",
        ),
        (
            lambda c: replace(c, reference=replace(c.reference, n_exponents=5)),
            r"\[reference\].n_exponents was 6, is 5",
        ),
    ],
)
def test_a_run_goes_on_with_its_own_settings_only(
    change: Callable[[RunConfig], RunConfig], words: str, config: RunConfig
) -> None:
    fit(config, until_step=1)
    with pytest.raises(ConfigError, match=words):
        fit(change(config), until_step=2)
    slower = replace(config, optimiser=replace(config.optimiser, learning_rate=1e-4))
    fit(slower, until_step=2)
    progress = saved_progress(config.output)
    assert progress is not None
    assert progress["step"] == 2, "rates may change"


def test_a_start_that_is_not_there_is_named_before_any_work(config: RunConfig) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint folder 'nowhere'"):
        fit(replace(config, start_from=config.output / "nowhere"))
    assert not (config.output / "reference.safetensors").exists()


def test_a_misspelt_split_is_named_before_any_work(config: RunConfig) -> None:
    from training.data.sources import DatasetError

    for data in (replace(config.data, train=("trian",)), replace(config.data, validation=("trian",))):
        with pytest.raises(DatasetError, match="no split 'trian'; it has train, val"):
            fit(replace(config, data=data))
    assert not (config.output / "reference.safetensors").exists()
