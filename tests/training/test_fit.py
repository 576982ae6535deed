"""A training run: it can be stopped and resumed to the bit, keeps its best weights and says how it goes."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from model.orbitals.space import OrbitalSpace
from model.preparation import PairRule
from training.data.sources import read_frames
from training.fit.batches import pack
from training.fit.config import OptimiserConfig, RunConfig, read_run
from training.fit.losses.objective import Objective, measured_terms
from training.fit.model import build_model, load_or_fit_reference, run_record
from training.fit.optimiser import learning_rate
from training.fit.run import fit
from training.fit.samples import Sample, join, make_samples
from training.generate.run import Summary

from .conftest import write_run


def metrics(config: RunConfig) -> list[dict[str, Any]]:
    lines = (config.output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def assert_same_tensors(one: Path, other: Path) -> None:
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("stops", [(5,), (1, 6, 7)])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(
    stops: tuple[int, ...], trained: RunConfig, tiny: Summary, tmp_path: Path
) -> None:
    config = read_run(write_run(tmp_path, tiny.file))
    for stop in (*stops, None):
        fit(config, until_step=stop)
    for name in ("state.safetensors", "best.safetensors", "reference.safetensors"):
        assert_same_tensors(config.output / name, trained.output / name)
    assert metrics(config) == metrics(trained)


def test_a_run_with_two_optimisers_resumes_to_the_bit(tiny: Summary, tmp_path: Path) -> None:
    """Muon keeps a momentum of its own."""
    states = []
    for name, stops in (("whole", (None,)), ("cut", (5, None))):
        config = read_run(write_run(tmp_path / name, tiny.file))
        config = replace(config, optimiser=replace(config.optimiser, kind="muon"))
        for stop in stops:
            fit(config, until_step=stop)
        states.append(config.output / "state.safetensors")
    assert_same_tensors(*states)


def test_a_run_killed_between_saves_repeats_the_lost_steps(trained: RunConfig, tiny: Summary, tmp_path: Path) -> None:
    config = read_run(write_run(tmp_path, tiny.file))
    fit(config, until_step=4)
    shutil.copy(config.output / "state.safetensors", tmp_path / "saved")
    fit(config, until_step=6)
    shutil.copy(tmp_path / "saved", config.output / "state.safetensors")  # as if step 6 had never been saved
    fit(config)
    assert_same_tensors(config.output / "state.safetensors", trained.output / "state.safetensors")


def seconds_that_pass_with_every_look() -> Callable[[], float]:
    """A clock that is one second further whenever it is read."""
    readings = itertools.count()
    return lambda: float(next(readings))


def saved_step(config: RunConfig) -> int:
    with safe_open(config.output / "state.safetensors", framework="pt") as file:
        return int(json.loads(file.metadata()["progress"])["step"])


def test_a_run_cut_twice_by_the_clock_is_the_uninterrupted_one_to_the_bit(
    trained: RunConfig, tiny: Summary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = read_run(write_run(tmp_path, tiny.file))
    steps = [0]
    for _ in range(2):
        fit(config, for_minutes=9 / 60, clock=seconds_that_pass_with_every_look())
        steps.append(saved_step(config))
        said = capsys.readouterr().out
        assert f"step {steps[-1]} of 12" in said, "where it stopped"
        assert "the same command goes on" in said
    assert steps == sorted(set(steps)), "every call went on"
    assert steps[-1] < 12, "the clock cut it twice"
    fit(config, for_minutes=60, clock=seconds_that_pass_with_every_look())
    assert "time is up" not in capsys.readouterr().out
    for name in ("state.safetensors", "best.safetensors", "reference.safetensors"):
        assert_same_tensors(config.output / name, trained.output / name)
    assert metrics(config) == metrics(trained)


def test_however_short_the_time_every_call_takes_a_step(tiny: Summary, tmp_path: Path) -> None:
    config = read_run(write_run(tmp_path, tiny.file))
    for step in (1, 2):
        fit(config, for_minutes=1e-9, clock=seconds_that_pass_with_every_look())
        assert saved_step(config) == step


class Miscompiled(nn.Module):
    """A network whose prediction is right and whose gradient is not."""

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def __getattr__(self, name: str) -> Any:
        return getattr(super().__getattr__("network"), name) if name not in ("network",) else super().__getattr__(name)

    def forward(self, *args: Any, **settings: Any) -> Any:
        output = self.network(*args, **settings)
        right = output.pair.detach()
        return replace(output, pair=right + self.factor * (output.pair - right))


@pytest.mark.parametrize("factor", [1.0, 1.2])
def test_a_compiled_gradient_that_is_wrong_is_refused(
    factor: float, tiny: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both start with a read-out of zeros, which hides what is below it."""
    monkeypatch.setattr(torch, "compile", lambda network, **_: Miscompiled(network, factor))
    config = replace(read_run(write_run(tmp_path, tiny.file)), compile=True)
    if factor == 1.0:
        fit(config, until_step=1)
        assert saved_step(config) == 1
    else:
        with pytest.raises(RuntimeError, match="compile = false"):
            fit(config)


