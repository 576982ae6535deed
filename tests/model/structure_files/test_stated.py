"""Charge and multiplicity as the formats state them: read, or refused, never dropped."""

from __future__ import annotations

import io
import json

import pytest
from ase import Atoms
from ase.io import write

from model.structure_files.frame import UnreadableError
from tests.model.structure_files.methanol import NUMBERS, POSITIONS, one, rows, xyz


@pytest.mark.parametrize(
    ("comment", "charge", "multiplicity"),
    [
        ("charge=-2 multiplicity=1", -2, 1),
        ("charge = 1", 1, 2),
        ("Charge: -2", -2, 1),
        ("CHARGE=1 MULT=2", 1, 2),
        ("q=1 mult=2", 1, 2),
        ("methanol charge=2", 2, 1),
        ("total charge = 1, spin multiplicity = 2", 1, 2),
        ("total_charge=-1 spin_multiplicity=2", -1, 2),
        ("molecular_charge=0 molecular_multiplicity=3", 0, 3),
        ("charge -1", -1, 2),
        ("a cation of charge +1", 1, 2),
        ("charge=2-", -2, 1),
        ("charge='1'", 1, 2),
        ("charge=1.0", 1, 2),
        ("charge=+", 1, 2),
        ("-2 1", -2, 1),
        ("0 3", 0, 3),
        ("0,1", 0, 1),
        ("charge=1 spin=2", 1, 2),
        ("charge=0 spin=1", 0, 1),
        ("charge=0 spin=0", 0, 1),
        ("charge=0 spin=2", 0, 3),
        ("charge=1 uhf=1", 1, 2),
        ("charge=0 charge_a=1 charge_b=-1", 0, None),
        ("E=-115.7 charge=-2", -2, 1),
        ("methanol", None, None),
        ("0", None, None),
        ("step 5 1", None, None),
        ("Mulliken charge = 0.32", None, None),
        ("electron charge density", None, None),
    ],
)
def test_comments_of_xyz_files(comment, charge, multiplicity):
    frame = one("xyz", xyz(comment))
    assert (frame.charge, frame.multiplicity) == (charge, multiplicity)
    if (
        "=" in comment
        and "spin multiplicity" not in comment
        and "," not in comment
        and "cation" not in comment
        and "Mulliken" not in comment
    ):
        extended = one(
            "extxyz",
            xyz("Properties=species:S:1:pos:R:3 " + comment.replace(" = ", "=").replace("total charge", "charge")),
        )
        assert (extended.charge, extended.multiplicity) in ((charge, multiplicity), (charge, multiplicity or 1))


@pytest.mark.parametrize(
    "comment", ["charge=0.5", "Charge: -0.5", "charge=1 charge=2", "-1 2 charge", "multiplicity=0", "charge=1000"]
)
def test_nonsense_is_refused(comment):
    if comment == "-1 2 charge":
        assert one("xyz", xyz(comment)).charge is None
        return
    for text in (xyz(comment), xyz("Properties=species:S:1:pos:R:3 " + comment.replace(": ", "="))):
        if "charge=1 charge=2" in comment and "Properties" in text:
            continue  # ASE keeps the last of two equal keys
        with pytest.raises(UnreadableError) as caught:
            one("xyz", text)
        assert caught.value.code == "invalid_request"
        assert caught.value.line == 2


def test_charges_and_moments_of_atoms():
    atoms = Atoms(NUMBERS, POSITIONS)
    atoms.set_initial_charges([0.5, 0.5, 0, 0, 0, 0])
    atoms.set_initial_magnetic_moments([0, 1.0, 0, 0, 0, 0])
    buffer = io.StringIO()
    write(buffer, atoms, format="extxyz")
    frame = one("extxyz", buffer.getvalue())
    assert (frame.charge, frame.multiplicity) == (1, 2)
    buffer = io.StringIO()
    write(buffer, atoms, format="json")
    frame = one("json", buffer.getvalue())
    assert (frame.charge, frame.multiplicity) == (1, 2)
    atoms.set_initial_charges([0.3, 0.1, 0, 0, 0, 0])
    atoms.set_initial_magnetic_moments(None)
    buffer = io.StringIO()
    write(buffer, atoms, format="extxyz")
    frame = one("extxyz", buffer.getvalue())
    assert frame.charge is None
    assert "0.40" in frame.notes[0]


def test_aims_states_them_at_its_atoms():
    text = rows("atom {x} {y} {z} {s}")
    assert one("aims", text).charge is None
    assert one("aims", text.replace(" O\n", " O\ninitial_charge -1\n")).charge == -1
    frame = one("aims", text.replace(" O\n", " O\ninitial_moment 2\n"))
    assert frame.multiplicity == 3


def test_espresso_states_them_in_its_system():
    text = (
        "&SYSTEM\n ibrav=0, nat=6, ntyp=3,\n tot_charge = {charge}\n/\nATOMIC_SPECIES\nC 12 C.upf\nO 16 O.upf\nH 1 H.upf\n"
        "CELL_PARAMETERS angstrom\n10 0 0\n0 10 0\n0 0 10\nATOMIC_POSITIONS angstrom\n" + rows()
    )
    assert one("espresso-in", text.format(charge="1.0d0")).charge == 1
    assert one("espresso-in", text.format(charge="0.0")).charge == 0


def cjson(**properties: object) -> str:
    """As Avogadro writes it."""
    flat = [value for position in POSITIONS.tolist() for value in position]
    atoms = {
        "elements": {"number": NUMBERS},
        "coords": {"3d": flat},
        "formalCharges": properties.pop("formal", [0] * 6),
    }
    return json.dumps({"chemicalJson": 1, "atoms": atoms, "properties": properties})


def test_chemical_json():
    assert one("cjson", cjson()).charge is None
    frame = one("cjson", cjson(totalCharge=-2, totalSpinMultiplicity=1))
    assert (frame.charge, frame.multiplicity) == (-2, 1)
    assert one("cjson", cjson(formal=[0, -1, 0, 0, 0, 0])).charge == -1
    with pytest.raises(UnreadableError):
        one("cjson", cjson(formal=[0, -1, 0, 0, 0, 0], totalCharge=0))
    with pytest.raises(UnreadableError):
        one("cjson", cjson(totalCharge=0.5))
    with pytest.raises(UnreadableError, match="three dimensions"):
        one("cjson", cjson().replace('"3d"', '"2d"'))


def test_rows_of_ases_database():
    buffer = io.StringIO()
    write(buffer, Atoms(NUMBERS, POSITIONS), format="json")
    document = json.loads(buffer.getvalue())
    document["1"]["key_value_pairs"] = {"charge": -1, "multiplicity": 2}
    frame = one("json", json.dumps(document))
    assert (frame.charge, frame.multiplicity) == (-1, 2)
