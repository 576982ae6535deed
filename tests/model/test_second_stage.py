"""The second stage: corrects nothing when new, takes part when trained, and a checkpoint of two stages keeps its promise.

Its laws are in tests/laws, for every architecture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.architectures.interface import InputCoefficients
from model.architectures.registry import ARCHITECTURES
from model.blocks.spaces import BlockSpace
from model.checkpoint import store
from model.checkpoint.self_test import HAMILTONIAN_TOLERANCE_HARTREE, self_test
from model.errors import CheckpointError
from model.network import HamiltonianNetwork
from model.network_config import NetworkConfig
from model.nn.frames import bond_rotations, wigner_matrices
from model.nn.irreps import RaggedLayout
from model.nn.so2 import SectorLayout, rotate
from model.pairs.graph import build_graph
from model.predictor import Predictor
from model.second_stage.config import SecondStageConfig
from model.second_stage.parts import Frames, IrrepParts, SectorParts, Source, of_coefficients
from tests.conftest import make_tiny_checkpoint
from tests.laws.subjects import SPACE
from tests.laws.systems import shaken
from tests.tolerances import NOT_NOTHING, SAME_FLOAT64

SMALL: dict[str, Any] = {"hidden": 8, "blocks": 2, "heads": 2, "lmax": 2, "invariants": 3, "rank": 2, "radial_size": 6}
NAMES = sorted(ARCHITECTURES)


def with_stage(name: str, mode: str, **changes: Any) -> dict[str, Any]:
    """A tiny architecture with a small second stage."""
    return {**ARCHITECTURES[name].tiny, "second_stage": {"mode": mode, **SMALL, **changes}}


def network_of(mapping: Mapping[str, Any]) -> HamiltonianNetwork:
    torch.manual_seed(3)
    return HamiltonianNetwork(NetworkConfig.from_mapping(mapping), SPACE).double().eval()


def outputs(network: HamiltonianNetwork) -> Tensor:
    """All coefficients of a small molecule, unlike and like pairs among them."""
    graph = build_graph([shaken("HCOOH")], cutoff_angstrom=4.0, dtype=torch.float64)
    shape = network.config.backbone_config.n_inputs, len(network.shell_pair)
    inputs = InputCoefficients(*(torch.ones(n, *shape, dtype=torch.float64) for n in (graph.n_atoms, graph.n_pairs)))
    with torch.inference_mode():
        found = network(graph, inputs)
    return torch.cat([found.diagonal, found.pair])


@pytest.mark.parametrize("mode", ["exact", "faithful"])
@pytest.mark.parametrize("name", NAMES)
def test_a_new_one_corrects_nothing_and_a_trained_one_every_block(name: str, mode: str) -> None:
    two = network_of(with_stage(name, mode))
    one = network_of(ARCHITECTURES[name].tiny)
    for network in (one, two):
        with torch.no_grad():
            generator = torch.Generator().manual_seed(1)
            for key, parameter in network.named_parameters():
                if not parameter.any() and not key.startswith("second_stage"):
                    parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    one.load_state_dict({key: value for key, value in two.state_dict().items() if not key.startswith("second_stage")})
    before = outputs(one)
    assert torch.equal(before, outputs(two))
    with torch.no_grad():
        for key, parameter in two.named_parameters():
            if key.startswith("second_stage") and "read_out.linear" in key:
                parameter.normal_(std=0.1)
    change = (outputs(two) - before).abs().amax(dim=1)
    assert change.min() > NOT_NOTHING


def test_the_tables_read_back_and_say_nothing_of_what_is_not_there() -> None:
    with_one = NetworkConfig.from_mapping(with_stage("qhnetv2", "exact"))
    assert NetworkConfig.from_mapping(json.loads(json.dumps(with_one.to_mapping()))) == with_one
    assert "second_stage" not in NetworkConfig.from_mapping(ARCHITECTURES["qhnetv2"].tiny).to_mapping()
    assert (with_one.symmetry, NetworkConfig.from_mapping(with_stage("qhnetv2", "faithful")).symmetry) == (
        "O(3)",
        "approximate",
    )
    assert NetworkConfig.from_mapping(with_stage("qhnet_published", "exact")).symmetry == "SO(3)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "approximate"}, "not known"),
        ({"mode": "exact", "reads": ["output"]}, "cannot read output"),
        ({"mode": "exact", "reads": ["last", "first"]}, "cannot read last, first"),
        ({"mode": "exact", "hidden": 10, "heads": 4}, "cannot have 4 heads"),
        ({"mode": "exact", "rank": 0}, "1 or more"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        SecondStageConfig(**changes)


def test_one_block_has_no_middle() -> None:
    assert SecondStageConfig("exact", reads=("middle", "last")).read_blocks(3) == (1, 2)
    with pytest.raises(CheckpointError, match="middle of 1 block"):
        SecondStageConfig("exact", reads=("middle", "last")).read_blocks(1)


def test_features_in_frames_are_the_same_irreps() -> None:
    """Coefficients turned into frames as sectors and read as features there come back as they were."""
    space = BlockSpace.of(SPACE.template).coefficients
    generator = torch.Generator().manual_seed(2)
    vectors = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    values = torch.randn(7, space.slices[-1].stop, generator=generator, dtype=torch.float64)
    to_frame = wigner_matrices(bond_rotations(vectors), 4)
    frames = Frames(to_frame, [matrix.transpose(1, 2) for matrix in to_frame])
    irreps = of_coefficients(values, space)
    layout = SectorLayout(space.layout, space.multiplicity)
    sectors = layout.split(rotate(irreps, to_frame, space.layout))
    ragged = Source(RaggedLayout(space.layout, space.multiplicity), 0)
    for source, features in ((Source(layout, 0), sectors), (ragged, irreps)):
        for parts in (IrrepParts([source], space), SectorParts([source], space)):
            found = parts.coefficients(parts.gather([features], frames), frames)
            assert (found - values).abs().max() < SAME_FLOAT64


def test_a_frozen_first_stage_stays_as_it_is() -> None:
    network = network_of(with_stage("deeph_e3", "exact"))
    network.freeze_first_stage()
    network.train()
    assert network.second_stage is not None
    assert network.second_stage.training
    assert not any(module.training for module in network.get_submodule("backbone").modules())
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in network.named_parameters() if name.startswith("second_stage.")}
    with pytest.raises(CheckpointError, match="nothing would be trained"):
        network_of(ARCHITECTURES["deeph_e3"].tiny).freeze_first_stage()


@pytest.mark.parametrize("name", ["deeph_e3", "qhnetv2"])
def test_an_exact_checkpoint_of_two_stages_promises_what_the_first_does(name: str, tmp_path: Path) -> None:
    predictor = Predictor.load(make_tiny_checkpoint(tmp_path / "tiny", with_stage(name, "exact")))
    assert predictor.card.symmetry == "O(3)"
    assert predictor.card.architecture["second_stage"]["mode"] == "exact"
    self_test(predictor, predictor.checkpoint.golden)


def test_an_approximate_checkpoint_is_held_to_what_was_measured(tmp_path: Path) -> None:
    folder = make_tiny_checkpoint(tmp_path / "tiny", with_stage("qhnetv2", "faithful"))
    predictor = Predictor.load(folder)
    error = predictor.card.symmetry_error
    assert predictor.card.symmetry == "approximate"
    assert error is not None
    found = self_test(predictor, predictor.checkpoint.golden)
    turned = [item.hamiltonian for item in found if item.motion in ("rotation", "reflection")]
    assert HAMILTONIAN_TOLERANCE_HARTREE < max(turned) <= error.hamiltonian
    assert max(item.hamiltonian for item in found if item.motion in ("translation", "permutation")) < 1e-5
    card = json.loads((folder / store.CARD).read_text())
    for claimed, message in (
        ({"symmetry_error": {"hamiltonian": 0.1 * error.hamiltonian, "energy": error.energy}}, "not equivariant"),
        ({"symmetry": "O(3)", "symmetry_error": None}, "not equivariant"),
        ({"symmetry_error": None}, "symmetry_error is given if symmetry is 'approximate'"),
    ):
        store.save_json(folder / store.CARD, card | claimed)
        with pytest.raises(CheckpointError, match=message):
            self_test(Predictor.load(folder), predictor.checkpoint.golden)
