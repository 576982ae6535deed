"""``deeph_e3`` is the published function: its numbers are those that the published code computed, without spin and with it.

Random weights at a small width in float64; the files' README says how they were made. And what is not published: that both
evaluation paths are one function, what each norm does, and that reversed edges are averaged in.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.architectures.deeph_e3.config import PATHS, DeepHE3Config
from model.architectures.deeph_e3.convolution import SIGMOID_SCALE, SILU_SCALE, TANH_SCALE
from model.architectures.deeph_e3.head import OutputOrder
from model.architectures.deeph_e3.network import DeepHE3
from model.architectures.deeph_e3.norms import FLOOR, RunningNorm
from model.architectures.deeph_e3.slots import parse_slots
from model.architectures.interface import Features, InputCoefficients
from model.blocks.block_set import Spin
from model.blocks.spaces import BlockSpace
from model.errors import CheckpointError
from model.nn.radial import fade_out
from model.pairs.graph import AtomGraph, build_graph, join_graphs
from tests.conftest import shared_file
from tests.laws.systems import bulk, chain, layer, shaken, with_fragment
from tests.tolerances import LAW_FLOAT64, NOT_NOTHING, SAME_FLOAT64

PUBLISHED: Final = 1e-10
"""Two implementations in float64, numbers of order one."""
SAME_FLOAT32: Final = 1e-6
"""Both paths in float32, relative to the largest number."""
OPENMX: Final = {0: [0], 1: [1, 2, 0], 2: [2, 4, 0, 3, 1]}
"""Where m = -l..l stand in OpenMX's order, in which the published code gives blocks."""
HEAVY: Final = (0, 0, 0, 1, 1, 2, 2)
SMALL: Final = DeepHE3Config("6x0e+4x1o+3x2e+2x3o+2x4e", embedding_channels=6, blocks=2, hidden=8, radial_size=10)
ELEMENTS: Final = {1: 0, 6: 1, 7: 2, 8: 3, 9: 4}

Published = dict[str, NDArray[Any]]


def published(name: str) -> Published:
    found = np.load(shared_file("data", "crystals", "published_network", f"{name}.npz"), allow_pickle=False)
    return {key: found[key] for key in found.files}


def graph_of(stored: Published) -> tuple[AtomGraph, NDArray[np.int64]]:
    """The stored structure, and the stored edges in the order of ``EdgeList``: on-site ones first."""
    edges = stored["edges"].astype(np.int64)
    shift, first, second = edges[:, :3], edges[:, 3], edges[:, 4]
    vectors = stored["positions"][second] + shift @ stored["cell"] - stored["positions"][first]
    on_site = (first == second) & ~shift.any(axis=1)
    assert np.array_equal(first[on_site], np.arange(len(stored["numbers"])))
    pairs = np.flatnonzero(~on_site)
    none = torch.zeros((2, 0), dtype=torch.int64)
    graph = AtomGraph(
        numbers=torch.from_numpy(stored["numbers"].astype(np.int64)),
        structure_index=torch.zeros(len(stored["numbers"]), dtype=torch.int64),
        edge_index=none,
        edge_vectors=none.T.double(),
        pair_index=torch.from_numpy(np.stack([first[pairs], second[pairs]])),
        pair_vectors=torch.from_numpy(vectors[pairs]),
        n_structures=1,
    )
    return graph, np.concatenate([np.flatnonzero(on_site), pairs])


def features_of(network: DeepHE3, graph: AtomGraph, atom_type: Tensor) -> Features:
    """After the last block."""
    features, context = network.start(graph, nothing(graph), atom_type)
    for index in range(network.n_blocks):
        features = network.block(index, graph, features, context)
    return features


def nothing(graph: AtomGraph) -> InputCoefficients:
    return InputCoefficients(graph.pair_vectors[:0], graph.pair_vectors[:0])


def types(graph: AtomGraph) -> Tensor:
    return torch.tensor([ELEMENTS[int(number)] for number in graph.numbers])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["graphene", "bismuthene_spinful"])
