"""Sectors of equal |m|: what holds in a bond's frame, with e3nn's and SciPy's rotations as oracles."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from model.architectures.qhnetv2 import network as qhnetv2
from model.architectures.qhnetv2.config import QHNetV2Config
from model.checkpoint import store
from model.errors import CheckpointError
from model.nn.frames import WignerMatrices, bond_rotations
from model.nn.irreps import CoefficientLayout, Layout
from model.nn.so2 import (
    FrameMatrices,
    SectorLayout,
    SectorLinear,
    SectorProduct,
    Sectors,
    root_mean_square_norm,
    rotate,
)
from model.structure import Structure
from model.tracegrad.gradient import GradientFeature
from model.tracegrad.invariants import SectorScalars
from tests.conftest import RELEASED

ROUNDING = 1e-11
LAYOUT = Layout.of_products(2)
CHANNELS = 3


def features(layout: Layout, items: int, channels: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(items, 2 * ang + 1, channels, dtype=torch.float64, generator=generator) for ang, _ in layout.irreps
    ]


def moved(parts: list[Tensor], matrix: np.ndarray, layout: Layout) -> list[Tensor]:
    """Irreps under an orthogonal matrix: the proper rotation's Wigner matrix, and the parity if it is improper."""
    proper = np.linalg.det(matrix) > 0
    rotation = torch.from_numpy(matrix if proper else -matrix).unsqueeze(0)
    wigner = [w.expand(len(parts[0]), -1, -1) for w in WignerMatrices(4)(rotation)]
    turned = rotate(parts, wigner, layout)
    return [part * (1 if proper else parity) for part, (_, parity) in zip(turned, layout.irreps, strict=True)]


ABOUT_THE_POLE = {
    "rotation": Rotation.from_euler("z", 0.7).as_matrix(),
    "mirror": np.diag([1.0, -1.0, 1.0]),
    "turned mirror": Rotation.from_euler("z", 1.9).as_matrix() @ np.diag([-1.0, 1.0, 1.0]),
}


def test_sectors_and_irreps_are_the_same_thing() -> None:
    layout = SectorLayout(LAYOUT, CHANNELS)
    parts = features(LAYOUT, 5, CHANNELS)
    sectors = layout.split(parts)
    assert [tuple(sector.shape[1:]) for sector in sectors] == list(zip(layout.dims, layout.widths, strict=True))
    for before, after in zip(parts, layout.join(sectors), strict=True):
        assert torch.equal(before, after)


def test_sectors_with_a_channel_count_for_each_irrep() -> None:
    counts = [2, 5, 1, 3, 4, 2, 1, 6]
    parts = [part[..., :1].repeat(1, 1, count) for part, count in zip(features(LAYOUT, 4, 1), counts, strict=True)]
    layout = SectorLayout(LAYOUT, counts)
    assert all(torch.equal(a, b) for a, b in zip(parts, layout.join(layout.split(parts)), strict=True))


@torch.no_grad()
def law(function: Callable[[Sectors], Sectors], matrix: np.ndarray) -> float:
    """Largest violation of f(moved x) = moved f(x) under a motion that keeps the pole."""
    into, out = SectorLayout(LAYOUT, CHANNELS), SectorLayout(LAYOUT, CHANNELS)
    parts = features(LAYOUT, 6, CHANNELS)
    direct = out.join(function(into.split(moved(parts, matrix, LAYOUT))))
    after = moved(out.join(function(into.split(parts))), matrix, LAYOUT)
    return max(float((a - b).abs().max()) for a, b in zip(direct, after, strict=True))


@pytest.mark.parametrize("motion", list(ABOUT_THE_POLE))
def test_linear_maps_obey_what_symmetry_is_left(motion: str) -> None:
    widths = SectorLayout(LAYOUT, CHANNELS).widths
    linear = SectorLinear(widths, widths, bias=True).double()
    torch.nn.init.ones_(linear.bias)
    assert law(linear, ABOUT_THE_POLE[motion]) < ROUNDING


def test_linear_maps_do_mix_degrees_and_parities() -> None:
    """They are not maps of SO(3): a vector along the pole may turn into a scalar, a 1o pair into a 2o pair."""
    torch.manual_seed(3)  # no weight happens to be tiny
    layout = SectorLayout(LAYOUT, 1)
    linear = SectorLinear(layout.widths, layout.widths).double()
    parts = [torch.zeros(1, 2 * ang + 1, 1, dtype=torch.float64) for ang, _ in LAYOUT.irreps]
    parts[LAYOUT.irreps.index((1, -1))][0, :, 0] = 1.0
    with torch.no_grad():
        out = layout.join(linear(layout.split(parts)))
    assert all(float(part.abs().max()) > 1e-3 for part in out if part.shape[1] > 1)


