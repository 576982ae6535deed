"""Pairs and blocks: closed under reversal, matrices from blocks and back, orders of programs, k-points; PySCF as oracle."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene
from ase.neighborlist import neighbor_list
from pyscf import gto
from pyscf.pbc import gto as pbc_gto

from model.blocks.block_set import BlockSet, stack_blocks
from model.blocks.matrices import cut_matrix, dense_matrix, sparse_matrix
from model.errors import StructureError
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import Structure

EXACT = 1e-14
INTEGRAL_TOLERANCE = 1e-9
"""PySCF's lattice sums are cut at about 1e-10."""

SPACE = OrbitalSpace("def2-svp", {1: (0, 0, 1), 6: (0, 0, 0, 1, 1, 2), 8: (0, 0, 0, 1, 1, 2)})
WATER = Structure.from_symbols(["H", "O", "H"], [[0.0, 0.76, -0.48], [0.1, 0.0, 0.12], [0.0, -0.76, -0.48]])


def crystal(atoms: Atoms) -> Structure:
    return Structure(
        atoms.numbers, atoms.positions, cell_angstrom=np.asarray(atoms.cell), pbc=tuple(atoms.pbc.tolist())
    )


@pytest.fixture(scope="module")
def sheet() -> Structure:
    atoms = graphene(vacuum=6.0)
    atoms.pbc = (True, True, False)
    atoms.rattle(0.05, seed=3)
    return crystal(atoms)


def test_pairs_of_a_crystal_are_ase_s(sheet: Structure) -> None:
    pairs = PairList.within(sheet, 7.0)
    from ase import Atoms

    atoms = Atoms(sheet.numbers, sheet.positions_angstrom, cell=sheet.cell_angstrom, pbc=sheet.pbc)
    i, j, shift = neighbor_list("ijS", atoms, 7.0)
    expected = {tuple(key) for key in np.column_stack([i, j, shift]).tolist()}
    assert {tuple(key) for key in pairs.keys[len(sheet) :].tolist()} == expected
    assert len(pairs) == len(expected) + len(sheet)
    d = (
        sheet.positions_angstrom[pairs.second]
        + pairs.shift @ sheet.cell_angstrom
        - sheet.positions_angstrom[pairs.first]
    )
    assert np.abs(d - pairs.vectors_angstrom).max() < EXACT
    assert (pairs.first == pairs.second)[len(sheet) :].any(), "an atom is its own neighbour in the next cell"


def test_reverse_leads_back(sheet: Structure) -> None:
    for pairs in (PairList.within(sheet, 6.0), PairList.complete(WATER)):
        back = pairs.reverse
        assert np.array_equal(back[back], np.arange(len(pairs)))
        assert np.array_equal(pairs.first[back], pairs.second)
        assert np.array_equal(pairs.shift[back], -pairs.shift)
        assert np.array_equal(back[: pairs.n_atoms], np.arange(pairs.n_atoms))


def test_of_makes_a_list_whole_and_refuses_repeats(sheet: Structure) -> None:
    whole = PairList.within(sheet, 4.0)
    half = whole.keys[whole.keys[:, 0] <= whole.keys[:, 1]]
    again = PairList.of(sheet, half[:, 0], half[:, 1], half[:, 2:])
    assert np.array_equal(again.keys, whole.keys)
    with pytest.raises(StructureError, match="twice"):
        PairList.of(sheet, [0, 0], [1, 1], [[0, 0, 0], [0, 0, 0]])
    with pytest.raises(StructureError, match="no cell"):
        PairList.of(WATER, [0], [1], [[1, 0, 0]])
    with pytest.raises(StructureError, match="beyond"):
        PairList.of(WATER, [0], [3], [[0, 0, 0]])


def test_listed_pairs_cover_every_block_once(sheet: Structure) -> None:
    pairs = PairList.complete(WATER)
    listed = pairs.once(WATER.numbers)
    covered = set(listed.tolist()) | set(pairs.reverse[listed].tolist()) | set(range(pairs.n_atoms))
    assert covered == set(range(len(pairs)))
    assert all(WATER.numbers[pairs.first[p]] >= WATER.numbers[pairs.second[p]] for p in listed)


def test_cutoff_by_element_pair() -> None:
    pairs = PairList.within(WATER, lambda a, b: 1.2 if a != b else 0.5)
    assert sorted(map(tuple, pairs.keys[3:, :2].tolist())) == [(0, 1), (1, 0), (1, 2), (2, 1)]


