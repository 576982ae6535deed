"""State of a run on disk: everything that an exact resume needs, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from training.fit.state import MovingAverage, load_training_state, save_training_state, write_tensors


def make_state(seed: int) -> tuple[nn.Module, torch.optim.Optimizer, MovingAverage]:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    matrices, biases = ([p for p in module.parameters() if (p.ndim > 1) is matrix] for matrix in (True, False))
    optimiser = torch.optim.AdamW([{"params": matrices}, {"params": biases}], lr=0.1)
    return module, optimiser, MovingAverage(module, 0.9)


def advance(module: nn.Module, optimiser: torch.optim.Optimizer, average: MovingAverage, steps: range) -> None:
    for step in steps:
        optimiser.zero_grad()
        module(torch.randn(5, 3)).square().mean().backward()
        optimiser.step()
        average.update(module, step)


def test_state_holds_weights_moments_average_and_random_numbers(tmp_path: Path) -> None:
    """Parameter groups in another order than the parameters: every moment must come back to its own parameter."""
    module, optimiser, average = make_state(0)
    advance(module, optimiser, average, range(3))
    save_training_state(tmp_path, module, [optimiser], average, {"step": 3, "best": 0.5})
    advance(module, optimiser, average, range(3, 6))
    expected = [parameter.detach().clone() for parameter in module.parameters()]

    other, other_optimiser, other_average = make_state(1)
    progress = load_training_state(tmp_path, other, [other_optimiser], other_average)
    assert progress is not None
    assert (progress["step"], progress["best"]) == (3, 0.5)
    advance(other, other_optimiser, other_average, range(3, 6))
    for parameter, value in zip(other.parameters(), expected, strict=True):
        assert torch.equal(parameter, value)
    for name, value in average.values.items():
        assert torch.equal(other_average.values[name], value)


def test_parameters_that_never_had_a_gradient_can_be_resumed(tmp_path: Path) -> None:
    """As the trace head, when the loss has no trace term: the optimiser keeps nothing about it."""

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 1), nn.Linear(3, 1)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.used(values)
            return found

    module, other = Half(), Half()
    optimiser, other_optimiser = (torch.optim.AdamW(part.parameters(), lr=0.1) for part in (module, other))
    average, other_average = MovingAverage(module, 0.9), MovingAverage(other, 0.9)
    advance(module, optimiser, average, range(2))
    save_training_state(tmp_path, module, [optimiser], average, {"step": 2})
    load_training_state(tmp_path, other, [other_optimiser], other_average)
    torch.manual_seed(5)
    advance(module, optimiser, average, range(2, 4))
    torch.manual_seed(5)
    advance(other, other_optimiser, other_average, range(2, 4))
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_no_state_is_no_state(tmp_path: Path) -> None:
    module, optimiser, average = make_state(0)
    assert load_training_state(tmp_path, module, [optimiser], average) is None


def test_the_average_is_the_exponential_one(tmp_path: Path) -> None:
    module, _, average = make_state(0)
    expected = {name: value.detach().double() for name, value in module.named_parameters()}
    for step in range(40):
        with torch.no_grad():
            for value in module.parameters():
                value.add_(torch.randn(value.shape))
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in module.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * value.detach().double()
        average.update(module, step)
    average.copy_to(module)
    for name, value in module.named_parameters():
        assert float((value.detach() - expected[name]).abs().max()) < 1e-4


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.safetensors"
    write_tensors(path, {"x": torch.ones(2)})

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("training.fit.state.save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        write_tensors(path, {"x": torch.zeros(2)})
    assert torch.equal(load_file(path)["x"], torch.ones(2))
