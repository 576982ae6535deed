"""TraceGrad: invariance, the gradient feature in closed form and by autograd, trace labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from model.blocks.block_set import BlockSet
from model.blocks.motions import turn
from model.blocks.spaces import BlockSpace
from model.network import HamiltonianNetwork
from model.network_config import NetworkConfig
from model.nn.frames import wigner_matrices
from model.nn.irreps import Layout, RaggedLayout
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import Structure
from model.tracegrad.config import LITERAL
from model.tracegrad.full_contraction import FullScalars, RaggedFullScalars
from model.tracegrad.gradient import GradientFeature
from model.tracegrad.invariants import RaggedScalars, SelfProductScalars
from model.tracegrad.trace import FLOOR, trace_labels

LAYOUT = Layout.of_products(2)
CHANNELS = 5


INVARIANTS: dict[str, Any] = {"low_rank": SelfProductScalars, "full": FullScalars}


@pytest.fixture(params=[*INVARIANTS, "affine"])
def module(request: pytest.FixtureRequest) -> GradientFeature:
    torch.manual_seed(1)
    affine = request.param == "affine"
    invariants = INVARIANTS["full" if affine else request.param](LAYOUT, CHANNELS, 7)
    module = GradientFeature(invariants, rank=7, hidden=9, n_scalars=6, affine=affine).double()
    for norm in module.norms:  # as they start, weights and biases do nothing
        for parameter in norm.parameters():
            torch.nn.init.normal_(parameter)
    return module


@pytest.fixture
def features() -> Tensor:
    torch.manual_seed(2)
    return torch.randn(13, LAYOUT.dim, CHANNELS, dtype=torch.float64)


def moved(features: Tensor, proper: bool) -> tuple[Tensor, Tensor]:
    rotation = torch.from_numpy(Rotation.random(random_state=4).as_matrix())
    matrices = wigner_matrices(rotation[None], 4)
    matrix = torch.block_diag(*[matrices[ang][0] * (1 if proper else parity) for ang, parity in LAYOUT.irreps])
    return matrix, matrix @ features


def test_closed_form_equals_autograd(module: GradientFeature, features: Tensor) -> None:
    z, (v,) = module((features,))
    z_auto, (v_auto,) = module.by_autograd((features,))
    assert (z - z_auto).abs().max() < 1e-12
    assert (v - v_auto).abs().max() < 1e-12
    assert v.abs().mean() > 1e-3, "a gradient of nothing would agree too"


def test_both_train_the_same_weights(module: GradientFeature, features: Tensor) -> None:
    """Gradients of a loss on v with respect to all weights: one backward against a double backward."""
    target = torch.randn_like(features)
    gradients = []
    for form in (module.forward, module.by_autograd):
        module.zero_grad()
        inputs = features.clone().requires_grad_()
        z, (v,) = form((inputs,))
        ((v - target).square().sum() + z.square().sum()).backward()
        gradients.append([p.grad.clone() for p in module.parameters() if p.grad is not None] + [inputs.grad])
    for one, two in zip(*gradients, strict=True):
        assert (one - two).abs().max() < 1e-9 * (1 + two.abs().max())


def test_gradient_by_finite_differences(module: GradientFeature, features: Tensor) -> None:
    _, (v,) = module((features,))
    direction = torch.randn_like(features)
    step = 1e-5

    def total(values: Tensor) -> Tensor:
        return module((values,))[0].sum()

    numeric = (total(features + step * direction) - total(features - step * direction)) / (2 * step)
    assert abs((numeric - (v * direction).sum()).item()) < 1e-7


def test_closed_form_runs_without_autograd(module: GradientFeature, features: Tensor) -> None:
    expected = module((features,))[1][0].detach()
    with torch.inference_mode():
        # torch may take another GEMM without autograd
        assert (module((features,))[1][0] - expected).abs().max() < 1e-14


@pytest.mark.parametrize("proper", [True, False])
def test_z_is_invariant_and_v_moves_with_f(module: GradientFeature, features: Tensor, proper: bool) -> None:
    matrix, after = moved(features, proper)
    z, (v,) = module((features,))
    z_after, (v_after,) = module((after,))
    assert (z - z_after).abs().max() < 1e-11
    assert (matrix @ v - v_after).abs().max() < 1e-11


def test_v_is_not_linear(module: GradientFeature, features: Tensor) -> None:
    _, (v,) = module((features,))
    _, (doubled,) = module((2 * features,))
    assert (doubled - 2 * v).abs().max() > 1e-3


def test_invariants_are_the_full_contraction_of_a_rank_one_weight(features: Tensor) -> None:
    """u of Eq. 6 with W^c_ij = A_ci B_cj, written out."""
    scalars = SelfProductScalars(LAYOUT, CHANNELS, rank=3).double()
    u, _ = scalars((features,))
    expected = torch.zeros_like(u)
    for index, part in enumerate(LAYOUT.slices):
        inner = torch.einsum("nmi,nmj->nij", features[:, part], features[:, part])
        inner = inner / np.sqrt(part.stop - part.start)
        weight = torch.einsum("ic,jc->cij", scalars.left.weight[index], scalars.right.weight[index])
        expected += torch.einsum("nij,cij->nc", inner, weight)
    assert (u - expected).abs().max() < 1e-11


def test_trace_label_is_the_trace_of_the_block(rng: np.random.Generator) -> None:
    """Theorem 1: tr(Q Q^T) of every sub-block, from coefficients and from the block itself."""
    expansion = BlockSpace.of((0, 0, 0, 1, 1, 2))
    coefficients = rng.normal(size=(4, 196))
    labels = trace_labels(torch.from_numpy(coefficients), torch.from_numpy(expansion.trace_index()), 36)
    blocks = (coefficients @ expansion.matrix.T).reshape(4, 14, 14)
    edges = [0, 1, 2, 3, 6, 9, 14]
    for a in range(6):
        for b in range(6):
            part = blocks[:, edges[a] : edges[a + 1], edges[b] : edges[b + 1]]
            trace = np.einsum("nij,nij->n", part, part) / part[0].size
            assert np.abs(labels[:, 6 * a + b].numpy() - np.log(trace + FLOOR)).max() < 1e-12


def test_trace_labels_of_paper_and_released_code(rng: np.random.Generator) -> None:
    """ "raw" is tr(Q Q^T) itself, "layer_norm" the same, centred and scaled within each block."""
    expansion = BlockSpace.of((0, 0, 0, 1, 1, 2))
    block = rng.normal(size=(5, 14, 14))
    coefficients = torch.from_numpy(block.reshape(5, -1) @ expansion.matrix)
    shell_pair = torch.from_numpy(expansion.trace_index())
    raw = trace_labels(coefficients, shell_pair, 36, "raw")
    edges = [0, 1, 2, 3, 6, 9, 14]
    for a in range(6):
        for b in range(6):
            sub = block[:, edges[a] : edges[a + 1], edges[b] : edges[b + 1]]
            trace = np.trace(sub @ sub.transpose(0, 2, 1), axis1=1, axis2=2)
            assert np.abs(raw[:, 6 * a + b].numpy() - trace).max() < 1e-11
    normed = trace_labels(coefficients, shell_pair, 36, "layer_norm").numpy()
    assert np.abs(normed.mean(axis=1)).max() < 1e-12
    assert np.abs(normed.std(axis=1) - 1.0).max() < 1e-4


def test_low_rank_is_the_full_contraction_with_a_weight_of_low_rank(features: Tensor) -> None:
    low, full = SelfProductScalars(LAYOUT, CHANNELS, 7).double(), FullScalars(LAYOUT, CHANNELS, 7).double()
    with torch.no_grad():
        full.weight.copy_(torch.einsum("lic,ljc->lcij", low.left.weight, low.right.weight))
    assert (low((features,))[0] - full((features,))[0]).abs().max() < 1e-12


def test_frames_refuse_the_full_contraction() -> None:
    from model.checkpoint import store
    from model.errors import CheckpointError
    from tests.conftest import RELEASED

    config = NetworkConfig.from_mapping({"backbone": "qhnetv2", "tracegrad": {"contraction": "full"}})
    with pytest.raises(CheckpointError, match="low_rank"):
        HamiltonianNetwork(config, store.load(RELEASED).card.space())


@pytest.mark.parametrize("contraction", ["low_rank", "full"])
def test_irreps_with_their_own_channels(contraction: str) -> None:
    """u of Eq. 6, written out; and v is z's gradient."""
    torch.manual_seed(6)
    layout, sizes = Layout(((0, 1), (1, -1), (2, 1))), (6, 3, 1)
    ragged = RaggedLayout(layout, sizes)
    invariants = (RaggedFullScalars if contraction == "full" else RaggedScalars)(ragged, 5).double()
    parts = tuple(
        torch.randn(7, dim, width, dtype=torch.float64) for dim, width in zip(layout.sizes, sizes, strict=True)
    )
    u, _ = invariants(parts)
    grams = [torch.einsum("nmi,nmj->nij", part, part) / np.sqrt(part.shape[1]) for part in parts]
    if isinstance(invariants, RaggedFullScalars):
        terms = [
            torch.einsum("nij,cij->nc", gram, weight) for gram, weight in zip(grams, invariants.weights, strict=True)
        ]
        expected = torch.stack(terms).sum(dim=0)
    else:
        assert invariants.ranks == [3, 2, 1], "half the channels, rounded up"
        halves = [weight.chunk(2, dim=1) for weight in invariants.weights]
        expected = torch.cat(
            [torch.einsum("nij,ic,jc->nc", gram, a, b) for gram, (a, b) in zip(grams, halves, strict=True)], dim=1
        )
    assert (u - expected).abs().max() < 1e-12

    module = GradientFeature(invariants, rank=invariants.n_invariants, hidden=9, n_scalars=6).double()
    z, v = module(parts)
    z_auto, v_auto = module.by_autograd(parts)
    assert (z - z_auto).abs().max() < 1e-12
    for part, one, other in zip(parts, v, v_auto, strict=True):
        assert one.shape == part.shape
        assert one.abs().mean() > 1e-3
        assert (one - other).abs().max() < 1e-12
    with torch.inference_mode():
        for one, other in zip(module(parts)[1], v, strict=True):
            assert (one - other).abs().max() < 1e-14


