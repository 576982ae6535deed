"""Molfiles of both versions: RDKit writes, we read; charges, radicals, drawings and what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from model.structure_files.frame import Frame, UnreadableError
from model.structure_files.read import read_structures
from tests.model.structure_files.methanol import is_methanol, one, rows

BONDS = ((1, 2), (1, 3), (1, 4), (1, 5), (2, 6))


def v2000(properties: str = "", header: str = "  -OWN-  01012600003D", code: str = "0", bonds: bool = True) -> str:
    """Methanol."""
    atoms = rows(f"{{x:10.4f}}{{y:10.4f}}{{z:10.4f}} {{s:3s}} 0{code:>3s}  0  0  0  0")
    table = "".join(f"{a:3d}{b:3d}  1  0\n" for a, b in BONDS) if bonds else ""
    count = len(BONDS) if bonds else 0
    return f"methanol\n{header}\n\n  6{count:3d}  0  0  0  0  0  0  0  0999 V2000\n{atoms}{table}{properties}M  END\n"


def v3000(extra: str = "", header: str = "  -OWN-  01012600003D") -> str:
    """Methanol; ``extra`` comes to the oxygen's line."""
    atoms = rows("M  V30 {n} {s} {x:.4f} {y:.4f} {z:.4f} 0").replace(
        " O -0.0466 -0.7580 0.0000 0", f" O -0.0466 -0.7580 0.0000 0{extra}"
    )
    table = "".join(f"M  V30 {n} 1 {a} {b}\n" for n, (a, b) in enumerate(BONDS, start=1))
    return (
        f"methanol\n{header}\n\n  0  0  0     0  0            999 V3000\nM  V30 BEGIN CTAB\nM  V30 COUNTS 6 5 0 0 0\n"
        f"M  V30 BEGIN ATOM\n{atoms}M  V30 END ATOM\nM  V30 BEGIN BOND\n{table}M  V30 END BOND\nM  V30 END CTAB\nM  END\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        v2000(),
        v2000().replace("\n", "\r\n"),
        v2000() + "$$$$\n",
        v2000(header=""),
        v2000(bonds=False),
        v2000().replace(" H  ", " D  "),
        v2000(header="  -OWN-  01012600002D"),  # 2D, it says, and has a third coordinate
        v2000().replace("999 V2000", ""),
        v2000("M  ISO  1   3   2\n"),
        v3000(),
        v3000() + "$$$$\n",
        v3000().replace(" H ", " D "),
        v3000().replace("M  V30 2 O -0.0466", "M  V30 2 O -\nM  V30 -0.0466"),
        v3000().replace("M  V30 1 C", "M  V30 22 C").replace(" 1 1 ", " 1 22 "),
        v3000(" CFG=1 MASS=16"),
    ],
)
@pytest.mark.parametrize("name", ["mol", "sdf"])
def test_methanol(text, name):
    frame = one(name, text)
    assert is_methanol(frame, 5e-5)
    assert (frame.charge, frame.multiplicity) == (None, None)


def test_columns_that_are_not_where_they_belong():
    text = v2000()
    head, body = text.split("V2000\n")
    lines = body.split("\n")
    assert is_methanol(
        one("mol", head + "V2000\n" + "\n".join(" ".join(line.split()) for line in lines[:6]) + "\nM  END\n"), 5e-5
    )


@pytest.mark.parametrize(
    ("text", "charge", "multiplicity"),
    [
        (v2000("M  CHG  1   2  -1\n"), -1, 2),
        (v2000("M  CHG  2   2  -1   1   1\n"), 0, None),
        (v2000("M  CHG  1   2  -2\n"), -2, 1),
        (v2000("M  CHG  1   2  -1\nM  CHG  1   1  -1\n"), -2, 1),
        (v2000("M  RAD  1   1   3\n"), None, 3),
        (v2000("M  RAD  2   1   2   2   2\n"), None, 3),
        (v2000(code="5"), -6, 1),
        (v2000("M  CHG  1   2  -1\n", code="5"), -1, 2),
        (v2000() + "> <CHARGE>\n-1\n\n> <MULTIPLICITY>\n2\n\n$$$$\n", -1, 2),
        (v2000() + ">  <total_charge>  (1)\n2\n\n$$$$\n", 2, 1),
        (v3000(" CHG=-1"), -1, 2),
        (v3000(" CHG=-2"), -2, 1),
        (v3000(" RAD=3"), None, 3),
    ],
)
def test_what_is_stated_of_charge_and_spin(text, charge, multiplicity):
    frame = one("sdf", text)
    assert (frame.charge, frame.multiplicity) == (charge, multiplicity)


