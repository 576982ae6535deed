"""The published QHNet: its size, published products (e3nn is the oracle), two evaluations of one function, its laws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.architectures.interface import InputCoefficients
from model.architectures.qhnet_published import fast_path
from model.architectures.qhnet_published.config import QHNetPublishedConfig
from model.architectures.qhnet_published.fast_parts import frame_weights
from model.architectures.qhnet_published.lists import BlockPairs, UnorderedPairs
from model.architectures.qhnet_published.network import QHNetPublished
from model.architectures.qhnet_published.paths import SHIFTED_SOFTPLUS_SCALE
from model.architectures.qhnet_published.reference_path import reference_modules
from model.blocks.spaces import BlockSpace
from model.checkpoint import store
from model.errors import CheckpointError
from model.network import HamiltonianNetwork
from model.network_config import NetworkConfig
from model.nn.default_dtype import default_dtype
from model.nn.frames import WignerMatrices, bond_rotations, wigner_matrices
from model.pairs.graph import AtomGraph, build_graph
from model.structure import Structure
from model.tracegrad.config import TraceGradConfig
from tests.conftest import RELEASED
from tests.laws.systems import shaken

PUBLISHED_PARAMETERS = 20_415_673
"""Counted layer by layer from the published configuration (lmax 4, 128 channels, bottleneck 32, 5 layers, radial 16)."""
SAME_IN_FLOAT64 = 1e-12
SAME_IN_FLOAT32 = 1e-6
TEMPLATE = (0, 0, 0, 1, 1, 2)
SMALL = QHNetPublishedConfig(channels=6, bottleneck=4, hidden=8, convolution_hidden=5, radial_size=6)
NAMES = ("H2O", "CH3CH2OH", "HCN", "H2", "HCOOH")


def backbones(config: QHNetPublishedConfig, dtype: torch.dtype) -> tuple[QHNetPublished, QHNetPublished]:
    """The fast and the reference path of one set of random weights; no bias is zero.

    Undamped random weights make features grow from layer to layer, and their rounding with them.
    """
    torch.manual_seed(4)
    coefficients = BlockSpace.of(TEMPLATE).coefficients
    fast = QHNetPublished(replace(config, path="fast"), coefficients, 5).to(dtype)
    with torch.no_grad():
        for name, parameter in fast.named_parameters():
            parameter.mul_(0.7)
            if name.endswith("bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
    reference = QHNetPublished(replace(config, path="reference"), coefficients, 5).to(dtype)
    reference.load_state_dict(fast.state_dict())
    return fast, reference


def outputs(backbone: QHNetPublished, graph: AtomGraph) -> dict[str, Tensor]:
    """Everything that a backbone says: features after the last block and coefficients."""
    nothing = InputCoefficients(graph.edge_vectors[:0], graph.edge_vectors[:0])
    features, context = backbone.start(graph, nothing, graph.numbers)
    for index in range(backbone.n_blocks):
        features = backbone.block(index, graph, features, context)
    diagonal, pair = backbone.read_out(graph, features, context)
    return {
        "node": features.node,
        "diagonal features": features.diagonal[0],
        "pair features": features.pair[0],
        "diagonal": diagonal,
        "pair": pair,
    }


def batch(molecule: Callable[[str], Structure], dtype: torch.dtype, cutoff: float = 15.0) -> AtomGraph:
    return build_graph([shaken(name) for name in NAMES], cutoff_angstrom=cutoff, dtype=dtype)


def test_size_is_the_published_one() -> None:
    backbone = QHNetPublished(QHNetPublishedConfig(), BlockSpace.of(TEMPLATE).coefficients, 5)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == PUBLISHED_PARAMETERS


def test_weights_are_as_many_as_those_of_e3nn() -> None:
    fast, _ = backbones(SMALL, torch.float64)
    modules = reference_modules(SMALL, torch.float64, torch.device("cpu"))
    layers = fast.convolutions
    assert len(layers[0].paths) * SMALL.channels == modules.first_convolution.weight_numel
    assert len(layers[1].paths) * SMALL.channels == modules.convolution.weight_numel
    assert len(fast.pair_blocks[0].paths) * SMALL.channels == modules.pair_product.weight_numel
    assert fast.self_blocks[0].product.numel() == modules.self_product.weight_numel
    assert fast.self_blocks[0].linear.weight.numel() == modules.linear.weight_numel
    assert (len(layers[1].paths), len(fast.pair_blocks[0].paths), len(fast.pair_read_out.paths)) == (42, 65, 19)
    assert abs(modules.activation.cst - SHIFTED_SOFTPLUS_SCALE) < 1e-12


@pytest.mark.parametrize("lmax", [1, 2, 4])
def test_convolution_in_the_frame_is_the_product_with_harmonics(lmax: int) -> None:
    """Path weights through the frame's matrices give e3nn's 'uvu' TensorProduct, forth and, parity-flipped, back."""
    config = replace(SMALL, lmax=lmax, channels=3)
    modules = reference_modules(config, torch.float64, torch.device("cpu"))
    bonds = torch.cat([torch.randn(4, 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64) * -1.7])
    n_weights: Any = modules.convolution.weight_numel
    count, n_paths = len(bonds), n_weights // 3
    sources = torch.randn(2, count, (lmax + 1) ** 2, 3, dtype=torch.float64)
    weights = torch.randn(2, count, n_paths, 3, dtype=torch.float64)
    pairs = UnorderedPairs(torch.arange(count), torch.arange(count), bonds, torch.arange(count))
    frames = fast_path.Bonds.of(pairs, bonds, WignerMatrices(lmax)).wigner
    sizes = [2 * ang + 1 for ang in range(lmax + 1)]
    parity = torch.cat([torch.full((size,), (-1.0) ** ang) for ang, size in enumerate(sizes)])[:, None]
    sides = torch.stack([sources[0], sources[1] * parity], dim=1).flatten(0, 1).transpose(0, 1)
    matrices = frame_weights(lmax, torch.float64, bonds.device)
    counts = [matrix.shape[1] for matrix in matrices]
    in_frame = [
        list((matrix @ part.flatten(1)).view(len(matrix), count, -1).split([lmax + 1 - m for m in range(left + 1)]))
        for left, (matrix, part) in enumerate(
            zip(matrices, weights.permute(2, 1, 0, 3).contiguous().split(counts), strict=True)
        )
    ]
    messages = torch.cat(fast_path._convolve_in_frame(list(sides.contiguous().split(sizes)), frames, in_frame), dim=1)
    for direction, sign in enumerate((1.0, -1.0)):
        flat = modules.flat(sources[direction])
        harmonics = modules.spherical_harmonics(sign * bonds)
        expected = modules.unflat(modules.convolution(flat, harmonics, weights[direction].flatten(1)))
        ours = messages[..., 3 * direction : 3 * direction + 3]
        ours = ours if direction == 0 else ours * parity
        assert (ours - expected).abs().max() < SAME_IN_FLOAT64 * expected.abs().max()


@pytest.mark.parametrize("channels", [SMALL.channels, 64], ids=["torch alone", "own kernels, if compiled"])
@pytest.mark.parametrize("cutoff", [15.0, 2.2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, SAME_IN_FLOAT64), (torch.float32, SAME_IN_FLOAT32)])
def test_paths_agree(
    dtype: torch.dtype,
    tolerance: float,
    cutoff: float,
    channels: int,
    molecule: Callable[[str], Structure],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also with messages between few pairs only, and with pairs in several chunks."""
    monkeypatch.setattr(fast_path, "PAIRS_PER_CHUNK", 17)
    fast, reference = backbones(replace(SMALL, channels=channels), dtype)
    graph = batch(molecule, dtype, cutoff)
    with torch.inference_mode():
        ours, theirs = outputs(fast, graph), outputs(reference, graph)
    for name, expected in theirs.items():
        assert (ours[name] - expected).norm() < tolerance * expected.norm(), name