def test_matrix_to_blocks_and_back() -> None:
    mole = gto.M(
        atom=list(zip(["H", "O", "H"], WATER.positions_angstrom.tolist(), strict=True)), basis="def2-svp", verbose=0
    )
    core = mole.intor("int1e_kin") + mole.intor("int1e_nuc")
    blocks = cut_matrix(SPACE, WATER.numbers, PairList.complete(WATER), core)
    assert np.array_equal(dense_matrix(blocks), core)
    assert np.array_equal(sparse_matrix(blocks).toarray(), core)
    assert blocks.hermitian_error() < EXACT * np.abs(core).max()
    assert np.array_equal(blocks.block(1)[0], core[5:19, 5:19])
    assert np.array_equal(dense_matrix(stack_blocks(SPACE, WATER.numbers, blocks.pairs, list(blocks))), core)
    with pytest.raises(StructureError, match="shape"):
        stack_blocks(SPACE, WATER.numbers, blocks.pairs, [block[:, :2] for block in blocks])


def test_orders_go_round_and_turn_signs() -> None:
    rng = np.random.default_rng(4)
    pairs = PairList.complete(WATER)
    size = SPACE.count_orbitals(WATER.numbers)
    start = cut_matrix(SPACE, WATER.numbers, pairs, rng.normal(size=(size, size)))
    there = start
    for order in ("siesta", "openmx", "abacus", "orca", "gpaw", "e3nn", "pyscf"):
        there = there.in_order(order)
    assert np.array_equal(there.values, start.values)
    # p of SIESTA: (-y, z, -x), of PySCF (x, y, z); rows 2, 3, 4 of a hydrogen are its p shell
    pyscf, siesta = start.block(0)[0], start.in_order("siesta").block(0)[0]
    assert np.array_equal(siesta[0, 2:5], np.array([-1.0, 1.0, -1.0]) * pyscf[0, [3, 4, 2]])


def test_hermitian_parts_of_a_crystal(sheet: Structure) -> None:
    rng = np.random.default_rng(5)
    space = OrbitalSpace("sp", {6: (0, 1)}, order="openmx")
    pairs = PairList.within(sheet, 5.0)
    raw = BlockSet.zeros(space, sheet.numbers, pairs, "spinor")
    raw = raw.with_values(rng.normal(size=raw.values.shape) + 1j * rng.normal(size=raw.values.shape))
    assert raw.hermitian_error() > 0.1
    whole = raw.hermitised()
    assert whole.hermitian_error() < EXACT
    k = (0.17, -0.31, 0.0)
    matrix = dense_matrix(whole, k)
    assert matrix.shape == (16, 16)
    assert np.abs(matrix - matrix.conj().T).max() < 1e-13
    assert np.abs(sparse_matrix(whole, k).toarray() - matrix).max() < 1e-13
    fewer = whole.on_pairs(PairList.within(sheet, 2.0)).on_pairs(pairs)
    near = pairs.distances_angstrom < 2.0
    assert np.abs(fewer.block(int(np.flatnonzero(near)[-1])) - whole.block(int(np.flatnonzero(near)[-1]))).max() == 0.0
    assert not fewer.block(int(np.flatnonzero(~near)[0])).any()


def test_overlap_at_k_is_pyscf_s() -> None:
    """S(R) from PySCF's molecular integrals between cells, summed with our phases, is PySCF's periodic S(k)."""
    atoms = bulk("C", "diamond", 3.57)
    structure = crystal(atoms)
    cell = pbc_gto.M(
        a=np.asarray(atoms.cell),
        atom=[("C", tuple(x)) for x in atoms.positions],
        basis="gth-szv",
        pseudo="gth-pade",
        unit="Angstrom",
        verbose=0,
        precision=1e-10,
    )
    space = OrbitalSpace("gth-szv", {6: (0, 1)}, valence={6: 4})
    pairs = PairList.within(structure, 14.0)
    home = cell.to_mol()
    blocks = []
    for i, j, shift in zip(pairs.first, pairs.second, pairs.shift, strict=True):
        moved = home.copy()
        moved.set_geom_(atoms.positions + shift @ np.asarray(atoms.cell), unit="Angstrom")
        cross = gto.intor_cross("int1e_ovlp", home, moved)
        blocks.append(cross[4 * i : 4 * i + 4, 4 * j : 4 * j + 4])
    overlap = stack_blocks(space, structure.numbers, pairs, blocks)
    assert overlap.hermitian_error() < INTEGRAL_TOLERANCE
    for k in ((0.0, 0.0, 0.0), (0.25, 0.5, -0.125)):
        expected = cell.pbc_intor("int1e_ovlp", kpts=cell.get_abs_kpts(np.array(k)))
        assert np.abs(dense_matrix(overlap, k) - expected).max() < INTEGRAL_TOLERANCE
    assert space.count_electrons(structure.numbers) == 8
