"""The control of an ablation: as many parameters as with TraceGrad, in more channels."""

from __future__ import annotations

import pytest
import torch
from equal_parameters import widened

from model.architectures.deeph_e3.config import DeepHE3Config
from model.network import HamiltonianNetwork
from model.network_config import NetworkConfig
from model.orbitals.space import OrbitalSpace

SPACE = OrbitalSpace("test", {6: (0, 0, 1)})
SMALL = {"irreps_mid": "16x0e+8x1o+8x2e", "embedding_channels": 16, "blocks": 2, "hidden": 16}


def parameters(network: NetworkConfig) -> int:
    built = HamiltonianNetwork(network, SPACE, pair_cutoffs=torch.tensor([4.0], dtype=torch.float64))
    return sum(value.numel() for name, value in built.named_parameters() if "decoder" not in name)


def test_wider_by_as_much_as_tracegrad_has() -> None:
    tracegrad = {"mode": "both", "after": "every"}
    network = NetworkConfig.from_mapping({"backbone": "deeph_e3", "deeph_e3": SMALL, "tracegrad": tracegrad})
    target = parameters(network)
    wide = widened(network, target, parameters)
    assert wide.tracegrad.mode == "none"
    assert abs(parameters(wide) / target - 1) < 0.05
    own, before = wide.backbone_config, network.backbone_config
    assert isinstance(own, DeepHE3Config)
    assert isinstance(before, DeepHE3Config)
    assert own.irreps_mid != before.irreps_mid
    assert (own.blocks, own.hidden) == (before.blocks, before.hidden)


def test_a_target_that_no_width_reaches_is_refused() -> None:
    network = NetworkConfig.from_mapping({"backbone": "deeph_e3", "deeph_e3": SMALL, "tracegrad": {"mode": "both"}})
    with pytest.raises(ValueError, match="between one and two times"):
        widened(network, 10**8, parameters)
    with pytest.raises(ValueError, match="deeph_e3"):
        widened(NetworkConfig.from_mapping({"backbone": "qhnetv2"}), 10**6, parameters)
