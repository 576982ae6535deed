"""Protein Data Bank files: alternate locations, dummy cells, missing element columns, charges."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

from model.structure_files.frame import Frame, UnreadableError
from model.structure_files.read import read_structures
from tests.model.structure_files.methanol import POSITIONS, is_methanol, one

NAMES = (" C1 ", " O1 ", " H1 ", " H2 ", " H3 ", " H4 ")


def line(
    n: int,
    name: str,
    position,
    element: str = "",
    location: str = " ",
    occupancy: float = 1.0,
    residue: str = "MOH",
    charge: str = "",
) -> str:
    """One atom."""
    x, y, z = position
    where = f"{x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}  0.00"
    return f"HETATM{n:5d} {name}{location}{residue:>3s} A   1    {where}          {element:>2s}{charge:2s}\n"


def methanol(
    names: tuple[str, ...] = NAMES,
    elements: tuple[str, ...] = ("C", "O", "H", "H", "H", "H"),
    charges: tuple[str, ...] = ("",) * 6,
) -> str:
    """All atoms."""
    atoms = zip(names, POSITIONS, elements, charges, strict=True)
    return "".join(line(n, *each[:3], charge=each[3]) for n, each in enumerate(atoms, start=1))


NO_ELEMENTS = ("",) * 6


@pytest.mark.parametrize(
    "text",
    [
        methanol() + "END\n",
        methanol(),
        "CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1\n" + methanol(),
        "CRYST1    0.000    0.000    0.000  90.00  90.00  90.00 P 1           1\n" + methanol(),
        "CRYST1    1.000    1.000    1.000   0.00   0.00   0.00\n" + methanol(),
        "MODEL        1\n" + methanol() + "ENDMDL\nEND\n",
        methanol(elements=("C", "O", "D", "D", "D", "D")),
        methanol(elements=("C ", "O ", "H ", "H ", "H ", "H ")),
        methanol((" CA ", " OG ", " HA ", " HB1", " HB2", " HG "), NO_ELEMENTS),
        methanol((" C1 ", " O1 ", "1HB ", "2HB ", "3HB ", " HO "), NO_ELEMENTS),
        methanol((" C1 ", " O1 ", "HD11", "HD12", "HG13", "HE21"), NO_ELEMENTS),
        methanol((" CD ", " OE1", " HE1", " HO ", " HF ", " HG "), NO_ELEMENTS),
    ],
)
def test_methanol(text):
    frame = one("proteindatabank", text)
    assert is_methanol(frame, 6e-4)
    assert frame.pbc == (False, False, False)
    assert frame.charge is None


def test_a_name_that_may_be_two_elements_needs_the_element_column():
    with pytest.raises(UnreadableError) as caught:
        one("proteindatabank", methanol(("CA  ", "OG  ", "HA  ", "HB1 ", "HB2 ", "HG  "), NO_ELEMENTS))
    assert caught.value.line == 1
    assert "element columns 77-78" in caught.value.detail
    assert one("proteindatabank", line(1, "CA  ", (0, 0, 0), residue="CA")).numbers == [20]
    assert one("proteindatabank", line(1, "CL1 ", (0, 0, 0))).numbers == [17]


@pytest.mark.parametrize("first", ["A", "B", "1"])
@pytest.mark.parametrize("shift", [0.7, 0.1])
def test_one_of_the_alternate_locations_is_taken(first, shift):
    water = [(0, 0, 0.12), (0, 0.763, -0.477), (0, -0.763, -0.477)]
    text = line(1, " O  ", water[0], "O", residue="HOH")
    for n, position in enumerate(water[1:], start=1):
        text += line(2 * n, f" H{n} ", position, "H", first, 0.6, "HOH")
        text += line(2 * n + 1, f" H{n} ", np.array(position) + shift, "H", "C", 0.4, "HOH")
    frame = one("proteindatabank", text)
    assert frame.numbers == [8, 1, 1]
    np.testing.assert_allclose(frame.positions, water, atol=1e-9)
    assert "alternate" in frame.notes[0]


def test_the_most_occupied_location_wins_and_one_alone_stays():
    text = (
        line(1, " O  ", (0, 0, 0), "O")
        + line(2, " H1 ", (0, 0, 1), "H", "A", 0.3)
        + line(3, " H1 ", (0, 1, 0), "H", "B", 0.7)
    )
    assert one("proteindatabank", text).positions[1] == [0, 1, 0]
    text = line(1, " O  ", (0, 0, 0), "O", "A", 0.5) + line(2, " H1 ", (0, 0, 1), "H", "A", 0.5)
    frame = one("proteindatabank", text)
    assert frame.numbers == [8, 1]
    assert not frame.notes


@pytest.mark.parametrize(
    ("charges", "charge"),
    [(("1+", "", "", "", "", ""), 1), (("1-", "1-", "", "", "", ""), -2), (("+1", "-1", "", "", "", ""), 0)],
)
def test_charges_of_the_columns_sum(charges, charge):
    assert one("proteindatabank", methanol(charges=charges)).charge == charge


def test_a_real_cell_is_a_crystal(tmp_path):
    atoms = molecule("CH3OH", vacuum=5.0)
    atoms.pbc = True
    write(tmp_path / "a.pdb", atoms)
    frame = one("proteindatabank", (tmp_path / "a.pdb").read_text())
    assert frame.pbc == (True, True, True)
    np.testing.assert_allclose(np.linalg.norm(frame.cell, axis=1), np.linalg.norm(atoms.cell.array, axis=1), atol=1e-3)


def test_models_are_frames_and_a_bad_one_costs_itself():
    good, bad = methanol(), methanol().replace("0.663", "  ***")
    frames = read_structures(
        "proteindatabank", "".join(f"MODEL {n}\n{m}ENDMDL\n" for n, m in enumerate((good, bad, good))), 5
    )
    assert [isinstance(frame, Frame) for frame in frames] == [True, False, True]
    assert isinstance(frames[1], UnreadableError)
    assert (frames[1].frame, frames[1].line) == (2, 10)
    assert is_methanol(frames[2], 6e-4)


def test_extra_points_are_refused():
    with pytest.raises(UnreadableError):
        one("proteindatabank", line(1, " EP ", (0, 0, 0)))