@pytest.mark.parametrize(
    ("shells", "published", "modules", "decoder"),
    [((0, 0, 1, 1, 2), 627_981, 14.88e6, 1.16e6), ((0, 0, 0, 1, 1, 2, 2), 721_343, 15.92e6, 1.26e6)],
    ids=["graphene", "MoS2"],
)
def test_the_literal_form_has_the_parameters_of_the_released_code(
    shells: tuple[int, ...], published: int, modules: float, decoder: float
) -> None:
    """Counts measured on the released code: u of a middle block 5,636,096; all modules 14.88 and 15.92 million."""
    space = OrbitalSpace("test", {6: shells} if len(shells) == 5 else {42: shells, 16: (0, 0, 1, 1, 2)})
    literal = {**LITERAL, "affine": True, "n_scalars": len(shells) ** 2}
    config = NetworkConfig.from_mapping({"backbone": "deeph_e3", "tracegrad": literal})
    cutoffs = torch.full((len(space.elements) ** 2,), 7.2, dtype=torch.float64)
    network = HamiltonianNetwork(config, space, pair_cutoffs=cutoffs)

    def count(part: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in part.parameters())

    middle = network.get_submodule("pair_tracegrad.0.gradient.invariants")
    assert count(middle) == 5_636_096
    assert count(network.get_submodule("backbone")) == published
    strengths = 3  # of f + v, 1 at the start; the released code has none
    assert abs(count(network.pair_tracegrad) - strengths - modules) < 5e3
    assert abs(count(network.pair_decoder) - decoder) < 5e3
    total = count(network)
    assert total == published + count(network.pair_tracegrad) + count(network.pair_decoder), "one module for all edges"


