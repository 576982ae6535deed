"""Block spaces: orthogonal, covariant under rotations of orbitals and spin together; e3nn and SU(2) as oracles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from e3nn import o3
from scipy.linalg import block_diag, expm
from scipy.spatial.transform import Rotation

from model.blocks.block_set import SPIN_PARTS, Spin
from model.blocks.spaces import BlockSpace
from model.errors import UnsupportedBasisError
from model.nn.irreps import CoefficientLayout

EXACT = 1e-14
ROUNDING = 2e-13
"""A dozen products of matrices with entries of order one."""

TEMPLATE = (0, 0, 1, 2)
SIZE = 10
PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
TREATMENTS: list[tuple[Spin, bool]] = [
    ("restricted", False),
    ("unrestricted", False),
    ("spinor", False),
    ("spinor", True),
]


@pytest.fixture(params=TREATMENTS, ids=["restricted", "unrestricted", "spinor", "spinor, time reversal"])
def space(request: pytest.FixtureRequest) -> BlockSpace:
    spin, time_reversal = request.param
    return BlockSpace.of(TEMPLATE, spin, time_reversal=time_reversal)


def wigner(ang: int, parity: int, rotation: np.ndarray, sign: int) -> np.ndarray:
    """D of sign * rotation on m = -l..l, from e3nn's spherical harmonics: Y(R x) = D Y(x)."""
    points = np.random.default_rng(0).normal(size=(4 * ang + 4, 3))

    def harmonics(at: np.ndarray) -> np.ndarray:  # e3nn's (x, y, z) is (y, z, x)
        return o3.spherical_harmonics(ang, torch.from_numpy(at[:, [1, 2, 0]].copy()), normalize=True).numpy()

    turned = np.linalg.lstsq(harmonics(points), harmonics(points @ rotation.T), rcond=None)[0].T
    return turned * (1 if sign > 0 else parity)


def on_coefficients(layout: CoefficientLayout, rotation: np.ndarray, sign: int) -> np.ndarray:
    parts = zip(layout.layout.irreps, layout.multiplicity, strict=True)
    return block_diag(*(np.kron(wigner(ang, parity, rotation, sign), np.eye(count)) for (ang, parity), count in parts))


def on_orbitals(rotation: np.ndarray, sign: int) -> np.ndarray:
    return block_diag(*(wigner(ang, (-1) ** ang, rotation, sign) for ang in TEMPLATE))


def random_values(spin: Spin, rng: np.random.Generator, *, time_reversal: bool = False) -> np.ndarray:
    """Spin parts of a block, (spin part, row, column)."""
    shape = (SPIN_PARTS[spin], SIZE, SIZE)
    if spin != "spinor":
        return rng.normal(size=shape)
    values = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    if time_reversal:  # sigma_y H* sigma_y = H
        values = 0.5 * (values + values.conj()[[3, 2, 1, 0]] * np.array([1, -1, -1, 1])[:, None, None])
    return values


def coefficients_of(space: BlockSpace, values: np.ndarray) -> np.ndarray:
    return space.to_components(values).ravel() @ space.matrix


def test_map_is_orthogonal_and_keeps_the_norm(space: BlockSpace, rng: np.random.Generator) -> None:
    matrix = space.matrix
    assert matrix.shape == (space.n_components * SIZE**2,) * 2
    assert np.abs(matrix.T @ matrix - np.eye(len(matrix))).max() < EXACT
    values = random_values(space.spin, rng, time_reversal=space.time_reversal)
    coefficients = coefficients_of(space, values)
    assert np.square(coefficients).sum() == pytest.approx(np.square(np.abs(values)).sum(), rel=ROUNDING)
    back = space.to_values((matrix @ coefficients).reshape(-1, SIZE, SIZE))
    assert np.abs(back - values).max() < ROUNDING


@pytest.mark.parametrize("sign", [1, -1], ids=["proper", "improper"])
def test_rotation_of_orbitals_and_spin_is_wigner_s_on_coefficients(
    space: BlockSpace, sign: int, rng: np.random.Generator
) -> None:
    axis_angle = rng.normal(size=3)
    rotation = Rotation.from_rotvec(axis_angle).as_matrix()
    orbitals = on_orbitals(rotation, sign)
    values = random_values(space.spin, rng, time_reversal=space.time_reversal)
    turned: Any = orbitals @ values @ orbitals.T
    if space.spin == "spinor":
        su2 = expm(-0.5j * np.tensordot(axis_angle, PAULI, axes=1))  # an inversion does nothing to spin
        turned = np.einsum("st,tuij,vu->svij", su2, turned.reshape(2, 2, SIZE, SIZE), su2.conj())
        turned = turned.reshape(4, SIZE, SIZE)
    expected = on_coefficients(space.coefficients, rotation, sign) @ coefficients_of(space, values)
    assert np.abs(coefficients_of(space, turned) - expected).max() < ROUNDING