@torch.no_grad()
def test_numbers_are_the_published_ones(name: str, path: str) -> None:
    """Raw outputs of edges and atoms, and blocks of H, with the published weights copied by name."""
    stored = published(name)
    config = json.loads(str(stored["config"]))
    (shells,) = config["orbitals"].values()
    space = BlockSpace.of(shells, "spinor" if config["spinful"] else "restricted")
    weights = {key.removeprefix("state/"): value for key, value in stored.items() if key.startswith("state/")}
    settings = DeepHE3Config(
        config["irreps_mid"],
        embedding_channels=parse_slots(config["irreps_embed"])[0].channels,
        blocks=config["num_block"],
        harmonics_lmax=config["lmax_sh"],
        cutoff_angstrom=config["cutoff_angstrom"],
        norm="graph",
        envelope=False,
        path=path,
    )
    network = DeepHE3(settings, space.coefficients, 1).double()
    network.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    assert list(network.edge_slots[-1]) == list(parse_slots(config["irreps_post_edge"]))
    assert list(network.node_slots[-1]) == list(parse_slots(config["irreps_post_node"]))
    graph, order = graph_of(stored)
    features = features_of(network, graph, torch.zeros_like(graph.numbers))
    coefficients = network.edge_coefficients(features).numpy()
    place, scale = network.order.raw
    assert np.abs(coefficients[:, place] * scale - stored["edge_output"][order]).max() < PUBLISHED
    assert np.abs(network.node_output(features).numpy() - stored["node_output"]).max() < PUBLISHED
    size = sum(2 * ang + 1 for ang in shells)
    components = (coefficients @ space.matrix.T).reshape(len(order), space.n_components, size, size)
    values = space.to_values(components.transpose(1, 0, 2, 3)).transpose(1, 0, 2, 3)
    expected = openmx_blocks(stored["blocks"][order].reshape(len(order), -1, size**2), shells)
    assert np.abs(values - expected).max() < PUBLISHED


def openmx_blocks(blocks: NDArray[Any], shells: list[int]) -> NDArray[Any]:
    """(edge, spin part, all shell pairs flattened one after the other) -> (edge, spin part, row, column), m = -l..l."""
    starts = np.concatenate([[0], np.cumsum([2 * ang + 1 for ang in shells])])
    out = np.zeros((*blocks.shape[:2], starts[-1], starts[-1]), dtype=blocks.dtype)
    first = 0
    for a, la in enumerate(shells):
        for b, lb in enumerate(shells):
            shape = (2 * la + 1, 2 * lb + 1)
            part = blocks[:, :, first : first + shape[0] * shape[1]].reshape(*blocks.shape[:2], *shape)
            first += shape[0] * shape[1]
            out[:, :, starts[a] : starts[a + 1], starts[b] : starts[b + 1]] = part[..., OPENMX[la], :][..., OPENMX[lb]]
    return out


@pytest.mark.parametrize(
    ("shells", "spin", "n_elements", "count"),
    [
        ((0, 0, 1, 1, 2), "restricted", 1, 627_981),
        (HEAVY, "restricted", 2, 721_343),
        (HEAVY, "spinor", 1, 1_309_059),
        (HEAVY, "spinor", 2, 1_378_563),
    ],
    ids=["graphene", "MoS2", "bismuthene", "two elements with spin-orbit coupling"],
)
def test_parameter_counts_are_the_published_ones(
    shells: tuple[int, ...], spin: Spin, n_elements: int, count: int
) -> None:
    network = DeepHE3(DeepHE3Config(), BlockSpace.of(shells, spin).coefficients, n_elements)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_activations_have_e3nns_factors() -> None:
    from e3nn.math import normalize2mom

    for function, scale in (
        (torch.nn.functional.silu, SILU_SCALE),
        (torch.tanh, TANH_SCALE),
        (torch.sigmoid, SIGMOID_SCALE),
    ):
        assert normalize2mom(function).cst == pytest.approx(scale, abs=1e-15)


def small(norm: str, spin: Spin = "restricted", path: str = "fast", **settings: Any) -> DeepHE3:
    torch.manual_seed(3)
    space = BlockSpace.of((0, 0, 1, 2), spin)
    network = DeepHE3(replace(SMALL, norm=norm, path=path, **settings), space.coefficients, len(ELEMENTS))
    with torch.no_grad():
        network.lin_edge.weight.normal_()  # it starts at zero
    return network.double().eval()


def crystals() -> AtomGraph:
    return build_graph([bulk(), layer(), chain()], cutoff_angstrom=3.0, block_cutoff_angstrom=4.0, dtype=torch.float64)


