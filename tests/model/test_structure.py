"""A structure is checked once, at the border."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from model.errors import (
    AtomsTooCloseError,
    CellError,
    ElectronCountError,
    EmptyStructureError,
    InvalidElementError,
    ModelError,
    NonFiniteCoordinatesError,
    StructureError,
)
from model.structure import SYMBOLS, Structure
from model.units import ANGSTROM_PER_BOHR, BOHR_PER_ANGSTROM, EV_PER_HARTREE

WATER = [[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]]


@pytest.mark.parametrize(
    ("numbers", "positions", "error"),
    [
        ([], np.zeros((0, 3)), EmptyStructureError),
        ([8, 1], WATER, StructureError),
        ([0, 1, 1], WATER, InvalidElementError),
        ([8, 1, 119], WATER, InvalidElementError),
        ([8, 1, 1], [[0, 0, np.nan], *WATER[1:]], NonFiniteCoordinatesError),
        ([8, 1, 1], [[0, 0, np.inf], *WATER[1:]], NonFiniteCoordinatesError),
        ([8, 1, 1], [[0, 0, 1e6], *WATER[1:]], StructureError),
        ([8, 1, 1], [WATER[0], WATER[1], WATER[1]], AtomsTooCloseError),
        ([8, 1, 1], [WATER[0], WATER[1], [0.0, 0.763, -0.2]], AtomsTooCloseError),
        ([8, 1], WATER[:2], ElectronCountError),
        ([8, "x", 1], WATER, StructureError),
    ],
)
def test_refused(numbers: list[int], positions: object, error: type[ModelError]) -> None:
    with pytest.raises(error) as caught:
        Structure(numbers, positions)  # type: ignore[arg-type]
    assert caught.value.field is not None
    assert "nan" not in str(caught.value).split()


def test_charge_and_multiplicity() -> None:
    assert Structure(np.array([8, 1, 1]), np.array(WATER)).n_electrons == 10
    assert Structure(np.array([8, 1]), np.array(WATER[:2]), charge=-1).n_electrons == 10
    assert Structure(np.array([8, 1]), np.array(WATER[:2]), multiplicity=2).n_electrons == 9
    for charge, multiplicity in ((0, 2), (1, 1), (10, 1), (0, 0), (0, 13)):
        with pytest.raises(ElectronCountError):
            Structure(np.array([8, 1, 1]), np.array(WATER), charge=charge, multiplicity=multiplicity)


def test_a_structure_cannot_be_edited() -> None:
    positions = np.array(WATER)
    structure = Structure(np.array([8, 1, 1]), positions)
    positions[0, 0] = 5.0
    assert structure.positions_angstrom[0, 0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        structure.positions_angstrom[0, 0] = 1.0


def test_symbols_and_units_are_those_of_ase_and_pyscf() -> None:
    from ase.data import chemical_symbols
    from ase.units import create_units
    from pyscf.data import nist

    assert list(SYMBOLS) == chemical_symbols[: len(SYMBOLS)]
    assert pytest.approx(nist.BOHR, rel=1e-8) == ANGSTROM_PER_BOHR
    assert pytest.approx(nist.HARTREE2EV, rel=1e-8) == EV_PER_HARTREE
    assert BOHR_PER_ANGSTROM * ANGSTROM_PER_BOHR == 1.0
    assert create_units("2018")["Bohr"] == pytest.approx(ANGSTROM_PER_BOHR, rel=1e-9)


def crystal(cell: Any, positions: ArrayLike = ((0.0, 0.0, 0.0),), pbc: Any = (True, True, True)) -> Structure:
    where = np.array(positions, dtype=float)
    return Structure(np.full(len(where), 13), where, cell_angstrom=cell, pbc=pbc)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ([[3.0, 0, 0], [0, 3.0, 0], [3.0, 3.0, 0]], "span no cell"),
        ([[3.0, 0, 0], [6.0, 0.001, 0], [0, 0, 3.0]], "span no cell"),
        (np.zeros((3, 3)), "0 Å long"),
        (0.1 * np.eye(3), "0.1 Å long"),
        (1e6 * np.eye(3), "longer than"),
        (None, "without lattice vectors"),
        ([["a", 0, 0], [0, 1, 0], [0, 0, 1]], "plain numbers"),
    ],
)
def test_cells_that_cannot_be(cell: object, words: str) -> None:
    with pytest.raises(CellError, match=words) as caught:
        crystal(cell)
    assert caught.value.field == "cell"


def test_images_are_atoms_too() -> None:
    with pytest.raises(AtomsTooCloseError, match=r"image of atom 1 in cell \(-1, 0, 0\) are 0.100 Å"):
        crystal(3.0 * np.eye(3), [[0.0, 0.0, 0.0], [2.9, 0.0, 0.0]])
    with pytest.raises(AtomsTooCloseError, match="image of atom 0"):
        crystal([[0.6, 0, 0], [0.5, 0.12, 0], [0, 0, 5.0]])
    apart = [[0.0, 0.0, 0.0], [2.9, 0.0, 0.0]]
    assert len(crystal(3.0 * np.eye(3), apart, (False, True, True))) == 2, "that direction has no images"


def test_slabs_need_no_third_vector_and_metals_may_have_odd_electrons() -> None:
    slab = crystal([[2.5, 0, 0], [0, 2.5, 0], [0, 0, 0]], pbc=(True, True, False))
    assert slab.is_periodic
    assert slab.n_electrons == 13
    with pytest.raises(ValueError, match="read-only"):
        slab.cell_angstrom[0, 0] = 1.0  # type: ignore[index]


def test_close_atoms_of_large_molecules_are_found() -> None:
    grid = 1.5 * np.stack(np.meshgrid(*[np.arange(6.0)] * 3), axis=-1).reshape(-1, 3)
    assert len(Structure(np.full(len(grid), 6), grid)) == 216
    grid[200] = grid[3] + [0.2, 0.0, 0.0]
    with pytest.raises(AtomsTooCloseError, match=r"0\.200 Å") as caught:
        Structure(np.full(len(grid), 6), grid)
    assert {"3", "200"} <= set(str(caught.value).replace(" and", "").split())
