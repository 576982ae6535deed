"""``qhnet_published`` is the published function: its numbers, layer by layer, are those that the published code computed.

Random weights at a small width, none of them zero, so that every parameter takes part; three molecules of all elements.
The file's own README says how it was made. Rounding aside there is nothing between the two, on any evaluation path.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.architectures.interface import InputCoefficients
from model.architectures.qhnet_published.config import PATHS, QHNetPublishedConfig
from model.architectures.qhnet_published.network import QHNetPublished
from model.blocks.block_set import stack_blocks
from model.blocks.matrices import dense_matrix
from model.blocks.spaces import BlockSpace
from model.nn.radial import ExponentialBernstein
from model.orbitals.space import OrbitalSpace
from model.pairs.graph import AtomGraph, build_graph
from model.pairs.pair_list import PairList
from model.structure import Structure
from tests.conftest import shared_file
from tests.tolerances import SAME_FLOAT32, SAME_FLOAT64

Published = Mapping[str, NDArray[Any]]
MOLECULES = ("water", "methanol", "fluoroacetamide")
HEAVY = (0, 0, 0, 1, 1, 2)
SPACE = OrbitalSpace("def2-svp", {1: (0, 0, 1), 6: HEAVY, 7: HEAVY, 8: HEAVY, 9: HEAVY}, order="e3nn")
COEFFICIENTS = BlockSpace.of(SPACE.template).coefficients
ALPHA_AT_START = 0.5
"""Of the published radial functions: softplus of their parameter's first value, in 1/Å."""

CONVOLUTION = {
    "fc_node.layer0.weight": "radial.first",
    "fc_node.layer1.weight": "radial.second",
    "layer_l0.layer0.weight": "invariant.first",
    "layer_l0.layer1.weight": "invariant.second",
    "norm_gate.fc.": "gate.",
    "linear_node.": "linear.",
    "linear_node_pre.": "linear_invariant.",
    "linear_out.": "linear_out.",
}
SELF_BLOCK = {
    "linear_node_1.": "linear_left.",
    "linear_node_2.": "linear_right.",
    "linear_node_3.": "linear.",
    "tp.weight": "product",
    "norm_gate_1.fc.": "gate_left.",
    "norm_gate_2.fc.": "gate_right.",
    "norm_gate.fc.": "gate.",
}
PAIR_BLOCK = {
    "linear_node_pair_inner.": "linear_invariant.",
    "linear_node_pair_n.": "linear_node.",
    "linear_node_pair_2.": "idle.linear.",
    "linear_node_pair.": "linear.",
    "tp_node_pair_2.weight": "idle.product",
    "fc_node_pair.layer0.weight": "radial.first",
    "fc_node_pair.layer1.weight": "radial.second",
    "fc.": "invariant.",
    "norm_gate_pre.fc.": "gate_node.",
    "norm_gate.fc.": "gate.",
}
WHOLE = {
    "node_embedding.weight": "embedding.weight",
    "distance_expansion._alpha": "radial.raw_alpha",
    "output_ii.": "diagonal_read_out.linear.",
    "output_ij.": "pair_read_out.linear.",
    "expand_ii.hamiltonian.weights": "diagonal_read_out.idle",
    "expand_ij.hamiltonian.weights": "pair_read_out.idle",
    "fc_ii.hamiltonian.": "diagonal_read_out.weight.",
    "fc_ij.hamiltonian.": "pair_read_out.weight.",
    "fc_ii_bias.hamiltonian.": "diagonal_read_out.bias.",
    "fc_ij_bias.hamiltonian.": "pair_read_out.bias.",
}
LAYERS = {
    "e3_gnn_layer": ("convolutions", "conv.", CONVOLUTION),
    "e3_gnn_node_layer": ("self_blocks", "", SELF_BLOCK),
    "e3_gnn_node_pair_layer": ("pair_blocks", "", PAIR_BLOCK),
}
BUFFERS = {f"distance_expansion.{name}" for name in ("cutoff", "logc", "n", "v")}


@pytest.fixture(scope="module")
def published() -> Published:
    """The file."""
    with np.load(
        shared_file("data", "molecules", "published_network", "qhnet_published.npz"), allow_pickle=False
    ) as data:
        return {name: data[name] for name in data.files}


def our_name(name: str) -> str:
    """Our parameter of a published one."""
    head, _, rest = name.partition(".")
    if head not in LAYERS:
        return _mapped(name, WHOLE)
    index, _, rest = rest.partition(".")
    folder, prefix, table = LAYERS[head]
    ours = _mapped(rest.removeprefix(prefix), table)
    idle = folder == "convolutions" and index == "0" and ours.startswith(("gate.", "linear.", "linear_invariant."))
    return f"{folder}.{index}.{'idle.' if idle else ''}{ours}"


def _mapped(name: str, table: Mapping[str, str]) -> str:
    theirs, ours = next((theirs, ours) for theirs, ours in table.items() if name.startswith(theirs))
    rest = name.removeprefix(theirs)
    layer, _, kind = rest.partition(".")
    return ours + ({"0": "first.", "2": "last."}[layer] + kind if layer in ("0", "2") else rest)


def weights(published: Published) -> dict[str, Tensor]:
    """The published parameters under our names."""
    found = {name.removeprefix("state/"): value for name, value in published.items() if name.startswith("state/")}
    return {our_name(name): torch.from_numpy(value) for name, value in found.items() if name not in BUFFERS}


