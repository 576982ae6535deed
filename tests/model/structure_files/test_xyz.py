"""xyz files as the trade's programs and people write them: read as they are meant, or refused with line and reason."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

from model.structure_files.frame import Frame, ManyFramesError, UnreadableError
from model.structure_files.read import read_structures
from tests.model.structure_files.methanol import BOHR, is_methanol, one, rows, xyz

D_ROWS = rows("{s} {x:.6e} {y:.6e} {z:.6e}")


@pytest.mark.parametrize(
    "text",
    [
        xyz(),
        "\n" + xyz(),
        "\n \n" + xyz() + "\n\n",
        "\ufeff" + xyz(),
        xyz().replace("\n", "\r\n"),
        xyz().replace("\n", "\r"),
        xyz(""),
        "# made by hand\n" + xyz(),
        xyz(line="{s}\t{x}\t{y}\t{z}"),
        xyz(line="{s}, {x}, {y}, {z}"),
        xyz(line="{s} {x} {y} {z} 0.1 0.2 0.3"),
        xyz(symbols=("c", "o", "h", "h", "h", "h")),
        xyz(symbols=("C", "O", "D", "D", "T", "d")),
        xyz(symbols=("13C", "O", "2H", "H", "H", "H")),
        xyz(symbols=("C1", "O1", "H1", "H2a", "H_b", "H(3)")),
        xyz(symbols=("6", "8", "1", "1", "1", "1")),
        xyz(symbols=("6.0", "8.0", "1.0", "1.0", "1.0", "1.0")),
        f"6\nFortran\n{D_ROWS.replace('e', 'D')}",
        f"6\nFortran\n{D_ROWS.replace('e', 'd')}",
        f"6\nFortran without room for the letter\n{D_ROWS.replace('e-0', '-00').replace('e+0', '+00')}",
        f"6\ntypographic\n{rows().replace('-', chr(0x2212))}",
        xyz("Properties=none recorded"),
        xyz("the Lattice is not given, pbc=none"),
        xyz("Geometrie für Energie in Å"),
        xyz("Properties=species:S:1:pos:R:3"),
        xyz("Properties=species:S:1:pos:R:3", symbols=("C", "O", "D", "D", "D", "D")),
        xyz("Properties=forces:R:3:species:S:1:pos:R:3:tag:I:1", line="1 2 3 {s} {x} {y} {z} 0"),
        xyz("Properties=Z:I:1:pos:R:3", symbols=("6", "8", "1", "1", "1", "1")),
        "6 ang\n" + xyz()[2:],
    ],
)
def test_what_is_meant_is_read(text):
    frame = one("xyz", text)
    assert is_methanol(frame)
    assert not frame.notes
    assert is_methanol(one("extxyz", text))


@pytest.mark.parametrize(
    ("count", "comment"),
    [
        ("6 bohr", "methanol"),
        ("6 au", ""),
        ("6", "coordinates in bohr"),
        ("6", "units: Bohr"),
        ("6", "geometry in a.u."),
        ("6", "Coordinates (atomic units)"),
    ],
)
def test_bohr_is_converted_and_said(count, comment):
    frame = one("xyz", f"{count}\n{comment}\n{rows(scale=1 / BOHR)}")
    assert is_methanol(frame)
    assert "bohr" in frame.notes[0]


@pytest.mark.parametrize("comment", ["dipole 0.66 a.u., coordinates below", "was in bohr once"])
def test_a_comment_that_speaks_of_another_bohr_is_not_followed(comment):
    frame = one("xyz", xyz(comment))
    assert is_methanol(frame)
    assert "read in Å" in frame.notes[0]


def test_energies_in_atomic_units_say_nothing_of_lengths():
    frame = one("xyz", xyz("E = -115.7 a.u."))
    assert is_methanol(frame)
    assert not frame.notes


QM9 = (
    "6\ngdb 5\t157.71 157.70 157.69 0.\t13.21 -0.3877 0.1171 0.5048 35.3641 0.0447 -40.47 -40.47 -40.47 -40.49 6.469\n"
    + rows("{s}\t{x}\t{y}\t{z}\t-0.535689")
    + "1341.307\t1341.3284\t1341.365\nCO\tCO\t\nInChI=1S/CH4O/c1-2/h2H,1H3\tInChI=1S/CH4O/c1-2/h2H,1H3\n"
)


def test_files_of_qm9():
    assert is_methanol(one("xyz", QM9))
    assert is_methanol(one("xyz", QM9.replace("\t0.0\t", "\t1.0*^-6\t")))
    assert all(is_methanol(frame) for frame in read_structures("xyz", QM9 + QM9, 5))
    assert one("xyz", QM9).charge is None


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (rows(), 1, "number of atoms"),
        ("methanol\n6\n" + rows(), 1, "number of atoms"),
        ("6\n" + rows(), 2, "comment"),
        ("7\n\n" + rows(), 1, "7 atoms"),
        ("5\n\n" + rows(), 8, "one more atom"),
        (xyz(symbols=("C", "O", "H", "Xx", "H", "H")), 6, "dummy"),
        (xyz(symbols=("C", "O", "H", "H", "H-Bq", "H")), 7, "ghost"),
        (xyz(symbols=("C", "O", "H", "H", "@He", "H")), 7, "ghost"),
        (xyz(symbols=("C", "O", "H", "H", "Zz", "H")), 7, "symbol"),
        (xyz().replace("0.663100", "0,663100"), 3, "comma"),
        (xyz().replace("0.663100", "********"), 3, "stars"),
        (xyz().replace("0.663100", "there"), 3, "number"),
        (xyz().replace(" 0.663100", ""), 3, "symbol x y z"),
        (xyz(line="{s} 0 {x} {y} {z}"), 3, "frozen"),
        (xyz(line="{s} -1 {x} {y} {z}"), 3, "frozen"),
        (xyz(line="{s} 6 {x} {y} {z}"), 3, "frozen"),
        ("2\nGAMESS\nO 8.0 0 0 0\nH 1.0 0 0 0.96\n", 3, "GAMESS"),
        (xyz(line="{n} {s} {x} {y} {z}"), 3, "first column"),
        (xyz("Properties=species:S:1:pos:R:3:forces:R:3"), 3, "columns"),
    ],
)
def test_an_error_names_line_and_reason(text, line, words):
    with pytest.raises(UnreadableError) as caught:
        one("xyz", text)
    assert caught.value.line == line
    assert words in caught.value.detail
    assert f"ine {line}: " in str(caught.value)


@pytest.mark.parametrize(
    "bad",
    [
        xyz(symbols=("C", "O", "Qq", "H", "H", "H")),
        "7\n\n" + rows(),
        "5\n\n" + rows(),
        "six\n\n" + rows(),
        xyz("charge=0.5"),
        xyz("Properties=species:S:1:pos:R:3:forces:R:3"),
        xyz('Lattice="1 2 3" Properties=species:S:1:pos:R:3'),
    ],
)
def test_a_bad_frame_costs_itself_alone(bad):
    frames = read_structures("xyz", xyz() + bad + xyz() + "\n" + xyz(), 10)
    assert isinstance(frames[1], UnreadableError)
    assert frames[1].frame == 2
    assert 9 <= (frames[1].line or 0) <= 17
    others = [frames[0], *frames[2:]]
    assert len(others) == 3
    assert all(isinstance(frame, Frame) and is_methanol(frame) for frame in others)


def test_many_frames_are_counted_and_may_have_blank_lines_between():
    assert len(read_structures("xyz", (xyz() + "\n") * 4, 4)) == 4
    with pytest.raises(ManyFramesError):
        read_structures("xyz", xyz() * 5, 4)


def test_what_ase_writes_is_read_back(tmp_path):
    atoms = molecule("CH3CH2OH", vacuum=4.0)
    atoms.pbc = (True, True, False)
    atoms.info["name"] = "ethanol, \"quoted\" = 'x'"
    atoms.arrays["forces"] = np.ones((len(atoms), 3))
    write(tmp_path / "a.xyz", [atoms, atoms], format="extxyz")
    for frame in read_structures("extxyz", (tmp_path / "a.xyz").read_text(), 2):
        assert isinstance(frame, Frame)
        assert frame.numbers == atoms.numbers.tolist()
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-7)
        np.testing.assert_allclose(frame.cell, atoms.cell.array, atol=1e-7)
        assert frame.pbc == (True, True, False)
        assert frame.info["name"] == atoms.info["name"]