@pytest.mark.parametrize("motion", list(ABOUT_THE_POLE))
def test_product_obeys_what_symmetry_is_left(motion: str) -> None:
    product = SectorProduct(4, 4).double()
    widths = SectorLayout(LAYOUT, CHANNELS).widths
    factors = SectorLinear(widths, [2 * width for width in product.widths]).double()
    back = SectorLinear(product.widths, widths).double()
    assert law(lambda x: back(product(factors(x))), ABOUT_THE_POLE[motion]) < ROUNDING


def test_product_is_bilinear_and_couples_orders() -> None:
    """m = 1 times m = 2 gives m = 3 and m = 1 and nothing else."""
    product = SectorProduct(4, 2).double().requires_grad_(False)
    zero = [torch.zeros(1, dim, 2, dtype=torch.float64) for dim in (1, 1, 2, 2, 2, 2)]
    left, right = list(zero), list(zero)
    left[2], right[3] = torch.randn(1, 2, 2).double(), torch.randn(1, 2, 2).double()
    out = product(side_by_side(left, right))
    assert [float(part.abs().max()) > 0 for part in out] == [False, False, True, False, True, False]
    doubled = product(side_by_side([2 * part for part in left], right))
    assert all(torch.allclose(2 * a, b) for a, b in zip(out, doubled, strict=True))


def side_by_side(left: list[Tensor], right: list[Tensor]) -> Sectors:
    """Two features as the factors of a product."""
    return tuple(torch.cat(parts, dim=-1) for parts in zip(left, right, strict=True))