def test_a_contradiction_inside_a_file():
    with pytest.raises(UnreadableError) as caught:
        one("sdf", v2000("M  CHG  1   2  -1\n") + "> <CHARGE>\n0\n\n$$$$\n")
    assert caught.value.code == "invalid_request"
    with pytest.raises(UnreadableError):
        one("sdf", v2000() + "> <CHARGE>\n0.5\n\n$$$$\n")


def test_what_rdkit_writes_is_read():
    chem = pytest.importorskip("rdkit.Chem")
    from rdkit.Chem import rdDepictor, rdDistGeom

    for smiles, charge in (
        ("OCC", 0),
        ("[NH3+]CC[NH3+]", 2),
        ("[NH3+]CC(=O)[O-]", 0),
        ("[O-]C(=O)C(=O)[O-]", -2),
        ("c1ccccc1", 0),
    ):
        molecule = chem.AddHs(chem.MolFromSmiles(smiles))
        rdDistGeom.EmbedMolecule(molecule, randomSeed=1)
        positions = molecule.GetConformer().GetPositions()
        for write in (chem.MolToMolBlock, chem.MolToV3KMolBlock):
            frame = one("sdf", write(molecule))
            assert frame.numbers == [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
            np.testing.assert_allclose(frame.positions, positions, atol=6e-5)
            assert (frame.charge or 0) == charge
            assert not frame.notes
        drawing = chem.Mol(molecule)
        rdDepictor.Compute2DCoords(drawing)
        heavy = chem.MolFromSmiles(smiles)
        rdDistGeom.EmbedMolecule(heavy, randomSeed=1)
        for write in (chem.MolToMolBlock, chem.MolToV3KMolBlock):
            with pytest.raises(UnreadableError, match="2D drawing"):
                one("sdf", write(drawing))
            if charge != -2:
                with pytest.raises(UnreadableError, match="hydrogens"):
                    one("sdf", write(heavy))


def test_a_drawing_that_does_not_say_so():
    chem = pytest.importorskip("rdkit.Chem")
    from rdkit.Chem import rdDepictor

    molecule = chem.AddHs(chem.MolFromSmiles("CCO"))
    rdDepictor.Compute2DCoords(molecule)
    lines = chem.MolToMolBlock(molecule).split("\n")
    lines[1] = ""
    with pytest.raises(UnreadableError, match="2D drawing"):
        one("mol", "\n".join(lines))


def test_flat_molecules_are_no_drawings():
    chem = pytest.importorskip("rdkit.Chem")
    from ase.build import molecule

    for name, smiles in (("C6H6", "c1ccccc1"), ("H2O", "O"), ("HCN", "C#N"), ("CO2", "O=C=O")):
        atoms = molecule(name)
        flat = np.array(atoms.positions) @ np.linalg.svd(atoms.positions - atoms.positions.mean(0))[2].T
        text = f"{smiles}\n  -OWN-  01012600003D\n\n{len(atoms):3d}  0  0  0  0  0  0  0  0  0999 V2000\n" + "".join(
            f"{x:10.4f}{y:10.4f}{0:10.4f} {s:3s} 0  0\n"
            for s, (x, y, _) in zip(atoms.symbols, flat - flat.mean(0), strict=True)
        )
        assert len(one("mol", text + "M  END\n").numbers) == len(atoms)
    assert chem is not None


def test_some_hydrogens_left_out_are_said():
    text = (
        v2000()
        .replace("  6  5  0", "  5  4  0")
        .replace("    0.8755   -1.0580    0.0000 H   0  0  0  0  0  0\n", "")
        .replace("  2  6  1  0\n", "")
    )
    frame = one("mol", text)
    assert len(frame.numbers) == 5
    assert "1 more hydrogens" in frame.notes[0]


@pytest.mark.parametrize("symbol", ["R#", "A", "Q", "*", "LP", "Xx", "Du"])
def test_placeholders_are_refused_with_their_line(symbol):
    with pytest.raises(UnreadableError) as caught:
        one("mol", v2000().replace(" O  ", f" {symbol:3s}"))
    assert caught.value.line == 6


def test_a_bad_record_costs_itself_alone():
    frames = read_structures(
        "sdf",
        (v2000() + "$$$$\n")
        + (v2000(header=" " * 20 + "2D").replace("0.8904", "0.0000") + "$$$$\n")
        + (v3000() + "$$$$\n"),
        5,
    )
    assert [isinstance(frame, Frame) for frame in frames] == [True, False, True]
    assert isinstance(frames[1], UnreadableError)
    assert frames[1].frame == 2
