"""Whatever stands for a molecule is one and the same molecule, and a file of many frames is as many molecules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from pyscf import gto

from tracegrad_client import Client, InvalidInputError, StructureFile, UnsupportedError
from tracegrad_client.frames import read_frames
from tracegrad_client.structure import ANGSTROM_PER_BOHR, as_molecule

NUMBERS = [8, 1, 1]
POSITIONS = [[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]]
XYZ = "3\nwater\nO 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n"


def kinds() -> dict[str, Any]:
    bohr = (np.array(POSITIONS) / ANGSTROM_PER_BOHR).tolist()
    schema = {"symbols": ["O", "H", "H"], "geometry": np.ravel(bohr).tolist(), "molecular_charge": 0}
    made: dict[str, Any] = {
        "mole": gto.M(atom=list(zip(NUMBERS, POSITIONS, strict=True)), basis="def2-svp", verbose=0),
        "atoms": Atoms(numbers=NUMBERS, positions=POSITIONS),
        "arrays": (NUMBERS, POSITIONS),
        "schema": schema,
    }
    qcelemental = pytest.importorskip("qcelemental")
    exact = {"fix_com": True, "fix_orientation": True, "validate": True}
    made["qcelemental 1"] = qcelemental.models.Molecule(**schema, **exact)
    v2 = pytest.importorskip("qcelemental.models.v2")
    made["qcelemental 2"] = v2.Molecule(**schema, **exact)
    return made


def test_every_kind_is_the_same_molecule() -> None:
    for name, molecule in kinds().items():
        sent = as_molecule(molecule)
        assert sent.numbers.tolist() == NUMBERS, name
        # PySCF's bohr and QCElemental's 8 decimals
        np.testing.assert_allclose(sent.positions_angstrom, POSITIONS, atol=2e-8, err_msg=name)
        assert (sent.charge, sent.multiplicity) == (0, 1), name


def test_a_qcschema_molecule_says_charge_and_multiplicity_and_is_not_contradicted() -> None:
    cation = {"symbols": ["H", "H"], "geometry": [0, 0, 0, 0, 0, 2.0], "molecular_charge": 1.0}
    assert as_molecule({**cation, "molecular_multiplicity": 2}).multiplicity == 2
    with pytest.raises(InvalidInputError, match="charge 0"):
        as_molecule(cation, charge=0)
    for wrong, said in (
        ({"real": [True, False]}, "ghost"),
        ({"molecular_charge": 0.5}, "whole"),
        ({"symbols": ["H", "Gh"]}, "Gh"),
        ({"geometry": [0, 0, 0, 0]}, "coordinates"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            as_molecule({**cation, **wrong})


def test_a_file_stands_for_its_molecule(live: Client, tmp_path: Path) -> None:
    path = tmp_path / "water.xyz"
    path.write_text(XYZ)
    expected = live.guess((NUMBERS, POSITIONS))
    for given in (path, str(path), StructureFile(XYZ, "xyz")):
        guess = live.guess(given)
        np.testing.assert_allclose(guess.density_matrix, expected.density_matrix, atol=1e-6)
        assert guess.n_electrons == 10
    assert live.orbital_energies(path).gap == pytest.approx(expected.gap, abs=1e-6)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        live.guess(tmp_path / "none.xyz")
    for wrong in (tmp_path, "O 0 0 0; H 0 0 1", "a\0b"):
        with pytest.raises(InvalidInputError, match="cannot be read"):
            live.guess(wrong)
    path.rename(tmp_path / "water")
    with pytest.raises(InvalidInputError, match="format='xyz'"):
        live.guess(tmp_path / "water")


def test_what_a_file_states_is_used_and_not_contradicted(live: Client, tmp_path: Path) -> None:
    path = tmp_path / "ion.xyz"
    path.write_text(XYZ.replace("water", "charge=2"))
    with pytest.raises(UnsupportedError) as caught:
        live.guess(path)
    assert caught.value.code == "unsupported_charge"
    with pytest.raises(UnsupportedError) as caught:
        live.guess(path, charge=0)
    assert caught.value.code == "invalid_request"


def test_one_bad_frame_costs_one_molecule(live: Client, tmp_path: Path) -> None:
    path = tmp_path / "many.xyz"
    bad = XYZ.replace("H 0 0.763", "H 0 here")
    short = XYZ.replace("3\n", "4\n")
    path.write_text(XYZ + bad + "\n" + XYZ + short + XYZ)
    frames = read_frames(path)
    assert [frame.name for frame in frames] == [f"many.xyz#{number}" for number in range(1, 6)]
    assert [frame.first_line for frame in frames] == [1, 6, 12, 17, 22]
    outcomes = live.guesses(path)
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "Guess", "UnsupportedError", "Guess", "UnsupportedError", "Guess",
    ]  # fmt: skip


SDF = """water
  test

  3  2  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.1190 O   0  0
    0.0000    0.7630   -0.4770 H   0  0
    0.0000   -0.7630   -0.4770 H   0  0
  1  2  1  0
  1  3  1  0
M  END
$$$$
"""
PDB = """MODEL        1
HETATM    1  O   HOH A   1       0.000   0.000   0.119  1.00  0.00           O
HETATM    2  H1  HOH A   1       0.000   0.763  -0.477  1.00  0.00           H
HETATM    3  H2  HOH A   1       0.000  -0.763  -0.477  1.00  0.00           H
ENDMDL
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.sdf", SDF * 2), ("a.pdb", "REMARK\n" + PDB + PDB.replace("1\n", "2\n", 1)), ("a.extxyz", XYZ + "\n\n" + XYZ)],
)
def test_frames_of_each_format_are_read_by_the_server(live: Client, tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert len(read_frames(path)) == 2
    one, other = live.guesses(path)
    assert one.n_electrons == other.n_electrons == 10  # type: ignore[union-attr]


def test_a_file_that_cannot_be_cut_is_sent_whole(tmp_path: Path) -> None:
    for name, text in (("a.xyz", "O 0 0 0\nH 0 0 1\n"), ("a.gjf", "3\n\n3\n\n"), ("POSCAR", "3\n3\n"), ("q.xyz", XYZ)):
        path = tmp_path / name
        path.write_bytes(text.encode())
        (frame,) = read_frames(path)
        assert frame.text == text
    latin = tmp_path / "l.xyz"
    latin.write_bytes(XYZ.replace("water", "Å").encode("cp1252"))
    assert read_frames(latin)[0].text == XYZ.replace("water", "Å")
    latin.write_bytes(b"\x00\xff\x01")
    with pytest.raises(InvalidInputError, match="not text"):
        read_frames(latin)