def test_product_is_that_of_complex_numbers() -> None:
    """Each sector pair is a complex number, and a path m1, m2 multiplies two, or one with the other's conjugate."""
    lmax, channels = 4, 2
    product = SectorProduct(lmax, channels).double().requires_grad_(False)
    torch.manual_seed(2)
    left, right = ([torch.randn(3, dim, channels).double() for dim in (1, 1, 2, 2, 2, 2)] for _ in range(2))
    one, other = (
        [torch.complex(x[0], x[1]).squeeze(1)] + [torch.complex(part[:, 0], part[:, 1]) for part in x[2:]]
        for x in (left, right)
    )
    weights = iter(product.weight)
    terms: list[list[Tensor]] = [[] for _ in range(lmax + 1)]
    for a in range(lmax + 1):
        for b in range(lmax + 1 - a):
            terms[a + b].append(next(weights) * one[a] * other[b])
    for a in range(1, lmax + 1):
        for b in range(1, lmax + 1):
            turned = one[a] * other[b].conj() if a >= b else one[a].conj() * other[b]
            terms[abs(a - b)].append(next(weights) * turned)
    out = product(side_by_side(left, right), torch.full((3, 1, 1), 0.5).double())
    found = torch.cat(out, dim=1).unflatten(1, (-1, 2))
    for m, parts in enumerate(terms):
        expected = 0.25 * sum(parts) / len(parts) ** 0.5
        assert torch.allclose(torch.complex(found[:, m, 0], found[:, m, 1]), expected, atol=ROUNDING)


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler")
def test_compiled_gradient_of_the_norm_is_that_of_the_plain_one() -> None:
    """torch 2.13 got it wrong, by its whole size, for another way to add the sectors' squares; a run was lost to it."""
    layout = SectorLayout(Layout.of_products(2), 48)
    sectors = [torch.randn(37, dim, width) for dim, width in zip(layout.dims, layout.widths, strict=True)]
    pull = [torch.randn_like(sector) for sector in sectors]

    def normed(*sectors: Tensor) -> Sectors:
        return root_mean_square_norm(sectors)

    found = []
    for function in (normed, torch.compile(normed, dynamic=True)):
        leaves = [sector.clone().requires_grad_() for sector in sectors]
        sum(
            ((out * weight).sum() for out, weight in zip(function(*leaves), pull, strict=True)), torch.zeros(())
        ).backward()
        found.append(torch.cat([leaf.grad.flatten() for leaf in leaves if leaf.grad is not None]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_matrices_sort_by_sector_what_rotations_turn() -> None:
    """One matrix per item is the same as a rotation per l followed by a split into sectors, and its transpose undoes it."""
    layout = SectorLayout(LAYOUT, CHANNELS)
    parts = features(LAYOUT, 3, CHANNELS)
    rotations = torch.from_numpy(Rotation.random(3, random_state=1).as_matrix())
    wigner = WignerMatrices(4)(rotations)
    matrices = FrameMatrices(layout)(wigner)
    rows = matrices @ torch.cat(parts, dim=1)
    sectors = layout.of_rows(rows)
    for a, b in zip(sectors, layout.split(rotate(parts, wigner, LAYOUT)), strict=True):
        assert torch.allclose(a, b, atol=ROUNDING)
    assert torch.equal(layout.to_rows(sectors), rows)
    assert torch.allclose(matrices.mT @ rows, torch.cat(parts, dim=1), atol=ROUNDING)


def test_gradient_feature_in_the_frame_is_the_derivative() -> None:
    layout = SectorLayout(LAYOUT, CHANNELS)
    feature = GradientFeature(SectorScalars(layout, 5), 5, 8, 7).double()
    sectors = layout.split(features(LAYOUT, 4, CHANNELS))
    z, v = feature(sectors)
    z_again, expected = feature.by_autograd(sectors)
    assert torch.allclose(z, z_again, atol=ROUNDING)
    assert max(float((a - b).detach().abs().max()) for a, b in zip(v, expected, strict=True)) < ROUNDING
    assert max(float(part.detach().abs().max()) for part in v) > 1e-3


@pytest.mark.parametrize("motion", list(ABOUT_THE_POLE))
def test_scalars_in_the_frame_are_invariant(motion: str) -> None:
    layout = SectorLayout(LAYOUT, CHANNELS)
    scalars = SectorScalars(layout, 6).double()
    parts = features(LAYOUT, 4, CHANNELS)
    before = scalars(layout.split(parts))[0]
    after = scalars(layout.split(moved(parts, ABOUT_THE_POLE[motion], LAYOUT)))[0]
    assert torch.allclose(before, after, atol=ROUNDING)


@pytest.fixture(scope="module")
def backbone() -> qhnetv2.QHNetV2:
    """A small backbone of random weights."""
    from model.blocks.spaces import BlockSpace

    torch.manual_seed(3)
    config = QHNetV2Config(
        node_channels=6, pair_channels=6, exchange_channels=4, frame_channels=6, product_channels=4, layers=2, hidden=12
    )
    coefficients: CoefficientLayout = BlockSpace.of(store.load(RELEASED).card.space().template).coefficients
    made = qhnetv2.QHNetV2(config, coefficients, 5).double()
    with torch.no_grad():
        for weight in (*made.diagonal_read_out.linear.weights, *made.pair_read_out.linear.weights):
            weight.normal_()
    return made


def test_floors_of_norms_are_one_for_each_layer_and_one_for_the_read_out() -> None:
    config = QHNetV2Config(layers=2)
    assert config.floors == (0.0, 0.0, 0.0)
    listed: Any = [0.5, 30, 20.0]  # as a run file has them
    assert QHNetV2Config(layers=2, norm_floors=listed).norm_floors == (0.5, 30, 20.0)
    for wrong in ((1.0,), (1.0, 1.0), (1.0, -1.0, 1.0)):
        with pytest.raises(CheckpointError, match="norm_floors"):
            QHNetV2Config(layers=2, norm_floors=wrong)


def test_floors_of_norms_change_what_is_below_them_only(backbone: qhnetv2.QHNetV2) -> None:
    """Tiny floors change nothing; huge ones do, in all three places, and nothing blows up."""
    structure = Structure(np.array([8, 1, 1]), np.array([[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]]))
    before = run(backbone, [structure])
    for place in range(3):
        for floor, same in ((1e-9, True), (1e3, False)):
            floors = [0.0, 0.0, 0.0]
            floors[place] = floor
            other = qhnetv2.QHNetV2(
                replace(backbone.config, norm_floors=tuple(floors)), backbone.pair_input.coefficients, 5
            ).double()
            other.load_state_dict(backbone.state_dict())
            diagonal = run(other, [structure])[0]
            assert torch.isfinite(diagonal).all()
            assert torch.allclose(diagonal, before[0]) == same, (place, floor)


@torch.no_grad()
def run(backbone: qhnetv2.QHNetV2, structures: list[Structure]) -> tuple[Tensor, Tensor]:
    """Coefficients of a batch; inputs are the same random numbers for every molecule, scalars only."""
    from model.architectures.interface import InputCoefficients
    from model.pairs.graph import build_graph

    graph = build_graph(structures, cutoff_angstrom=15.0, dtype=torch.float64)
    atom_type = torch.searchsorted(torch.tensor([1, 6, 7, 8, 9]), graph.numbers)
    inputs = InputCoefficients(
        torch.zeros(graph.n_atoms, 3, 196, dtype=torch.float64), torch.zeros(graph.n_pairs, 3, 196, dtype=torch.float64)
    )
    features, context = backbone.start(graph, inputs, atom_type)
    for index in range(backbone.n_blocks):
        features = backbone.block(index, graph, features, context)
    return backbone.read_out(graph, features, context)


def test_the_turn_of_a_frame_about_its_bond_drops_out(
    backbone: qhnetv2.QHNetV2, molecule: Callable[[str], Structure], monkeypatch: pytest.MonkeyPatch
) -> None:
    structures = [molecule("CH3CH2OH"), molecule("H2O")]
    before = run(backbone, structures)

    def turned(vectors: Tensor) -> Tensor:
        angles = np.random.default_rng(5).uniform(0, 6.3, len(vectors))
        return torch.from_numpy(Rotation.from_euler("z", angles[:, None]).as_matrix()) @ bond_rotations(vectors)

    monkeypatch.setattr(qhnetv2, "bond_rotations", turned)
    after = run(backbone, structures)
    for a, b in zip(before, after, strict=True):
        assert float(a.abs().max()) > 1e-2
        assert float((a - b).abs().max()) < ROUNDING


def test_no_direction_is_special(backbone: qhnetv2.QHNetV2) -> None:
    """A bond swept through the pole and the axes, in steps down to 1e-9: what it predicts is rotated, never jumps."""
    numbers = np.array([7, 8, 1])
    shape = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.2], [0.9, 0.0, -0.6]])
    reference = run(backbone, [Structure(numbers, shape)])
    invariants = [part.square().sum(dim=-1) for part in reference]
    angles = [0.0, 1e-9, 1e-6, 1e-3, 0.3, np.pi / 4 - 1e-9, np.pi / 4 + 1e-9, np.pi / 2 - 1e-9, np.pi / 2, np.pi]
    for axis in ("x", "y", "z"):
        turned = [Structure(numbers, shape @ Rotation.from_euler(axis, angle).as_matrix().T) for angle in angles]
        for structure in turned:
            for part, expected in zip(run(backbone, [structure]), invariants, strict=True):
                off = (part.square().sum(dim=-1) - expected) / (1.0 + expected)
                assert float(off.abs().max()) < ROUNDING


