"""Frames, products and convolutions against e3nn; every part against its law."""

from __future__ import annotations

import e3nn.o3
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from model.nn.frames import bond_rotations, harmonics_from_wigner, wigner_matrices
from model.nn.irreps import Layout, coupling
from model.nn.layers import (
    ChannelwiseProduct,
    FloorLayerNorm,
    FrameConvolution,
    Linear,
    NormGate,
    root_mean_square_norm,
)
from model.nn.radial import ExponentialBernstein, smooth_cutoff

TIGHT = 1e-12
TO_E3NN = [1, 2, 0]
"""Cartesian (x, y, z) fed to e3nn as (y, z, x): its polar axis y is then our z."""


@pytest.fixture(autouse=True)
def double() -> None:
    torch.manual_seed(3)


def vectors(count: int) -> Tensor:
    random = torch.randn(count, 3, dtype=torch.float64)
    special = torch.tensor(
        [[0, 0, 1], [0, 0, -1], [1, 0, 0], [0, -1, 0], [1e-12, 0, 1], [1, 1, 1], [1e-9, 1e-9, -1], [0.5, 0.5, 0]],
        dtype=torch.float64,
    )
    return torch.cat([random, special])


def wigner(rotation: Tensor, layout: Layout, proper: bool = True) -> Tensor:
    """Block diagonal representation of a rotation (or rotation times inversion) on a layout."""
    matrices = wigner_matrices(rotation[None], max(ang for ang, _ in layout.irreps))
    return torch.block_diag(*[matrices[ang][0] * (1 if proper else parity) for ang, parity in layout.irreps])


def test_frames_turn_the_bond_onto_the_pole() -> None:
    bonds = vectors(50)
    rotations = bond_rotations(bonds)
    turned = torch.einsum("eij,ej->ei", rotations, bonds / bonds.norm(dim=1, keepdim=True))
    assert (turned - torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)).abs().max() < TIGHT
    assert (torch.linalg.det(rotations) - 1).abs().max() < TIGHT


def test_wigner_matrices_are_those_of_e3nn() -> None:
    rotation = torch.from_numpy(Rotation.random(random_state=5).as_matrix())
    permuted = rotation[TO_E3NN][:, TO_E3NN]
    for ang, matrix in enumerate(wigner_matrices(rotation[None], 4)):
        points = torch.randn(200, 3, dtype=torch.float64)
        before = e3nn.o3.spherical_harmonics(ang, points[:, TO_E3NN], normalize=True)
        after = e3nn.o3.spherical_harmonics(ang, (points @ rotation.T)[:, TO_E3NN], normalize=True)
        assert (before @ matrix[0].T - after).abs().max() < 1e-11
        assert permuted.shape == (3, 3)


def test_harmonics_are_those_of_e3nn() -> None:
    bonds = vectors(50)
    ours = harmonics_from_wigner(wigner_matrices(bond_rotations(bonds), 4))
    for ang in range(5):
        theirs = e3nn.o3.spherical_harmonics(ang, bonds[:, TO_E3NN], normalize=True, normalization="norm")
        assert (ours[:, ang**2 : (ang + 1) ** 2] - theirs).abs().max() < 1e-11


def test_coupling_is_orthonormal_in_float64() -> None:
    for left in range(3):
        for right in range(3):
            table = np.concatenate(
                [
                    coupling(left, right, ang).reshape(-1, 2 * ang + 1)
                    for ang in range(abs(left - right), left + right + 1)
                ],
                axis=1,
            )
            assert np.abs(table.T @ table - np.eye(table.shape[1])).max() < 1e-14


def test_product_equals_e3nn() -> None:
    """The dense product with external weights is e3nn's 'uuu' TensorProduct."""
    node, out = Layout.natural(2), Layout.of_products(2)
    product = ChannelwiseProduct(node, node, out)
    channels, count = 3, 5
    left, right = (torch.randn(count, node.dim, channels, dtype=torch.float64) for _ in range(2))
    weights = torch.randn(count, product.n_paths, channels, dtype=torch.float64)
    ours = product(left, right, weights)
    expected = torch.zeros_like(ours)
    path = 0
    for index, (ang, parity) in enumerate(out.irreps):
        for l1 in range(3):
            for l2 in range(3):
                if (-1) ** (l1 + l2) != parity or not abs(l1 - l2) <= ang <= l1 + l2:
                    continue
                symbol = e3nn.o3.wigner_3j(l1, l2, ang, dtype=torch.float64) * (2 * ang + 1) ** 0.5
                term = torch.einsum(
                    "zac,zbc,abm->zmc", left[:, l1**2 : (l1 + 1) ** 2], right[:, l2**2 : (l2 + 1) ** 2], symbol
                )
                expected[:, out.slices[index]] += term * weights[:, path, None]
                path += 1
    assert path == product.n_paths == 19
    assert (ours - expected).abs().max() < TIGHT


