"""TraceGrad: invariance, the gradient feature in closed form and by autograd, trace labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from model.blocks.spaces import BlockSpace
from model.nn.frames import wigner_matrices
from model.nn.irreps import Layout, RaggedLayout
from model.tracegrad.full_contraction import FullScalars, RaggedFullScalars
from model.tracegrad.gradient import GradientFeature
from model.tracegrad.invariants import SectorScalars, SelfProductScalars
from model.tracegrad.trace import FLOOR, trace_labels

LAYOUT = Layout.of_products(2)
CHANNELS = 5


INVARIANTS: dict[str, Any] = {"low_rank": SelfProductScalars, "full": FullScalars}


@pytest.fixture(params=list(INVARIANTS))
def module(request: pytest.FixtureRequest) -> GradientFeature:
    torch.manual_seed(1)
    invariants = INVARIANTS[request.param](LAYOUT, CHANNELS, 7)
    return GradientFeature(invariants, rank=7, hidden=9, n_scalars=6).double()


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
    from model.network import HamiltonianNetwork
    from model.network_config import NetworkConfig
    from tests.conftest import RELEASED

    config = NetworkConfig.from_mapping({"backbone": "qhnetv2", "tracegrad": {"contraction": "full"}})
    with pytest.raises(CheckpointError, match="low_rank"):
        HamiltonianNetwork(config, store.load(RELEASED).card.space())


@pytest.mark.parametrize("contraction", ["low_rank", "full"])
def test_irreps_with_their_own_channels(contraction: str) -> None:
    """The same u as of one tensor where all have as many; and v is z's gradient where they do not."""
    torch.manual_seed(6)
    kind = RaggedFullScalars if contraction == "full" else SectorScalars
    layout = Layout(((0, 1), (1, -1), (2, 1)))
    whole = torch.randn(7, layout.dim, 4, dtype=torch.float64)
    ragged = kind(RaggedLayout(layout, (4, 4, 4)), 5).double()
    if isinstance(ragged, RaggedFullScalars):
        uniform: FullScalars | SelfProductScalars = FullScalars(layout, 4, 5).double()
        uniform.load_state_dict({"weight": torch.stack(list(ragged.weights))})
    else:
        uniform = SelfProductScalars(layout, 4, 5).double()
        sides = {"left": ragged.left, "right": ragged.right}
        uniform.load_state_dict({f"{side}.weight": torch.stack(list(of.weights)) for side, of in sides.items()})
    u, _ = ragged(whole.split(layout.sizes, dim=1))
    assert (u - uniform((whole,))[0]).abs().max() < 1e-12

    sizes = (6, 3, 1)
    module = GradientFeature(kind(RaggedLayout(layout, sizes), 5), rank=5, hidden=9, n_scalars=6).double()
    parts = tuple(
        torch.randn(7, dim, width, dtype=torch.float64) for dim, width in zip(layout.sizes, sizes, strict=True)
    )
    z, v = module(parts)
    z_auto, v_auto = module.by_autograd(parts)
    assert (z - z_auto).abs().max() < 1e-12
    for part, one, other in zip(parts, v, v_auto, strict=True):
        assert one.shape == part.shape
        assert one.abs().mean() > 1e-3
        assert (one - other).abs().max() < 1e-12
