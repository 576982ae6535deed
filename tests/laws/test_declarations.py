"""What an architecture declares is true, and what it does not declare is refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model.architectures.interface import InputCoefficients
from model.architectures.registry import ARCHITECTURES
from model.blocks.block_set import Spin
from model.errors import CheckpointError
from model.hamiltonian_model import HamiltonianModel
from model.network import HamiltonianNetwork
from model.network_config import NetworkConfig
from model.pairs.graph import build_graph
from model.preparation import PairRule
from tests.laws.subjects import MESSAGES_ANGSTROM, SPACE, block_cutoffs
from tests.laws.systems import shaken

NAMES = sorted(ARCHITECTURES)


@pytest.mark.parametrize("name", NAMES)
def test_tiny_is_a_card_that_reads_back(name: str) -> None:
    config = NetworkConfig.from_mapping(ARCHITECTURES[name].tiny)
    assert config.backbone == name
    assert NetworkConfig.from_mapping(config.to_mapping()) == config
    assert config.shares_backbone(config)


@pytest.mark.parametrize("name", NAMES)
def test_messages_travel_along_the_list_that_is_declared(name: str) -> None:
    """Without edges a network of messages along pairs says the same, and one of messages along edges does not."""
    config = NetworkConfig.from_mapping(ARCHITECTURES[name].tiny)
    torch.manual_seed(5)
    network = HamiltonianNetwork(config, SPACE).double()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    found = []
    for cutoff in (MESSAGES_ANGSTROM, 0.0):
        graph = build_graph([shaken("HCOOH")], cutoff_angstrom=cutoff, dtype=torch.float64)
        shape = config.backbone_config.n_inputs, len(network.shell_pair)
        inputs = InputCoefficients(
            *(torch.ones(n, *shape, dtype=torch.float64) for n in (graph.n_atoms, graph.n_pairs))
        )
        with torch.inference_mode():
            found.append(network(graph, inputs).diagonal)
    assert torch.equal(*found) == (ARCHITECTURES[name].messages == "pairs")
    assert (config.edge_cutoff_angstrom == 0.0) == (ARCHITECTURES[name].messages == "pairs")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spin", ["restricted", "unrestricted", "spinor"])
@pytest.mark.parametrize("crystal", [False, True])
def test_what_is_not_declared_is_refused(name: str, spin: Spin, crystal: bool) -> None:
    declared = ARCHITECTURES[name]
    config = NetworkConfig.from_mapping(declared.tiny)
    if spin in declared.spins and (declared.periodic or not crystal):
        config.check(spin, periodic=crystal)
        return
    with pytest.raises(CheckpointError, match=name):
        config.check(spin, periodic=crystal)


def test_a_model_for_crystals_needs_an_architecture_for_crystals() -> None:
    config = NetworkConfig.from_mapping(ARCHITECTURES["qhnet_published"].tiny)
    with pytest.raises(CheckpointError, match="molecules"):
        HamiltonianModel(config, SPACE, inputs=(), source="none", pairs=PairRule(block_cutoffs()))


@pytest.mark.parametrize("name", [name for name in NAMES if ARCHITECTURES[name].reads_matrices])
def test_a_network_reads_as_many_matrices_as_are_declared(name: str) -> None:
    config = NetworkConfig.from_mapping(ARCHITECTURES[name].tiny)
    wrong = replace(config, backbone_config=replace(config.backbone_config, n_inputs=2))
    with pytest.raises(CheckpointError, match="reads 2 known matrices, but 3 are declared"):
        HamiltonianModel(wrong, SPACE)
