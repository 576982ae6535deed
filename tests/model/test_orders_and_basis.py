"""AO order, template and blocks, against PySCF's own labels and matrices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from model.blocks.matrices import dense_matrix
from model.blocks.spaces import BlockSpace
from model.blocks.standardise import Encoder
from model.blocks.template import TemplateMap
from model.errors import UnsupportedBasisError, UnsupportedElementError
from model.integrals.pyscf_molecule import build_mole, load_basis
from model.orbitals.orders import e3nn_to_pyscf, pyscf_to_e3nn
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import Structure

ELEMENTS = (1, 6, 7, 8, 9)


@pytest.fixture(scope="module")
def basis() -> OrbitalSpace:
    return load_basis("def2-svp", ELEMENTS)


def test_orders_are_inverse() -> None:
    shells = (0, 0, 1, 1, 2, 3)
    forward, back = pyscf_to_e3nn(shells), e3nn_to_pyscf(shells)
    assert np.array_equal(forward[back], np.arange(20))
    assert np.array_equal(back[forward], np.arange(20))


def test_p_and_d_labels(basis: OrbitalSpace) -> None:
    """e3nn order is m = -l..l: (y, z, x) and (xy, yz, z2, xz, x2-y2) in PySCF's own names."""
    mole = build_mole(Structure(np.array([8]), np.zeros((1, 3))), "def2-svp")
    labels = np.array([label.split()[-1] for label in mole.ao_labels()])
    ordered = labels[pyscf_to_e3nn(basis.shells[8])]
    assert [label[1:] for label in ordered[3:6]] == ["py", "pz", "px"]
    assert [label[2:] for label in ordered[9:14]] == ["xy", "yz", "z^2", "xz", "x2-y2"]


@pytest.mark.parametrize("name", ["def2-svp", "sto-3g", "6-31g*", "cc-pvdz", "def2-tzvp", "minao"])
def test_shells_of_any_pyscf_basis(name: str) -> None:
    basis = load_basis(name, ELEMENTS)
    for number in ELEMENTS:
        mole = build_mole(Structure(np.array([number]), np.zeros((1, 3)), multiplicity=1 + number % 2), name)
        shells = [int(mole.bas_angular(i)) for i in range(mole.nbas) for _ in range(mole.bas_nctr(i))]
        assert tuple(shells) == basis.shells[number]
        assert basis.count_orbitals([number]) == mole.nao


def test_template_of_def2_svp(basis: OrbitalSpace) -> None:
    assert basis.template == (0, 0, 0, 1, 1, 2)
    assert basis.template_size == 14
    assert basis.template_shells(1) == (0, 1, 3)
    assert sorted(basis.template_rows(1)) == [0, 1, 3, 4, 5]
    assert sorted(basis.template_rows(6)) == list(range(14))


def test_fingerprint_sees_the_coefficients() -> None:
    assert load_basis("def2-svp", [1, 8]).fingerprint == load_basis("def2svp", [1, 8]).fingerprint
    assert load_basis("def2-svp", [1, 8]).fingerprint != load_basis("def2-svpd", [1, 8]).fingerprint


def test_unknown_basis_and_element(basis: OrbitalSpace) -> None:
    for name in ("no-such-basis", "../secret", "H    S\n 1.0 1.0"):
        with pytest.raises(UnsupportedBasisError):
            load_basis(name, [1])
    with pytest.raises(UnsupportedElementError, match="Allowed: H, C, N, O, F"):
        basis.shells_of(16)
    with pytest.raises(UnsupportedBasisError, match="ascending"):
        OrbitalSpace("odd", {1: (1, 0)}, "")


def symmetric(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    matrix = rng.normal(size=(size, size))
    return matrix + matrix.T


@pytest.mark.parametrize("name", ["H2O", "CH3CH2OH", "H2", "CH3CN"])
def test_blocks_and_back(
    name: str, basis: OrbitalSpace, molecule: Callable[[str], Structure], rng: np.random.Generator
) -> None:
    """Cutting a matrix into blocks, expanding them in irreps, and assembling gives the matrix back."""
    structure = molecule(name)
    matrix = symmetric(basis.count_orbitals(structure.numbers), rng)
    blocks = TemplateMap(basis, structure.numbers, PairList.complete(structure))
    space = BlockSpace.of(basis.template)
    on_site, pair = Encoder(space).encode([matrix], blocks)
    coefficients = np.concatenate([on_site, pair])[:, 0]
    back = blocks.to_blocks((coefficients @ space.matrix.T).reshape(-1, 1, 14, 14), space)
    assert np.abs(dense_matrix(back) - matrix).max() < 1e-13
    assert np.array_equal(blocks.of_entries(back.values), blocks.cut(dense_matrix(back)[None]))


def test_block_is_the_right_part_of_the_matrix(basis: OrbitalSpace, molecule: Callable[[str], Structure]) -> None:
    """Template rows of a block are the AOs that PySCF labels so."""
    structure = molecule("CH3CH2OH")
    mole = build_mole(structure, "def2-svp")
    overlap = mole.intor("int1e_ovlp")
    blocks = TemplateMap(basis, structure.numbers, PairList.complete(structure))
    first = int(blocks.listed[0])
    row, column = int(blocks.pairs.first[first]), int(blocks.pairs.second[first])
    slices = mole.aoslice_by_atom()
    expected = overlap[slices[row, 2] : slices[row, 3], slices[column, 2] : slices[column, 3]]
    rows = pyscf_to_e3nn(basis.shells_of(structure.numbers[row]))
    columns = pyscf_to_e3nn(basis.shells_of(structure.numbers[column]))
    wanted = expected[np.ix_(rows, columns)]
    at_rows = np.sort(basis.template_rows(structure.numbers[row]))
    at_columns = np.sort(basis.template_rows(structure.numbers[column]))
    found = blocks.cut(overlap[None])[len(structure), 0]
    assert np.array_equal(found[np.ix_(at_rows, at_columns)], wanted)


def test_expansion_is_orthogonal() -> None:
    expansion = BlockSpace.of((0, 0, 0, 1, 1, 2))
    assert np.abs(expansion.matrix.T @ expansion.matrix - np.eye(196)).max() < 1e-14
    assert expansion.coefficients.multiplicity == (14, 16, 5, 11, 4, 4, 1, 1)
