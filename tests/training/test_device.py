"""The device of a run: what may be asked for, float32 that is float32, and a step that stays where its data are.

Tensors on PyTorch's meta device have a shape and a place but no numbers. A tensor that was made on the CPU by mistake meets
them as it would meet a GPU's, with an error, and code that reads a number, for which a GPU would have to stop, fails.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from model.architectures.registry import ARCHITECTURES
from model.blocks.standardise import Standardisation
from model.network import HamiltonianNetwork
from model.network_config import NetworkConfig
from model.orbitals.space import OrbitalSpace
from model.preparation import INPUTS
from training.fit.config import OptimiserConfig
from training.fit.device import choose_device
from training.fit.loss import errors, predict, trace_error
from training.fit.optimiser import Muon, make_optimisers
from training.fit.resident import collate
from training.fit.samples import Sample
from training.fit.state import MovingAverage
from training.tables import ConfigError

NOWHERE = torch.device("meta")
BACKBONES = sorted(ARCHITECTURES.keys() - {"qhnet_published"})
"""The published QHNet sorts its pairs, which a device without numbers cannot."""


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


def step_on(device: torch.device, architecture: dict[str, Any], samples: list[Sample], basis: OrbitalSpace) -> None:
    """Forward, every term of the loss, backward, Muon and the average; nothing reads a number."""
    network = HamiltonianNetwork(NetworkConfig.from_mapping(architecture), basis).to(device)
    standardisation = Standardisation(basis, len(INPUTS)).to(device)
    batch = collate(samples, cutoff_angstrom=15.0, template=basis.template_size, device=device)
    optimisers = make_optimisers(network, OptimiserConfig(steps=1, kind="muon"))
    average = MovingAverage(network, 0.99)
    output, predicted = predict(network, standardisation, batch, with_trace=True)
    assert output.trace is not None
    found = errors(predicted, batch)
    terms = [getattr(found, field.name).mean() for field in dataclasses.fields(found)]
    terms.append(trace_error(network, standardisation, batch, output.trace))
    torch.stack(terms).sum().backward()
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
    move = Standardisation.to

    def forgetful(self: Standardisation, device: torch.device) -> Standardisation:
        table = self.target_mean
        moved = move(self, device)
        moved.target_mean = table
        return moved

    monkeypatch.setattr(Standardisation, "to", forgetful)
    with pytest.raises((RuntimeError, NotImplementedError), match=r"device|meta"):
        step_on(NOWHERE, ARCHITECTURES[backbone].tiny, tiny_samples, basis)
