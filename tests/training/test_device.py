"""The device of a run: what may be asked for, float32 that is float32, and a step that stays where its data are.

Tensors on PyTorch's meta device have a shape and a place but no numbers. A tensor that was made on the CPU by mistake meets
them as it would meet a GPU's, with an error, and code that reads a number, for which a GPU would have to stop, fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from model.architectures.registry import ARCHITECTURES
from model.blocks.standardise import Standardisation
from model.hamiltonian_model import HamiltonianModel
from model.network_config import NetworkConfig
from model.orbitals.space import OrbitalSpace
from training.fit.config import LossConfig, OptimiserConfig
from training.fit.device import choose_device
from training.fit.losses.objective import Objective
from training.fit.optimiser import Muon, make_optimisers
from training.fit.samples import Sample, join
from training.fit.state import MovingAverage
from training.tables import ConfigError

NOWHERE = torch.device("meta")
BACKBONES = sorted(ARCHITECTURES.keys() - {"qhnet_published", "deeph_e3"})
"""The published QHNet sorts its pairs and DeepH-E3 selects those of unlike atoms, which a device without numbers cannot."""


def test_automatic_is_cuda_where_there_is_one() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "mps", "cuda:99"])
def test_a_device_that_is_not_here_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r'"cpu"'):
        choose_device(name)


def test_products_are_never_rounded_to_tf32() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert torch.backends.cuda.matmul.allow_tf32
        choose_device("cpu")
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)


def step_on(
    device: torch.device, architecture: Mapping[str, object], samples: list[Sample], basis: OrbitalSpace
) -> None:
    """Forward, every term of the loss, backward, Muon and the average; nothing reads a number."""
    model = HamiltonianModel(NetworkConfig.from_mapping(dict(architecture)), basis).to(device)
    network = model.network
    batch = join([sample.to(device) for sample in samples])
    optimisers = make_optimisers(network, OptimiserConfig(steps=1, kind="muon"))
    average = MovingAverage(network, 0.99)
    objective = Objective.of(model, LossConfig(mse=1.0, guess=1.0, spectral=1.0, trace=0.2))
    total, measures = objective.total(batch, step=1000)
    assert {"mae_uEh", "density", "levels_uEh", "trace"} <= set(measures)
    total.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    for optimiser in optimisers:
        if isinstance(optimiser, Muon):  # PyTorch's fused AdamW does not know this device
            optimiser.step()
    average.update(network, 1)
    for parameter in network.parameters():
        assert parameter.device == device
        assert parameter.grad is not None
        assert parameter.grad.device == device


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_step_stays_on_its_device(backbone: str, tiny_samples: list[Sample], basis: OrbitalSpace) -> None:
    step_on(NOWHERE, ARCHITECTURES[backbone].tiny, tiny_samples, basis)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_tensor_left_behind_is_found(
    backbone: str, tiny_samples: list[Sample], basis: OrbitalSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: one table that does not move with the module is enough."""
    move = Standardisation._apply

    def forgetful(self: Standardisation, function: Any, recurse: bool = True) -> Any:
        table = self.target_mean
        moved = move(self, function, recurse)
        moved.target_mean = table
        return moved

    monkeypatch.setattr(Standardisation, "_apply", forgetful)
    with pytest.raises((RuntimeError, NotImplementedError), match=r"device|meta"):
        step_on(NOWHERE, ARCHITECTURES[backbone].tiny, tiny_samples, basis)