@pytest.mark.parametrize("path", [0, 1])
def test_a_lone_atom_has_a_block_and_no_pairs(path: int) -> None:
    backbone = backbones(SMALL, torch.float64)[path]
    graph = build_graph(
        [Structure(np.array([9]), np.zeros((1, 3)), charge=-1)], cutoff_angstrom=15.0, dtype=torch.float64
    )
    found = outputs(backbone, graph)
    assert torch.isfinite(found["diagonal"]).all()
    assert found["diagonal"].abs().max() > 0
    assert found["pair"].shape == (0, found["diagonal"].shape[1])


def test_gradients_agree(molecule: Callable[[str], Structure]) -> None:
    fast, reference = backbones(SMALL, torch.float64)
    graph = batch(molecule, torch.float64)
    for backbone in (fast, reference):
        found = outputs(backbone, graph)
        torch.manual_seed(1)
        losses = [(found[name] * torch.randn_like(found[name])).sum() for name in ("diagonal", "pair")]
        torch.stack(losses).sum().backward()
    others = dict(reference.named_parameters())
    for name, parameter in fast.named_parameters():
        assert (parameter.grad is None) == (others[name].grad is None) == ("idle" in name), name
        if parameter.grad is not None:
            expected = others[name].grad
            assert (parameter.grad - expected).norm() < 1e-10 * expected.norm(), name