@pytest.mark.parametrize(
    ("spin", "norm", "dtype"),
    [
        ("restricted", "graph", torch.float64),
        ("restricted", "graph", torch.float32),
        ("spinor", "graph", torch.float64),  # in float32 it magnifies the rounding of pseudoscalars that nearly vanish
        ("spinor", "local", torch.float64),
        ("spinor", "local", torch.float32),
    ],
)
def test_both_paths_are_one_function(spin: Spin, norm: str, dtype: torch.dtype) -> None:
    """Outputs, and the gradients of all weights; several elements, images and atoms with their own images."""
    graph = crystals().to(dtype=dtype)
    found = []
    for path in PATHS:
        network = small(norm, spin, path).to(dtype)
        out = network.edge_coefficients(features_of(network, graph, types(graph)))
        torch.manual_seed(4)
        (out * torch.randn(out.shape, dtype=torch.float64).to(dtype)).sum().backward()
        gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        found.append({"output": out.detach(), **gradients})
    fast, reference = found
    assert fast.keys() == reference.keys()
    assert len(fast) > 200, "nearly every parameter takes part"
    tolerance = SAME_FLOAT64 if dtype == torch.float64 else SAME_FLOAT32
    for name, expected in reference.items():
        limit = tolerance if name == "output" else 100 * tolerance
        assert (fast[name] - expected).abs().max() < limit * expected.abs().max().clamp_min(1.0), name


def answers(network: DeepHE3, graph: AtomGraph) -> Tensor:
    with torch.no_grad():
        on_site, _ = network.run(graph, nothing(graph), types(graph), lambda _index, features, _listed: features)
    return on_site


def test_published_norm_is_of_one_structure_but_not_local() -> None:
    """A structure's company in a batch does not matter; atoms far away in the same structure do."""
    network = small("graph", envelope=False)
    graphs = [build_graph([shaken(name)], cutoff_angstrom=3.0, dtype=torch.float64) for name in ("CH3CN", "H2O")]
    alone = answers(network, graphs[0])
    assert (answers(network, join_graphs(graphs))[: len(alone)] - alone).abs().max() < LAW_FLOAT64
    pair = with_fragment(shaken("CH3CN"), np.array([0.0, 0.0, 60.0]))
    far = build_graph([pair], cutoff_angstrom=3.0, block_cutoff_angstrom=6.0, dtype=torch.float64)
    near = build_graph([shaken("CH3CN")], cutoff_angstrom=3.0, block_cutoff_angstrom=6.0, dtype=torch.float64)
    assert (answers(network, far)[: len(alone)] - answers(network, near)).abs().max() > NOT_NOTHING
    local = small("local")
    assert (answers(local, far)[: len(alone)] - answers(local, near)).abs().max() < LAW_FLOAT64


def test_running_norm_is_fixed_outside_of_training() -> None:
    torch.manual_seed(5)
    norm = RunningNorm(parse_slots("3x0e+2x0o+4x1o")).double().train()
    float64 = torch.float64
    parts = (
        3.0 + 2.0 * torch.randn(500, 1, 3, dtype=float64),
        torch.zeros(500, 1, 2, dtype=float64),
        5.0 * torch.randn(500, 3, 4, dtype=float64),
    )
    index, count = torch.zeros(500, dtype=torch.int64), torch.tensor([500.0])
    first = norm(parts, index, count)
    assert abs(first[0].mean().item()) < 1e-12, "the first batch sets the statistics"
    assert first[0].square().mean().item() == pytest.approx(1.0, abs=1e-12)
    assert torch.equal(first[2], parts[2]), "only scalars are divided"
    norm.eval()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    again = norm(parts, index, count)
    for one, other in zip(first, again, strict=True):
        assert (one - other).abs().max() < SAME_FLOAT64 * 10, "values in training are those of later"
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    noise = (parts[0], torch.full((500, 1, 2), 1e-6, dtype=float64), parts[2])
    assert norm(noise, index, count)[1].abs().max() <= 1e-6 / FLOOR, "what vanished in training is not magnified"


