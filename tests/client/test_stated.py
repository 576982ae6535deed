"""What an ase.Atoms states is what the server reads from the file that ASE writes of it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from ase import Atoms
from ase.io import write

from model.structure_files.frame import Frame
from model.structure_files.read import read_structures
from tracegrad_client import InvalidInputError, TraceGradWarning
from tracegrad_client.structure import as_molecule

OH = {"symbols": "OH", "positions": [[0, 0, 0], [0, 0, 0.97]]}
WATER = {"symbols": "OHH", "positions": [[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]]}


def assert_read_alike(atoms: Atoms) -> None:
    """The client reads an Atoms as the server reads the file that ASE writes of it."""
    text = io.StringIO()
    write(text, atoms, format="extxyz")
    (frame,) = read_structures("extxyz", text.getvalue(), 1)
    assert isinstance(frame, Frame)
    found = as_molecule(atoms)
    assert (found.charge, found.multiplicity) == (frame.charge or 0, frame.multiplicity or 1)


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"charge": -1},
        {"Charge": -1.0},
        {"CHARGE": "-1"},
        {"total_charge": "1-"},
        {"totalCharge": -1},
        {"q": -1, "mult": 3},
        {"charge": -1, "spin": 1},
        {"charge": 0, "spin": 2},
        {"charge": -1, "spin": 0},
        {"charge": 1},
        {"uhf": 1},
        {"n_unpaired": 1, "net_charge": 0},
        {"Multiplicity": 2},
        {"spin_multiplicity": 2},
        {"mulliken_charge": 0.31, "comment": "charged"},
        {"atom_charge": -0.5, "charge": -1},
    ],
)
@pytest.mark.parametrize("system", [OH, WATER], ids=["OH", "water"])
def test_info_is_read_as_the_servers_reader_does(info: dict[str, Any], system: dict[str, Any]) -> None:
    atoms = Atoms(**system)
    atoms.info.update(info)
    assert_read_alike(atoms)


@pytest.mark.parametrize(
    ("charges", "moments"), [([-1, 0], []), ([-0.7, -0.3], []), ([0, 0], [1, 0]), ([0, 0], [-1.2, 0.1]), ([], [])]
)
def test_charges_and_moments_of_atoms_are_read_as_the_servers_reader_does(charges: list, moments: list) -> None:
    atoms = Atoms(**OH)
    if charges:
        atoms.set_initial_charges(charges)
    if moments:
        atoms.set_initial_magnetic_moments(moments)
    assert_read_alike(atoms)


@pytest.mark.parametrize(
    ("info", "said"),
    [({"charge": 0.5}, "whole"), ({"Charge": "lots"}, "no number"), ({"charge": 1, "total_charge": 2}, "1 and 2")],
)
def test_what_cannot_be_meant_is_refused(info: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        as_molecule(Atoms(**WATER, info=info))


def test_partial_charges_that_sum_to_nothing_whole_are_a_warning() -> None:
    atoms = Atoms(**OH)
    atoms.set_initial_charges([-0.7, 0.2])
    with pytest.warns(TraceGradWarning, match=r"-0\.50"):
        assert as_molecule(atoms).charge == 0