def test_prediction_is_continuous_where_the_nearest_neighbour_changes(backbone: qhnetv2.QHNetV2) -> None:
    """An atom moves from one neighbour to the other: steps of 1e-6 Å change coefficients by the derivative, not by a jump."""
    numbers = np.array([7, 8, 8, 1])

    def at(x: float) -> list[Tensor]:
        positions = np.array([[x, 0.1, 0.0], [-1.3, 0.0, 0.1], [1.3, 0.0, -0.1], [0.0, 1.1, 0.4]])
        return list(run(backbone, [Structure(numbers, positions)]))

    step = 1e-6
    slopes = [
        max(float((a - b).abs().max()) for a, b in zip(at(x), at(x + step), strict=True)) / step
        for x in (-0.2, -step / 2, 0.2)
    ]
    assert slopes[1] < 3 * max(slopes[0], slopes[2])


def test_messages_vanish_at_the_cutoff(backbone: qhnetv2.QHNetV2) -> None:
    """Beyond the cutoff an atom's diagonal block does not know of the other atom, and comes there smoothly."""

    def diagonal(distance: float) -> Tensor:
        numbers, positions = np.array([8, 6]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, distance]])
        return run(backbone, [Structure(numbers, positions)])[0]

    assert torch.equal(diagonal(15.001), diagonal(40.0))
    assert float((diagonal(14.9) - diagonal(15.001)).abs().max()) < ROUNDING
    assert float((diagonal(3.0) - diagonal(15.001)).abs().max()) > 1e-4