def test_evaluation_path_is_no_part_of_the_weights() -> None:
    fast, reference = backbones(SMALL, torch.float32)
    assert fast.state_dict().keys() == reference.state_dict().keys()
    with pytest.raises(CheckpointError, match="Evaluation path 'quick'"):
        replace(SMALL, path="quick")


@pytest.mark.parametrize("mode", ["none", "both"])
def test_network_alternates_it_with_tracegrad(mode: str, molecule: Callable[[str], Structure]) -> None:
    """TraceGrad sees both directions of a pair; labels exist for the listed one. Mode "none" adds no parameters."""
    basis = store.load(RELEASED).card.space()
    graph = batch(molecule, torch.float64)
    nothing = InputCoefficients(graph.edge_vectors[:0], graph.edge_vectors[:0])
    found = []
    for path in ("fast", "reference"):
        tracegrad = TraceGradConfig(mode=mode, rank=5, hidden=8, n_scalars=4)
        mapping = NetworkConfig("qhnet_published", replace(SMALL, path=path), tracegrad).to_mapping()
        torch.manual_seed(2)
        with default_dtype(torch.float64):
            network = HamiltonianNetwork(NetworkConfig.from_mapping(mapping), basis)
        with torch.inference_mode():
            found.append(network(graph, nothing, with_trace=True))
    if mode == "none":
        assert all(name.startswith("backbone.") for name, _ in network.named_parameters())
        assert found[0].trace is None
    else:
        assert found[0].trace.shape == (graph.n_atoms + graph.n_pairs, len(TEMPLATE) ** 2)
        assert (found[0].trace - found[1].trace).norm() < 1e-10 * found[1].trace.norm()
    assert (found[0].pair - found[1].pair).norm() < 1e-10 * found[1].pair.norm()


def test_frames_are_only_a_way_to_evaluate() -> None:
    """Rows of the fast path's Wigner matrices are those of ``model.nn.frames`` in the order m = 0, -1, 1, ..."""
    bonds = torch.randn(3, 3, dtype=torch.float64)
    plain = wigner_matrices(bond_rotations(bonds), 2)[2]
    pairs = UnorderedPairs(torch.arange(3), torch.arange(3), bonds, torch.arange(3))
    assert torch.equal(fast_path.Bonds.of(pairs, bonds, WignerMatrices(2)).wigner[2], plain[:, [2, 1, 3, 0, 4]])


class _Blocks(torch.nn.Module):
    """Geometry and blocks of the fast path as a function of index lists: what a compiled package would hold."""

    def __init__(self, backbone: QHNetPublished) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, numbers: Tensor, low: Tensor, high: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        net = self.backbone
        pairs = UnorderedPairs(low, high, vectors, low)
        radial = net._radial_functions(vectors)
        bonds = fast_path.Bonds.of(pairs, radial, net.wigner)
        node = fast_path.first_convolution(net.embedding(numbers), net.convolutions[0], bonds)
        node = fast_path.convolution(node, net.convolutions[1], bonds)
        pair = fast_path.pair_block(node, None, net.pair_blocks[0], BlockPairs(pairs, low, low), radial, kernels=True)
        return torch.cat(fast_path.self_block(node, None, net.self_blocks[0])), pair


def test_fast_path_exports_with_dynamic_sizes(molecule: Callable[[str], Structure]) -> None:
    """Exported with one molecule, it serves another of a different size."""
    config = replace(SMALL, lmax=2, node_layers=2, pair_layers=1)
    blocks = _Blocks(QHNetPublished(config, BlockSpace.of((0, 1)).coefficients, 5)).eval()

    def arguments(name: str) -> tuple[Tensor, ...]:
        graph = build_graph([molecule(name)], cutoff_angstrom=15.0)
        pairs = UnorderedPairs.of(graph.pair_index, graph.pair_vectors, graph.n_atoms)
        return graph.numbers, pairs.low, pairs.high, pairs.vectors

    with torch.no_grad():
        expected = blocks(*arguments("CH3CH2OH"))
        atoms, pairs = torch.export.Dim("atoms", min=2, max=500), torch.export.Dim("pairs", min=2, max=100_000)
        sizes = {0: atoms}, {0: pairs}, {0: pairs}, {0: pairs}
        exported = torch.export.export(blocks, arguments("HCOOH"), dynamic_shapes=sizes).module()
        found = exported(*arguments("CH3CH2OH"))
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() < SAME_IN_FLOAT32 * theirs.norm()