def network(published: Published, path: str, dtype: torch.dtype, node_layers: int = 0) -> QHNetPublished:
    """Our network with the published weights; with fewer message passing layers, and one pair layer, for what is between."""
    config = QHNetPublishedConfig(**json.loads(str(published["config"]))["product"], path=path)
    if node_layers:
        config = replace(config, node_layers=node_layers, pair_layers=1)
    made = QHNetPublished(config, COEFFICIENTS, len(SPACE.elements)).to(dtype)
    found, expected = weights(published), made.state_dict()
    if not node_layers:
        assert found.keys() == expected.keys()
    made.load_state_dict({name: found[name].reshape(value.shape) for name, value in expected.items()})
    return made.eval()


def structure_of(published: Published, molecule: str) -> Structure:
    return Structure(published[f"{molecule}/numbers"], published[f"{molecule}/positions_angstrom"])


@torch.inference_mode()
def computed(published: Published, molecule: str, path: str, dtype: torch.dtype) -> dict[str, NDArray[np.float64]]:
    """Ours, under the published names and in the published order; features as (item, component, channel)."""
    structure = structure_of(published, molecule)
    graph = build_graph([structure], cutoff_angstrom=15.0, dtype=dtype)
    inputs = InputCoefficients(graph.edge_vectors[:0], graph.edge_vectors[:0])
    found: dict[str, Tensor] = {}
    for layer in range(3):  # what a shorter network starts with is what the longer one has between its layers
        found[f"node{layer}"] = network(published, path, dtype, layer + 2).start(graph, inputs, graph.numbers)[0].node
    whole = network(published, path, dtype)
    features, context = whole.start(graph, inputs, graph.numbers)
    assert torch.equal(features.node, found["node2"])
    pairs = context.pairs.unordered
    item = {(int(i), int(j)): k for k, (i, j) in enumerate(zip(pairs.rows, pairs.columns, strict=True))}
    order = [item[i, j] for i, j in published[f"{molecule}/edge_index_full"].T.tolist()]
    for block in range(whole.n_blocks):
        features = whole.block(block, graph, features, context)
        found[f"node{3 + block}"] = features.node
        found[f"diagonal{block}"] = features.diagonal[0]
        found[f"pair{block}"] = features.pair[0][order]
    results = {name: value.double().numpy() for name, value in found.items()}
    diagonal, pair = whole.read_out(graph, features, context)
    return results | blocks_of(structure, graph, diagonal, pair, published[f"{molecule}/edge_index_full"])


def blocks_of(
    structure: Structure, graph: AtomGraph, diagonal: Tensor, pair: Tensor, index: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Template blocks of all ordered pairs, and the matrix in both orders."""
    on_site, listed = ((part.double().numpy() @ COEFFICIENTS.matrix.T).reshape(-1, 14, 14) for part in (diagonal, pair))
    by_pair = {(i, j): block for (i, j), block in zip(graph.pair_index.T.tolist(), listed, strict=True)}
    by_pair |= {(j, i): block.T for (i, j), block in by_pair.items() if (j, i) not in by_pair}
    by_pair |= {(i, i): block for i, block in enumerate(on_site)}
    pairs = PairList.complete(structure)
    rows = [np.array(SPACE.template_rows(int(number))) for number in structure.numbers]
    cut = [
        by_pair[i, j][np.ix_(rows[i], rows[j])]
        for i, j in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
    ]
    blocks = stack_blocks(SPACE, structure.numbers, pairs, cut)
    return {
        "diagonal_blocks": on_site,
        "off_diagonal_blocks": np.stack([by_pair[i, j] for i, j in index.T.tolist()]),
        "hamiltonian_e3nn_order": dense_matrix(blocks),
        "hamiltonian_pyscf_order": dense_matrix(blocks.in_order("pyscf")),
    }


def unflat(features: NDArray[np.float64], channels: int) -> NDArray[np.float64]:
    """e3nn's flat layout, (item, l: channel, m), -> (item, component, channel)."""
    parts, start = [], 0
    for ang in range(math.isqrt(features.shape[1] // channels)):
        size = (2 * ang + 1) * channels
        parts.append(features[:, start : start + size].reshape(len(features), channels, -1).transpose(0, 2, 1))
        start += size
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("molecule", MOLECULES)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, SAME_FLOAT64), (torch.float32, SAME_FLOAT32)])
def test_every_layer_is_the_published_one(
    molecule: str, path: str, dtype: torch.dtype, tolerance: float, published: Published
) -> None:
    ours = computed(published, molecule, path, dtype)
    names = [name.partition("/")[2] for name in published if name.startswith(f"{molecule}/")]
    assert set(ours) == set(names) - {"numbers", "positions_angstrom", "edge_index_full"}
    for name, found in ours.items():
        expected = published[f"{molecule}/{name}"]
        if expected.ndim == 2 and len(expected) != expected.shape[1]:
            expected = unflat(expected, 16)
        assert found.shape == expected.shape
        error = np.abs(found - expected).max() / np.abs(expected).max()
        assert error < tolerance, name


def test_every_published_weight_takes_part(published: Published) -> None:
    """The comparison can fail anywhere: no weight is zero, and the ones that nothing depends on are named idle."""
    for name, value in weights(published).items():
        assert (value != 0).all(), name


def test_radial_functions_start_as_published() -> None:
    config = QHNetPublishedConfig()
    made = QHNetPublished(config, COEFFICIENTS, 5)
    assert isinstance(made.radial, ExponentialBernstein)
    assert torch.nn.functional.softplus(made.radial.raw_alpha).item() == pytest.approx(ALPHA_AT_START, abs=1e-6)