@pytest.mark.parametrize(("left", "right", "count"), [(1, 1, 36), (1, 2, 60), (2, 2, 100)])
def test_irreps_of_a_spinor_s_block_are_those_of_the_product(left: int, right: int, count: int) -> None:
    """(l1 x l2) x (0e + 1e), twice for real and imaginary parts, once with time reversal; e3nn's own selection rules."""
    expected: dict[tuple[int, int], int] = {}
    for orbital in o3.Irrep(left, (-1) ** left) * o3.Irrep(right, (-1) ** right):
        for irrep in [orbital, *(orbital * o3.Irrep("1e"))]:
            expected[irrep.l, irrep.p] = expected.get((irrep.l, irrep.p), 0) + 1
    for time_reversal, copies in ((False, 2), (True, 1)):
        layout = BlockSpace.of((left, right), "spinor", time_reversal=time_reversal).coefficients
        found: dict[tuple[int, int], int] = {}
        at = 0
        for irrep, multiplicity in zip(layout.layout.irreps, layout.multiplicity, strict=True):
            for channel in layout.channels[at : at + multiplicity]:
                if (channel.row, channel.column) == (0, 1):
                    found[irrep] = found.get(irrep, 0) + 1
            at += multiplicity
        assert found == {irrep: copies * number for irrep, number in expected.items()}
        assert sum((2 * ang + 1) * number for (ang, _), number in found.items()) == copies * count


def test_unnatural_parities_occur() -> None:
    layout = BlockSpace.of((0, 1, 2), "spinor").coefficients.layout
    assert layout.irreps == (
        (0, 1),
        (0, -1),
        (1, -1),
        (1, 1),
        (2, 1),
        (2, -1),
        (3, -1),
        (3, 1),
        (4, 1),
        (4, -1),
        (5, 1),
    )


def test_spin_orbit_coupling_of_a_p_shell_is_one_number() -> None:
    """L.S: h_a = L_a / 2, imaginary in real orbitals; a scalar under joint rotations, so only J = 0 of Im h is there."""
    orbital = np.zeros((3, 3, 3), dtype=complex)
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):  # (L_a)_bc = -i eps_abc on x, y, z
        orbital[a, b, c], orbital[a, c, b] = -1j, 1j
    order = [1, 2, 0]
    orbital = orbital[:, order][:, :, order]
    values = 0.5 * np.einsum("aij,ast->stij", orbital, PAULI).reshape(4, 3, 3)
    assert np.linalg.eigvalsh(values.reshape(2, 2, 3, 3).transpose(0, 2, 1, 3).reshape(6, 6)) == pytest.approx(
        [-1.0, -1.0, 0.5, 0.5, 0.5, 0.5]
    )
    for time_reversal in (False, True):
        space = BlockSpace.of((1,), "spinor", time_reversal=time_reversal)
        coefficients = space.to_components(values).ravel() @ space.matrix
        (only,) = np.flatnonzero(np.abs(coefficients) > EXACT)
        channel = space.coefficients.channels[space.channel_of_coefficient[only]]
        assert space.coefficients.terms[channel.term].name == "Im h"
        assert channel.orbital == 1
        assert space.coefficients.layout.irreps[0] == (0, 1)
        assert only < space.coefficients.multiplicity[0], "J = 0"


def test_time_reversal_leaves_half(rng: np.random.Generator) -> None:
    values = random_values("spinor", rng, time_reversal=True)
    whole, half = BlockSpace.of(TEMPLATE, "spinor"), BlockSpace.of(TEMPLATE, "spinor", time_reversal=True)
    components = whole.to_components(values)
    assert np.abs(components[[1, 2, 3, 4]]).max() < EXACT, "Re h and Im h0"
    assert np.array_equal(components[[0, 5, 6, 7]], half.to_components(values))
    assert 2 * half.matrix.shape[1] == whole.matrix.shape[1]


def test_a_flip_of_all_spins_turns_the_difference_only(rng: np.random.Generator) -> None:
    space = BlockSpace.of(TEMPLATE, "unrestricted")
    values = random_values("unrestricted", rng)
    before, after = coefficients_of(space, values), coefficients_of(space, values[::-1])
    names = np.array([space.coefficients.terms[channel.term].name for channel in space.coefficients.channels])
    is_difference = (names == "difference")[space.channel_of_coefficient]
    assert np.abs(after - np.where(is_difference, -before, before)).max() < ROUNDING


def test_traces_are_sums_of_squares_of_sub_blocks(space: BlockSpace, rng: np.random.Generator) -> None:
    values = random_values(space.spin, rng, time_reversal=space.time_reversal)
    squares = np.square(coefficients_of(space, values))
    found = np.bincount(space.trace_index(), squares, minlength=space.n_traces)
    components = space.to_components(values)
    groups = {
        "restricted": [[0]],
        "unrestricted": [[0], [1]],
        "spinor": [[0], [1, 2, 3]] if space.time_reversal else [[0, 4], [1, 2, 3, 5, 6, 7]],
    }[space.spin]
    edges = [0, 1, 2, 5, 10]
    expected = [
        np.square(components[group, edges[a] : edges[a + 1], edges[b] : edges[b + 1]]).sum()
        for group in groups
        for a in range(4)
        for b in range(4)
    ]
    assert np.abs(found - expected).max() < ROUNDING * max(expected)


def test_adjoint_of_components(space: BlockSpace, rng: np.random.Generator) -> None:
    values = random_values(space.spin, rng, time_reversal=space.time_reversal)
    adjoint = values.conj().transpose(0, 2, 1)
    if space.spin == "spinor":
        adjoint = adjoint[[0, 2, 1, 3]]
    expected = space.adjoint_sign[:, None, None] * space.to_components(values).transpose(0, 2, 1)
    assert np.abs(space.to_components(adjoint) - expected).max() < EXACT


def test_refuses() -> None:
    with pytest.raises(UnsupportedBasisError, match="restricted, unrestricted, spinor"):
        BlockSpace.of(TEMPLATE, "collinear")  # type: ignore[arg-type]
    with pytest.raises(UnsupportedBasisError, match="spinors only"):
        BlockSpace.of(TEMPLATE, "unrestricted", time_reversal=True)