def test_the_check_of_a_compiled_gradient_leaves_the_run_alone(
    trained: RunConfig, tiny: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    config = replace(read_run(write_run(tmp_path, tiny.file)), compile=True)
    fit(config)
    assert_same_tensors(config.output / "state.safetensors", trained.output / "state.safetensors")


def test_a_finished_run_is_left_alone(trained: RunConfig) -> None:
    before = (trained.output / "state.safetensors").read_bytes()
    fit(trained)
    assert (trained.output / "state.safetensors").read_bytes() == before


def test_metrics_are_written_from_the_start_to_the_end(trained: RunConfig) -> None:
    found = metrics(trained)
    assert [line["step"] for line in found] == [0, 4, 8, 12]
    for line in found:
        assert all(math.isfinite(value) for value in line.values())
        assert line["density"] <= line["density_max"] + 1e-12
        assert line["mae_uEh"] <= line["rmse_uEh"]
    assert any((trained.output / "tensorboard").iterdir())


def test_training_improves_on_the_reference(trained: RunConfig) -> None:
    """Step 0 predicts no correction, so its errors are those of H0."""
    first, *rest = metrics(trained)
    assert min(line["density_per_electron"] for line in rest) < first["density_per_electron"]
    assert min(line["mae_uEh"] for line in rest) < first["mae_uEh"]


def test_best_weights_are_those_of_the_lowest_density_error(
    trained: RunConfig, basis: OrbitalSpace, tmp_path: Path
) -> None:
    """The stored figures are recomputed from the stored tensors alone."""
    with safe_open(trained.output / "best.safetensors", framework="pt") as file:
        step, stored = int(file.metadata()["step"]), json.loads(file.metadata()["validation"])
    lowest = min(metrics(trained), key=lambda line: float(line["density_per_electron"]))
    assert (step, stored) == (lowest["step"], {key: lowest[key] for key in lowest if key != "step"})

    frames = list(read_frames(trained.data.file, trained.data.validation))
    reference = load_or_fit_reference(trained, basis, [])
    model = build_model(trained, basis, reference, PairRule())
    terms = measured_terms(molecular=True)
    tensors = load_file(trained.output / "best.safetensors")
    load_group(model.network, tensors, "network/")
    load_group(model.standardisation, tensors, "standardisation/")
    batch = join(make_samples(frames, model.preparer, terms, cache=None, processes=0))
    objective = Objective.of(model.eval(), trained.loss)
    with torch.no_grad():
        found = objective.measures(objective.errors(batch, model(batch.graph, batch.inputs).blocks), terms)
    for name, value in found.items():
        assert float(value.mean()) == pytest.approx(stored[name], rel=1e-4), name


def load_group(module: nn.Module, tensors: Mapping[str, torch.Tensor], prefix: str) -> None:
    module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})


def test_the_record_of_a_run_is_json_without_folders(trained: RunConfig) -> None:
    text = json.dumps(run_record(trained))
    assert str(trained.output.parent) not in text
    assert json.loads(text)["data"]["file"] == "focks.h5"


def test_packing_keeps_order_and_limit(tiny_samples: list[Sample]) -> None:
    order = [3, 0, 7, 5, 1, 2, 6, 4]
    groups = pack(order, tiny_samples, 20)
    assert [index for group in groups for index in group] == order
    costs = [sum(tiny_samples[index].n_blocks for index in group) for group in groups]
    assert all(cost <= 20 or len(group) == 1 for cost, group in zip(costs, groups, strict=True))
    assert all(cost + tiny_samples[after[0]].n_blocks > 20 for cost, after in zip(costs, groups[1:], strict=False))
    assert pack(order, tiny_samples, 1) == [[index] for index in order], "a sample over the limit stands alone"


def test_learning_rate_warms_up_and_ends_at_its_final_value() -> None:
    config = OptimiserConfig(steps=100, learning_rate=1e-2, final_learning_rate=1e-4, warmup_steps=10)
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[:10] == pytest.approx([1e-3 * (step + 1) for step in range(10)])
    assert max(rates) == pytest.approx(1e-2)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert rates[55] == pytest.approx((1e-2 + 1e-4) / 2), "half a cosine is half way down in its middle"
    assert rates[100] == pytest.approx(1e-4)
