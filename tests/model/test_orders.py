"""Orders and signs of orbitals, proved on matrices that the programs made.

The main oracle needs no table: an overlap is a two-centre integral, so in the frame of its bond it vanishes between functions
of different m. Turn each stored block into its bond frame by Wigner matrices; a wrong place or sign of any p, d or f function
leaves entries off the diagonal as large as the overlap itself.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyscf import gto
from scipy.linalg import block_diag

from model.blocks.block_set import BlockSet
from model.blocks.matrices import cut_matrix
from model.errors import UnsupportedBasisError
from model.formats.registry import entries, read
from model.nn.frames import bond_rotations, wigner_matrices
from model.orbitals.orders import ORDERS, OrbitalOrder, m_of_position
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import Structure

EXACT = 1e-14
TWO_CENTRE = {"pyscf": 1e-13, "openmx": 1e-11, "siesta": 1e-8, "abacus": 1e-8}
"""Largest |S| between different m in the bond frame; grids and printed digits of the programs."""
PAW_THREE_CENTRE = 2e-2
"""GPAW's overlaps have three-centre parts: up to 8e-3 in graphene."""
H2O_ROTATION_HARTREE = 3.2e-4 / 27.2114
"""Four runs of one molecule by DeepH-dock's authors differ by 3.1e-4 eV after the rotation, 94 eV without it."""

CRYSTALS = Path(
    os.environ.get("TRACEGRAD_CRYSTALS", Path(__file__).resolve().parents[3] / "shared" / "data" / "crystals")
)


def stored(name: str) -> Path:
    path = CRYSTALS / name
    if not path.exists():
        pytest.skip(f"{name} is not there (set TRACEGRAD_CRYSTALS; docs/datasets.md)")
    return path


def off_diagonal_in_bond_frames(overlap: BlockSet, order: str | None = None) -> tuple[float, float]:
    """Largest |S| between different m in the bond frames, and largest |S| of all off-site blocks.

    ``order`` claims another order for the same numbers than the file's own.
    """
    space = overlap.space if order is None else OrbitalSpace("claimed", overlap.space.shells, order=order)
    standard = BlockSet(space, overlap.numbers, overlap.pairs, overlap.values).in_order("e3nn")
    far = np.flatnonzero(overlap.pairs.distances_angstrom > 0.1)
    rotations = bond_rotations(torch.from_numpy(overlap.pairs.vectors_angstrom[far]))
    highest = max(max(shells) for shells in space.shells.values())
    wigner = [matrix.numpy() for matrix in wigner_matrices(rotations, highest)]
    wrong, largest = 0.0, 0.0
    for item, pair in enumerate(far.tolist()):
        z1, z2 = (int(overlap.numbers[side[pair]]) for side in (overlap.pairs.first, overlap.pairs.second))
        left = block_diag(*(wigner[ang][item] for ang in space.shells_of(z1)))
        right = block_diag(*(wigner[ang][item] for ang in space.shells_of(z2)))
        turned = left @ standard.block(pair)[0] @ right.T
        m1, m2 = (np.concatenate([np.arange(-ang, ang + 1) for ang in space.shells_of(z)]) for z in (z1, z2))
        wrong = max(wrong, float(np.abs(turned[m1[:, None] != m2[None, :]]).max(initial=0.0)))
        largest = max(largest, float(np.abs(turned).max()))
    return wrong, largest


def pyscf_overlap() -> BlockSet:
    """Two unlike atoms with shells up to f, on a bond along no axis."""
    structure = Structure.from_symbols(["O", "C"], [[0.0, 0.0, 0.0], [0.7, -0.5, 0.9]])
    mole = gto.M(atom=[("O", (0.0, 0.0, 0.0)), ("C", (0.7, -0.5, 0.9))], basis="cc-pvtz", unit="Angstrom", verbose=0)
    shells = {8: (0, 0, 0, 0, 1, 1, 1, 2, 2, 3), 6: (0, 0, 0, 0, 1, 1, 1, 2, 2, 3)}
    space = OrbitalSpace("cc-pvtz", shells)
    return cut_matrix(space, structure.numbers, PairList.complete(structure), mole.intor("int1e_ovlp"))


SOURCES = {
    "pyscf": lambda: pyscf_overlap(),
    "openmx": lambda: read(stored("public/deeph_dock/MoTe2_legacy")).overlap,
    "siesta": lambda: read(stored("public/sisl_files/Bi_hexagonal")).overlap,
    "abacus": lambda: read(stored("public/deeph_dock/MoS2_abacus_raw")).overlap,
}


