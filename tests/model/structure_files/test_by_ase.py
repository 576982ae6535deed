"""What ASE cannot read is told with its line, where its reader goes line by line."""

from __future__ import annotations

import pytest

from model.structure_files.frame import UnreadableError
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


def test_no_line_is_made_up_where_all_of_them_are_read_first():
    broken = "lattice_vector 5 0 0\nlattice_vector 0 5 0\nlattice_vector 0 0 z\natom 0 0 0 C\n"
    with pytest.raises(Exception) as refused:  # noqa: PT011  whatever ASE's reader raises
        read_structures("aims", broken, 1)
    assert not isinstance(refused.value, UnreadableError)