@pytest.fixture
def spinors(rng: np.random.Generator) -> BlockSet:
    """Hermitian blocks of a crystal with everything that spin-orbit coupling and magnetism can make."""
    space = OrbitalSpace("test", {83: (0, 1, 2)}, order="openmx")
    structure = Structure(
        np.array([83, 83]),
        np.array([[0.0, 0.0, 5.0], [1.9, 1.3, 6.2]]),
        cell_angstrom=np.array([[4.1, 0.0, 0.0], [-2.0, 3.6, 0.0], [0.0, 0.0, 11.0]]),
        pbc=(True, True, False),
    )
    pairs = PairList.within(structure, 4.5)
    values = BlockSet.zeros(space, structure.numbers, pairs, "spinor").values
    random = rng.normal(size=values.shape) + 1j * rng.normal(size=values.shape)
    return BlockSet(space, structure.numbers, pairs, random, "spinor").hermitised()


def spin_parts(blocks: BlockSet, space: BlockSpace) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Trace labels of every block, and the traces of the single spin blocks uu, ud, du, dd of each shell pair (s s)."""
    standard = blocks.in_order("e3nn")
    labels, single = [], []
    for place in range(len(blocks.pairs)):
        block = standard.block(place)  # (spin part, row, column)
        coefficients = torch.from_numpy(space.to_components(block).reshape(1, -1) @ space.matrix)
        trace_index = torch.from_numpy(space.trace_index())
        labels.append(trace_labels(coefficients, trace_index, space.n_traces, "raw").numpy()[0])
        single.append(np.square(np.abs(block[:, 1:4, 1:4])).sum(axis=(1, 2)))
    return np.array(labels), np.array(single)


def test_with_spin_orbit_coupling_h0_and_h_have_labels_of_their_own(spinors: BlockSet) -> None:
    """|h0|^2 and the sum of |h_a|^2 of each shell pair; a motion of SU(2) x SO(3) leaves them, and no single spin block."""
    space = BlockSpace.of((0, 1, 2), "spinor")
    labels, single = spin_parts(spinors, space)
    assert labels.shape == (len(spinors.pairs), 2 * 9)
    uu, ud, du, dd = spinors.in_order("e3nn").block(0)[:, 1:4, 1:4]
    h0, h = 0.5 * (uu + dd), [0.5 * (ud + du), 0.5j * (ud - du), 0.5 * (uu - dd)]
    place = 1 * 3 + 1  # p-p
    assert labels[0, place] == pytest.approx(2 * np.square(np.abs(h0)).sum(), rel=1e-12)
    assert labels[0, 9 + place] == pytest.approx(2 * np.square(np.abs(h)).sum(), rel=1e-12)
    assert labels[:, place] + labels[:, 9 + place] == pytest.approx(single.sum(axis=1), rel=1e-12)
    for seed in range(3):
        motion = Rotation.random(random_state=seed).as_matrix() * (1 if seed else -1)
        moved, moved_single = spin_parts(turn(spinors, motion), space)
        assert np.abs(moved - labels).max() < 1e-11 * labels.max()
        share = np.abs(moved_single - single).max(axis=0) / single.max()
        assert (share > 0.05).all(), "each of uu, ud, du, dd changes: none of them is a label"


def test_edges_of_one_kind_share_a_module() -> None:
    """DeepH-E3's on-site blocks are edges of an atom with itself; QHNetV2's pairs live in frames and atoms do not."""
    space = OrbitalSpace("test", {6: (0, 1)})
    cutoffs = torch.tensor([4.0], dtype=torch.float64)
    for backbone, shared in (("deeph_e3", True), ("qhnetv2", False)):
        settings = {"n_inputs": 0} if backbone == "qhnetv2" else {}
        config = NetworkConfig.from_mapping({"backbone": backbone, backbone: settings})
        network = HamiltonianNetwork(config, space, pair_cutoffs=cutoffs)
        assert (len(network.diagonal_tracegrad) == 0) is shared
        assert hasattr(network, "diagonal_decoder") is not shared
