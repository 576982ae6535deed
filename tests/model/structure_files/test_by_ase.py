"""What ASE cannot read is told with its line, where its reader goes line by line or says what it did not understand."""

from __future__ import annotations

import pytest

from model.structure_files.frame import Frame, UnreadableError
from model.structure_files.read import read_structures

POSCAR = "C2\n1.0\n2.46 0 0\n-1.23 2.13 0\n0 0 10\nC\n2\nDirect\n0 0 0.5\n0.333 0.667 0.5\n"
XSF = "CRYSTAL\nPRIMVEC\n2.46 0 0\n-1.23 2.13 0\n0 0 10\nPRIMCOORD\n2 1\n6 0 0 5\n6 0 1.42 5\n"
CUBE = "a\nb\n 1 0 0 0\n 2 5 0 0\n 2 0 5 0\n 2 0 0 5\n 6 0 0 0 0\n 1 2 3 4\n 5 6 7 8\n"


@pytest.mark.parametrize(
    ("file_format", "text", "right", "wrong", "lines"),
    [
        ("vasp", POSCAR, "0.333 0.667", "0.333 x.667", {10}),
        ("vasp", POSCAR, "0.333 0.667 0.5\n", "", {9}),
        ("vasp", POSCAR, "-1.23 2.13 0", "-1.23 2.13", {4, 5}),
        ("xsf", XSF, "1.42 5", "1.42 y", {9}),
        ("cube", CUBE, " 2 0 0 5", " 2 0 0 x", {6}),
    ],
)
def test_the_line_where_reading_stops_is_named(file_format, text, right, wrong, lines):
    assert len(read_structures(file_format, text, 1)) == 1
    assert right in text
    with pytest.raises(UnreadableError, match="stops here") as refused:
        read_structures(file_format, text.replace(right, wrong), 1)
    assert refused.value.line in lines


CIF = """data_sheet
_cell_length_a 2.46(1)
_cell_length_b 2.46
_cell_length_c 10
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
_space_group_name_H-M_alt 'P 1'
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
C1 0.0(1) 0 .5
# the other one
C2 0.333 0.667 0.5
"""
AIMS = "lattice_vector 5 0 0\nlattice_vector 0 5 0\nlattice_vector 0 0 5\natom 0 0 0 C\n"
ESPRESSO = """&system
 ibrav=0, nat=1, ntyp=1
/
ATOMIC_SPECIES
 C 12.0 c.upf
CELL_PARAMETERS angstrom
5 0 0
0 5 0
0 0 5
ATOMIC_POSITIONS angstrom
C 0 0 0.5
"""


@pytest.mark.parametrize(
    ("file_format", "text", "right", "wrong", "line", "said"),
    [
        ("cif", CIF, "c 10\n", "c ten\n", 4, "_cell_length_c is no number"),
        ("cif", CIF, "0.333 ", "x.333 ", 16, "_atom_site_fract_x of this atom is no number"),
        ("cif", CIF, " 0.667", "", 16, "has 3 values, and the loop has 4 columns"),
        ("cif", CIF, "C2", "Xy2", 16, "does not understand"),
        ("cif", CIF, "'P 1'", "'P one'", 8, "does not understand"),
        ("cif", CIF, "_cell_length_b 2.46\n", "", None, "no _cell_length_b"),
        ("aims", AIMS, "0 0 5\n", "0 0 z\n", 3, "does not understand"),
        ("aims", AIMS, "C\n", "Xy\n", 4, "does not understand"),
        ("espresso-in", ESPRESSO, "C 0 0 0.5", "C 0 0 half", 11, "an atom and three numbers in each row"),
        ("espresso-in", ESPRESSO, "C 0 0 0.5", "C 0 0", 11, "an atom and three numbers in each row"),
        ("espresso-in", ESPRESSO, "C 0 0 0.5", "Xy 0 0 0.5", 11, "of no element"),
        ("espresso-in", ESPRESSO, "0 5 0\n", "0 5\n", 8, "three numbers in each row"),
        ("espresso-in", ESPRESSO, "0 5 0\n", "", 6, "needs 3 rows and has 2"),
        ("espresso-in", ESPRESSO, "nat=1", "nat=2", 10, "needs 2 rows and has 1"),
        ("espresso-in", ESPRESSO, "nat=1", "nat=one", 2, "nat is no whole number"),
        ("espresso-in", ESPRESSO, "nat=1, ", "", None, "no nat"),
        ("espresso-in", ESPRESSO, "POSITIONS angstrom", "POSITIONS furlong", 10, "a unit that is not read"),
    ],
)
def test_readers_that_take_the_whole_file_are_explained(file_format, text, right, wrong, line, said):
    (frame,) = read_structures(file_format, text, 1)
    assert isinstance(frame, Frame)
    assert (len(frame.numbers), frame.pbc) == (text.count("C1") + text.count("C2") or 1, (True, True, True))
    assert right in text
    with pytest.raises(UnreadableError, match=said) as refused:
        read_structures(file_format, text.replace(right, wrong), 1)
    assert refused.value.line == line


def test_no_line_is_made_up_where_the_error_cites_nothing_of_the_file():
    assert len(read_structures("espresso-in", ESPRESSO, 1)) == 1
    with pytest.raises(Exception) as refused:  # noqa: PT011  whatever ASE's reader raises
        read_structures("espresso-in", ESPRESSO.replace("ibrav=0", "ibrav=99"), 1)
    assert not isinstance(refused.value, UnreadableError)