@pytest.mark.parametrize("lmax", [1, 2, 3])
def test_convolution_is_the_tensor_product_with_harmonics(lmax: int) -> None:
    """For each m-weight there are path weights that give e3nn's 'uvu' product, and the other way round."""
    layout = Layout.natural(lmax)
    convolution = FrameConvolution(layout)
    bonds = vectors(4)
    matrices = wigner_matrices(bond_rotations(bonds), lmax)
    source = torch.randn(len(bonds), layout.dim, 2, dtype=torch.float64)
    weights = torch.randn(len(bonds), convolution.n_weights, 2, dtype=torch.float64)
    ours = convolution(source, matrices, weights)
    n_paths = 0
    expected = torch.zeros_like(ours)
    for l3 in range(lmax + 1):
        for l1 in range(lmax + 1):
            per_m = torch.stack(
                [weights[:, index] for index, path in enumerate(convolution.paths) if path[:2] == (l1, l3)], dim=1
            )
            degrees = list(range(abs(l1 - l3), l1 + l3 + 1, 2))
            n_paths += len(degrees)
            # in the frame, path l2 scales the component m by its coupling <l1 m l2 0 | l3 m>
            scale = torch.tensor(
                [[coupling(l1, l2, l3)[l1 + m, l2, l3 + m] for l2 in degrees] for m in range(min(l1, l3) + 1)],
                dtype=torch.float64,
            )
            path_weights = torch.linalg.solve(scale, per_m)
            for number, l2 in enumerate(degrees):
                bond = e3nn.o3.spherical_harmonics(l2, bonds[:, TO_E3NN], normalize=True, normalization="norm")
                term = torch.einsum(
                    "zac,zb,abm->zmc",
                    source[:, l1**2 : (l1 + 1) ** 2],
                    bond,
                    torch.from_numpy(coupling(l1, l2, l3)),
                )
                expected[:, l3**2 : (l3 + 1) ** 2] += term * path_weights[:, number, None]
    assert n_paths == convolution.n_weights
    assert (ours - expected).abs().max() < 1e-10


@pytest.mark.parametrize("proper", [True, False])
def test_layers_commute_with_rotations_and_inversion(proper: bool) -> None:
    layout, channels = Layout.of_products(2), 6
    rotation = torch.from_numpy(Rotation.random(random_state=9).as_matrix())
    matrix = wigner(rotation, layout, proper)
    features = torch.randn(11, layout.dim, channels, dtype=torch.float64)
    for layer in (Linear(layout, channels, channels).double(), NormGate(layout, channels, 8).double()):
        assert (layer(matrix @ features) - matrix @ layer(features)).abs().max() < 1e-11
        assert (layer(features) - features).abs().max() > 1e-2


def test_radial_functions_vanish_smoothly() -> None:
    radial = ExponentialBernstein(16, 5.0).double()
    distances = torch.tensor([0.4, 1.0, 4.999, 5.0, 7.0], dtype=torch.float64)
    values = radial(distances)
    assert torch.isfinite(values).all()
    assert values[3:].abs().max() == 0
    assert values[2].abs().max() < 1e-100
    inside = torch.linspace(0.3, 4.9, 200, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(smooth_cutoff(inside, 5.0).sum(), inside)
    assert (slope <= 0).all()
    # Bernstein polynomials are a partition of unity before the cutoff
    total = radial(inside.detach()).sum(dim=1) / smooth_cutoff(inside.detach(), 5.0)
    assert (total - 1).abs().max() < 1e-10


def test_norms_never_magnify_below_their_floor() -> None:
    """Above the floor nothing changes; below it, small features stay small in proportion."""
    large, small = 3.0 * torch.randn(5, 9, 4, dtype=torch.float64), 1e-3 * torch.randn(5, 9, 4, dtype=torch.float64)
    assert torch.equal(root_mean_square_norm(large, 0.5), root_mean_square_norm(large))
    assert torch.allclose(root_mean_square_norm(small, 0.5), small / 0.5, rtol=1e-5)
    assert root_mean_square_norm(small).abs().max() > 1
    plain, floored = FloorLayerNorm(36, 0.0).double(), FloorLayerNorm(36, 0.5).double()
    with torch.no_grad():
        for norm in (plain, floored):
            norm.weight.copy_(torch.linspace(0.5, 2.0, 36))
            norm.bias.copy_(torch.linspace(-1.0, 1.0, 36))
    rows, faint = large.flatten(1), small.flatten(1)
    assert torch.allclose(floored(rows), plain(rows), rtol=TIGHT)
    assert torch.allclose(plain(rows), torch.nn.functional.layer_norm(rows, (36,), plain.weight, plain.bias))
    centred = (faint - faint.mean(dim=1, keepdim=True)) / 0.5
    assert torch.allclose(floored(faint), centred * plain.weight + plain.bias, rtol=1e-4)
    assert plain(faint).abs().max() > 1.5 > floored(faint).abs().max()


def test_an_irrep_that_no_product_reaches_stays_zero() -> None:
    """s and p functions on both sides make no 3o: spinors ask for irreps that small shells do not couple to."""
    nodes, out = Layout.natural(1), Layout(((0, 1), (1, -1), (3, -1)))
    product = ChannelwiseProduct(nodes, nodes, out)
    left, right = torch.randn(2, 5, nodes.dim, 4)
    found = product(left, right, torch.randn(5, product.n_paths, 4))
    assert found.shape == (5, out.dim, 4)
    assert found[:, : out.slices[1].stop].abs().min() > 0.0
    assert not found[:, out.slices[2]].any()
