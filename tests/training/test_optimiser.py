"""Muon: PyTorch's own for plain matrices is the oracle; stacks are treated matrix by matrix."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.fit.config import OptimiserConfig
from training.fit.optimiser import Muon, iteration_dtype, make_optimisers, orthogonal

BFLOAT16_TOLERANCE = 2e-2
"""PyTorch's iterates in bfloat16, ours perhaps not; and which product is rounded first differs."""


@pytest.fixture(autouse=True, params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every law holds with the iteration of a CPU that multiplies bfloat16 and with that of one that does not."""
    monkeypatch.setattr("training.fit.optimiser.iteration_dtype", lambda device: request.param)


def test_the_iteration_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False)
    for has_units, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda has_units=has_units: has_units)
        iteration_dtype.cache_clear()
        assert iteration_dtype("cpu") == expected
        assert iteration_dtype("cuda") == torch.bfloat16
    iteration_dtype.cache_clear()


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])
def test_same_steps_as_pytorchs(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    one = Muon([ours], 0.1, 0.05)
    other = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        gradient = torch.randn(shape)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        one.step()
        other.step()
    assert (ours.detach() - start).abs().max() > 0.05
    assert (ours.detach() - theirs.detach()).abs().max() < BFLOAT16_TOLERANCE


def test_singular_values_come_close_to_one() -> None:
    torch.manual_seed(1)
    values = torch.linalg.svdvals(orthogonal(torch.randn(3, 20, 30) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]))
    assert 0.5 < float(values.min()) <= float(values.max()) < 1.3


def test_a_stack_is_treated_matrix_by_matrix() -> None:
    torch.manual_seed(2)
    start, gradient = torch.randn(4, 7, 5), torch.randn(4, 7, 5)
    stack, single = nn.Parameter(start.clone()), [nn.Parameter(matrix.clone()) for matrix in start]
    other_shape = nn.Parameter(torch.randn(5, 7))  # transposed, it shares the iteration with the others
    stack.grad, other_shape.grad = gradient.clone(), torch.randn(5, 7)
    for parameter, part in zip(single, gradient, strict=True):
        parameter.grad = part.clone()
    Muon([stack, other_shape], 0.1, 0.0).step()
    for parameter in single:
        Muon([parameter], 0.1, 0.0).step()
    for made, expected in zip(stack.detach(), single, strict=True):
        assert (made - expected.detach()).abs().max() < BFLOAT16_TOLERANCE
        assert (made - start).abs().max() > 5 * BFLOAT16_TOLERANCE


def test_only_hidden_matrices_get_it() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Linear(4, 4)
            self.embedding = nn.Embedding(3, 4)
            self.stack = nn.Parameter(torch.zeros(2, 4, 4))

    network = Net()
    adam, muon = make_optimisers(network, OptimiserConfig(steps=1, kind="muon", muon_rate=3.0))
    assert {id(p) for p in muon.param_groups[0]["params"]} == {id(network.hidden.weight), id(network.stack)}
    assert muon.param_groups[0]["relative_rate"] == 3.0
    assert sum(len(group["params"]) for group in adam.param_groups) == 2
    assert len(make_optimisers(network, OptimiserConfig(steps=1))) == 1