def test_running_norm_gives_growth_no_gradient() -> None:
    """Statistics are constants of the values, but not of the gradients: a larger input is no larger output."""
    torch.manual_seed(6)
    norm = RunningNorm(parse_slots("3x0e")).double().train()
    part = torch.randn(50, 1, 3, dtype=torch.float64, requires_grad=True)
    (out,) = norm((part,), torch.zeros(50, dtype=torch.int64), torch.tensor([50.0]))
    (gradient,) = torch.autograd.grad(out.pow(4).sum(), part)
    assert gradient.abs().max() > NOT_NOTHING
    assert (gradient * part).sum().abs() < SAME_FLOAT64 * 100
    assert gradient.sum().abs() < SAME_FLOAT64 * 100


@pytest.mark.parametrize(
    ("spin", "time_reversal"),
    [("restricted", False), ("unrestricted", False), ("spinor", False), ("spinor", True)],
)
def test_adjoint_of_coefficients_is_that_of_the_block(
    spin: Spin, time_reversal: bool, rng: np.random.Generator
) -> None:
    space = BlockSpace.of((0, 1, 1, 2), spin, time_reversal=time_reversal)
    coefficients = rng.normal(size=(3, space.matrix.shape[1]))
    blocks = (coefficients @ space.matrix.T).reshape(3, space.n_components, 12, 12)
    expected = (space.adjoint_sign[:, None, None] * blocks.swapaxes(2, 3)).reshape(3, -1) @ space.matrix
    place, sign = OutputOrder(space.coefficients).adjoint
    assert np.abs(coefficients[:, place] * sign - expected).max() < SAME_FLOAT64 * 10


def test_settings_that_cannot_be_are_refused() -> None:
    for settings in (
        {"norm": "batch"},
        {"path": "slow"},
        {"irreps_mid": "4x1o+2x0e"},
        {"irreps_mid": "4x0e+x"},
        {"blocks": 0},
    ):
        with pytest.raises(CheckpointError):
            DeepHE3Config(**settings)
    with pytest.raises(CheckpointError, match="higher l"):
        DeepHE3(DeepHE3Config("4x0e", harmonics_lmax=1), BlockSpace.of((2,)).coefficients, 1)


def test_blocks_fade_where_pairs_end() -> None:
    """What a block is multiplied by has limits and a shape; nothing else of the answer changes."""
    graph = build_graph([shaken("CH3CN")], cutoff_angstrom=3.0, dtype=torch.float64)
    lengths = graph.pair_vectors.norm(dim=-1)
    end, width = float(lengths.max()) + 1e-4, 0.5
    cutoffs = torch.full((len(ELEMENTS) ** 2,), end, dtype=torch.float64)
    found = []
    for fade in (0.0, width):
        torch.manual_seed(3)
        config = replace(SMALL, fade_angstrom=fade)
        network = DeepHE3(config, BlockSpace.of(HEAVY).coefficients, len(ELEMENTS), cutoffs).double().eval()
        with torch.no_grad():
            network.lin_edge.weight.normal_()  # it starts at zero
            found.append(network.run(graph, nothing(graph), types(graph), lambda _index, features, _listed: features))
    (on_site, sharp), (same, faded) = found
    assert torch.equal(on_site, same)
    inside = lengths < end - width
    assert 0 < inside.sum() < len(lengths)
    assert torch.equal(sharp[inside], faded[inside])
    last = lengths.argmax()
    assert sharp[last].abs().max() > NOT_NOTHING
    assert faded[last].abs().max() < 1e-9 * sharp[last].abs().max()


def test_fade_is_twice_differentiable() -> None:
    ends = torch.tensor([5.0, 5.0], dtype=torch.float64)
    distances = torch.tensor([4.5, 5.0], dtype=torch.float64, requires_grad=True)
    value = fade_out(distances, ends, 0.5)
    assert torch.equal(value.detach(), torch.tensor([1.0, 0.0], dtype=torch.float64))
    for shift in (1e-4, -1e-4):  # both sides of both ends
        near = (distances.detach() + shift).requires_grad_()
        (first,) = torch.autograd.grad(fade_out(near, ends, 0.5).sum(), near, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), near)
        assert first.abs().max() < 1e-4
        assert second.abs().max() < 0.1, "60 / width^2 times the distance to the end, at most"


def test_fade_must_be_shorter_than_the_cutoff() -> None:
    with pytest.raises(CheckpointError, match="fade_angstrom"):
        replace(SMALL, fade_angstrom=SMALL.cutoff_angstrom)