@pytest.mark.parametrize("order", list(SOURCES))
def test_a_programs_overlaps_are_diagonal_in_m_along_the_bond(order: str) -> None:
    if order == "siesta":
        pytest.importorskip("sisl")
    overlap = SOURCES[order]()
    assert overlap is not None
    assert overlap.space.order == order
    wrong, largest = off_diagonal_in_bond_frames(overlap)
    assert wrong < TWO_CENTRE[order]
    assert largest > 0.1
    for other in ORDERS:
        shells = set(itertools.chain(*overlap.space.shells.values()))
        same = all(
            m_of_position(other, ang) == m_of_position(order, ang)
            and np.array_equal(OrbitalOrder.of([ang], other).sign, OrbitalOrder.of([ang], order).sign)
            for ang in shells
        )
        if not same and (other != "pyscf" or all(list(ls) == sorted(ls) for ls in overlap.space.shells.values())):
            assert off_diagonal_in_bond_frames(overlap, other)[0] > 1e-2, f"{other} should not fit"


@pytest.mark.parametrize("name", ["graphene_dzp.h5", "hbn_dzp.h5", "bismuthene_soc.h5", "cp2k_dzvp.h5"])
def test_own_crystals_are_in_openmx_s_order(name: str) -> None:
    overlap = entries(stored(name))[0].read().overlap
    assert overlap is not None
    wrong, largest = off_diagonal_in_bond_frames(overlap)
    assert wrong < PAW_THREE_CENTRE * largest
    assert off_diagonal_in_bond_frames(overlap, "e3nn")[0] > 10 * PAW_THREE_CENTRE * largest


def test_water_in_four_orientations() -> None:
    """H of one molecule turns with it, by our own order table and Wigner matrices."""
    frames = [read(stored(f"public/deeph_dock/H2O_rotated/{k}")) for k in range(4)]
    first = frames[0]
    assert first.hamiltonian is not None
    for frame in frames[1:]:
        assert frame.hamiltonian is not None
        matrix = rotation_between(first.structure.positions_angstrom, frame.structure.positions_angstrom)
        wigner = [d[0].numpy() for d in wigner_matrices(torch.from_numpy(matrix)[None], 2)]
        worst, unturned = 0.0, 0.0
        for pair in range(len(first.hamiltonian.pairs)):
            z1, z2 = (
                int(first.structure.numbers[side[pair]])
                for side in (first.hamiltonian.pairs.first, first.hamiltonian.pairs.second)
            )
            left, right = (block_diag(*(wigner[ang] for ang in first.space.shells_of(z))) for z in (z1, z2))
            block, other = first.hamiltonian.block(pair)[0], frame.hamiltonian.block(pair)[0]
            worst = max(worst, float(np.abs(left @ block @ right.T - other).max()))
            unturned = max(unturned, float(np.abs(block - other).max()))
        assert worst < H2O_ROTATION_HARTREE
        assert unturned > 1.0


def rotation_between(before: Any, after: Any) -> np.ndarray:
    """Proper rotation that turns one set of positions into the other (Kabsch)."""
    u, _, vt = np.linalg.svd((before - before.mean(axis=0)).T @ (after - after.mean(axis=0)))
    sign = np.sign(np.linalg.det(vt.T @ u.T))
    return np.asarray(vt.T @ np.diag([1.0, 1.0, sign]) @ u.T)


def test_orca_s_published_table() -> None:
    """m = 0, +1, -1, +2, -2, ...; |m| = 3 and 4 turned (as iodata reads ORCA's files); no ORCA matrix was at hand."""
    order = OrbitalOrder.of([1, 2, 3, 4], "orca")
    assert m_of_position("orca", 2) == (0, 1, -1, 2, -2)
    labels = {ang: m_of_position("orca", ang) for ang in (1, 2, 3, 4)}
    turned = {ang: [m for m in labels[ang] if OrbitalOrder.of([ang], "orca").sign[m + ang] < 0] for ang in labels}
    assert turned == {1: [], 2: [], 3: [3, -3], 4: [3, -3, 4, -4]}
    assert (order.sign < 0).any()


def test_gpaw_is_the_standard_order() -> None:
    """gpaw.spherical_harmonics: l = 1 is y, z, x; l = 2 is xy, yz, 3z2-r2, zx, x2-y2; no signs."""
    order = OrbitalOrder.of([0, 1, 2, 3], "gpaw")
    assert np.array_equal(order.index, np.arange(16))
    assert (order.sign > 0).all()


@pytest.mark.parametrize("order", ORDERS)
def test_there_and_back(order: str) -> None:
    shells = [0, 1, 2, 3, 4]
    forward = OrbitalOrder.of(shells, order)
    values = np.random.default_rng(0).normal(size=25)
    standard = forward.sign * values[forward.index]
    back = forward.inverse()
    assert np.abs(back.sign * standard[back.index] - values).max() < EXACT


def test_an_unknown_order_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedBasisError, match="vasp"):
        OrbitalOrder.of([0, 1], "vasp")
