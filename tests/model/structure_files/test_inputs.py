"""Inputs and files of other programs: TURBOMOLE, Gaussian, ORCA, mol2, CML, cubes."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from model.structure_files.frame import Frame, ManyFramesError, UnreadableError
from model.structure_files.read import read_structures
from tests.model.structure_files.methanol import BOHR, NUMBERS, POSITIONS, is_methanol, one, rows

COORD = rows("{x:.14f} {y:.14f} {z:.14f} {s}", scale=1 / BOHR).lower()
ANGS = rows("{x:.14f} {y:.14f} {z:.14f} {s}").lower()


@pytest.mark.parametrize(
    "text",
    [
        f"$coord\n{COORD}$end\n",
        f"$coord bohr\n{COORD}",
        f"$coord angs\n{ANGS}$end\n",
        f"$coord ang\n{ANGS}$end\n",
        f"$coord angstrom natoms=6\n{ANGS}$end\n",
        f"$COORD ANGS\n{ANGS.upper()}$END\n",
        f"$title\nmethanol\n$coord natoms=6\n{COORD}$redundant\n 1 2 3\n$user-defined bonds\n$end\n",
        f"$coord\n{COORD.replace(' c', ' c f')}$end\n",
        f"$coord\n{COORD.replace(' h', ' d')}$end\n",
        "$coord\n"
        + rows("{x:.14e} {y:.14e} {z:.14e} {s}", scale=1 / BOHR).replace("e-", "D-").replace("e+", "D+")
        + "$end\n",
    ],
)
def test_turbomole(text):
    frame = one("turbomole", text)
    assert is_methanol(frame)
    assert frame.pbc == (False, False, False)


def test_crystals_of_turbomole():
    frame = one("turbomole", f"$coord\n{COORD}$periodic 3\n$cell\n 20 20 20 90 90 90\n$end\n")
    assert frame.pbc == (True, True, True)
    np.testing.assert_allclose(frame.cell, 20 * BOHR * np.eye(3), atol=1e-9)
    frame = one("turbomole", f"$coord angs\n{ANGS}$periodic 2\n$cell angs\n 9 8 60\n$end\n")
    assert frame.pbc == (True, True, False)
    np.testing.assert_allclose(np.linalg.norm(frame.cell, axis=1), [9, 8, 0], atol=1e-9)
    fractional = "$coord frac\n" + "".join(
        f"{x / 10} {y / 10} {z / 10} {s}\n" for s, (x, y, z) in zip("cohhhh", POSITIONS, strict=True)
    )
    frame = one("turbomole", fractional + "$periodic 3\n$lattice angs\n10 0 0\n0 10 0\n0 0 10\n$end\n")
    assert is_methanol(frame)
    with pytest.raises(UnreadableError, match="lattice"):
        one("turbomole", fractional + "$end\n")


def test_what_turbomole_and_xtb_state():
    assert one("turbomole", f"$coord\n{COORD}$chrg -2\n$end\n").charge == -2
    frame = one("turbomole", f"$coord\n{COORD}$eht charge=1 unpaired=1\n$end\n")
    assert (frame.charge, frame.multiplicity) == (1, 2)
    assert one("turbomole", f"$coord\n{COORD}$uhf 2\n$end\n").multiplicity == 3
    with pytest.raises(UnreadableError, match="no \\$coord"):
        one("turbomole", COORD)


def gjf(body: str, route: str = "#p B3LYP/def2SVP", state: str = "0 1") -> str:
    """An input of Gaussian."""
    return f"%chk=a.chk\n%mem=1GB\n{route}\n\nmethanol,\nof two lines\n\n{state}\n{body}\n"


@pytest.mark.parametrize(
    "text",
    [
        gjf(rows()),
        gjf(rows(), route="# opt\nB3LYP/6-31G*"),
        gjf(rows("{s} 0 {x} {y} {z}")),
        gjf(rows("{s} -1 {x} {y} {z}")),
        gjf(rows("{s}, {x}, {y}, {z}")),
        gjf(rows("{s}(Fragment=1) {x} {y} {z}"), state="0,1 0,1"),
        gjf(rows("{s}-CT-0.1 {x} {y} {z}")),
        gjf(rows("{s}(Iso=2) {x} {y} {z} L")),
        gjf(rows(symbols=("6", "8", "1", "1", "1", "1"))),
        gjf(rows(scale=1 / BOHR), route="# HF/STO-3G units=au"),
        gjf(rows(scale=1 / BOHR), route="# HF/STO-3G Units(AU,Deg)"),
        gjf(rows()) + "1 2 1.0\n1 3 1.0\n\n",
        "\n" + gjf(rows()),
        gjf(rows()).replace("methanol,", "! a remark\nmethanol"),
        gjf(rows()) + "--Link1--\n%chk=a.chk\n# HF geom=check guess=read\n\nnext\n\n0 1\n\n",
    ],
)
def test_gaussian(text):
    frame = one("gaussian-in", text)
    assert is_methanol(frame)
    assert (frame.charge, frame.multiplicity) == (0, 1)


def test_what_gaussian_states_and_what_is_not_read():
    frame = one("gaussian-in", gjf(rows(), state="-1 2"))
    assert (frame.charge, frame.multiplicity) == (-1, 2)
    for body, words in (
        ("C\nO 1 1.42\nH 1 1.09 2 109.0\n", "symbol x y z"),
        (rows(symbols=("C", "O", "H", "H", "H", "H-Bq")), "ghost"),
        (rows(symbols=("C", "O", "H", "H", "H", "Q1z")), "symbol"),
    ):
        with pytest.raises(UnreadableError, match=words) as caught:
            one("gaussian-in", gjf(body))
        assert caught.value.line is not None
    with pytest.raises(UnreadableError, match="charge"):
        one("gaussian-in", gjf(rows(), state="methanol"))
    with pytest.raises(UnreadableError):
        one("gaussian-in", "water\n")
    with pytest.raises(ManyFramesError):
        one("gaussian-in", gjf(rows()) + "--Link1--\n" + gjf(rows()))
    periodic = one("gaussian-in", gjf(rows() + "Tv 10 0 0\nTv 0 10 0\n"))
    assert periodic.pbc == (True, True, False)


@pytest.mark.parametrize(
    "text",
    [
        f"! B3LYP def2-SVP\n* xyz 0 1\n{rows()}*\n",
        f"! B3LYP def2-SVP # a remark\n%pal nprocs 4 end\n*xyz 0 1\n{rows()}*\n",
        f"! HF Bohrs\n* xyz 0 1\n{rows(scale=1 / BOHR)}*\n",
        f"! HF\n* XYZ 0 1\n{rows('{s}(1) {x} {y} {z}')}*\n$new_job\n! PBE\n* xyz 0 3\n{rows()}*\n",
        f"! HF\n%coords\n  CTyp xyz\n  Charge 0\n  Mult 1\n  Units Angs\n  coords\n{rows()}  end\nend\n",
        f"! HF\n%coords\n CTyp = xyz\n Charge = 0\n Mult = 1\n Units = bohrs\n coords\n{rows(scale=1 / BOHR)} end\nend\n",
    ],
)
def test_orca(text):
    frame = one("orca-in", text)
    assert is_methanol(frame)
    assert (frame.charge, frame.multiplicity) == (0, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("! HF\n* xyzfile 0 1 a.xyz\n", "another file"),
        ("! HF\n* gzmt 0 1\nC\n*\n", "Z-matrices"),
        ("! HF\n* int 0 1\nC 0 0 0 0 0 0\n*\n", "internal"),
        ("! HF\n", "no coordinates"),
        (f"! HF\n* xyz 0 1\n{rows()}", "no end"),
        (f"! HF\n* xyz 0 1\n{rows(symbols=('C', 'O', 'H:', 'H', 'H', 'H'))}*\n", "ghost"),
    ],
)
def test_what_is_not_read_of_orca(text, words):
    with pytest.raises(UnreadableError, match=words):
        one("orca-in", text)


def mol2(charges: tuple[float, ...] = (0.0,) * 6, after: str = "") -> str:
    """As SYBYL writes it."""
    types = ("C.3", "O.3", "H", "H", "H", "H")
    atoms = "".join(
        f"{n} {t[0]}{n} {x} {y} {z} {t} 1 MOH {q}\n"
        for n, (t, (x, y, z), q) in enumerate(zip(types, POSITIONS, charges, strict=True), start=1)
    )
    head = "# made by hand\n@<TRIPOS>MOLECULE\nmethanol\n6 5 1\nSMALL\nUSER_CHARGES\n\n@<TRIPOS>ATOM\n"
    return f"{head}{atoms}@<TRIPOS>BOND\n1 1 2 1\n{after}"


def test_mol2():
    frame = one("mol2", mol2())
    assert is_methanol(frame)
    assert frame.charge is None
    assert one("mol2", mol2((0.2, -0.7, 0.1, 0.1, 0.1, 0.2))).charge is None
    assert one("mol2", mol2((-0.2, -0.9, 0.0, 0.0, 0.0, 0.101))).charge == -1
    assert "0.50" in one("mol2", mol2((0.5, 0, 0, 0, 0, 0))).notes[0]
    assert one("mol2", mol2(after="@<TRIPOS>UNITY_ATOM_ATTR\n2 1\ncharge -2\n")).charge == -2
    assert one("mol2", mol2(after="@<TRIPOS>CRYSIN\n10 10 10 90 90 90 1 1\n")).pbc == (True, True, True)
    frames = read_structures("mol2", mol2() + mol2().replace("O.3", "Du") + mol2(), 5)
    assert [isinstance(frame, Frame) for frame in frames] == [True, False, True]


def cml(extra: str = "") -> str:
    """As Open Babel writes it."""
    symbols = [("C", "O", "H")[(6, 8, 1).index(z)] for z in NUMBERS]
    atoms = "".join(
        f'<atom id="a{n}" elementType="{s}" x3="{x}" y3="{y}" z3="{z}"/>'
        for n, (s, (x, y, z)) in enumerate(zip(symbols, POSITIONS, strict=True))
    )
    return f'<?xml version="1.0"?>\n<molecule xmlns="http://www.xml-cml.org/schema"{extra}><atomArray>{atoms}</atomArray></molecule>'


def test_cml():
    assert is_methanol(one("cml", cml()))
    frame = one("cml", cml(' formalCharge="-1" spinMultiplicity="2"'))
    assert (frame.charge, frame.multiplicity) == (-1, 2)
    assert one("cml", cml().replace('elementType="O"', 'elementType="O" formalCharge="-2"')).charge == -2
    with pytest.raises(UnreadableError, match="2D drawing"):
        one("cml", cml().replace("x3=", "x2=").replace("y3=", "y2=").replace("z3=", "z2="))
    with pytest.raises(UnreadableError, match="entities"):
        one("cml", cml().replace("<molecule", '<!DOCTYPE m [<!ENTITY a "b">]><molecule'))


def test_a_cube_is_a_molecule_in_the_box_of_its_grid(tmp_path):
    atoms = Atoms(NUMBERS, POSITIONS + 3, cell=[6, 6, 6], pbc=True)
    write(tmp_path / "a.cube", atoms, format="cube", data=np.zeros((3, 3, 3)))
    frame = one("cube", (tmp_path / "a.cube").read_text())
    assert frame.pbc == (False, False, False)
    assert frame.cell is not None
    np.testing.assert_allclose(frame.positions, POSITIONS + 3, atol=1e-5)
