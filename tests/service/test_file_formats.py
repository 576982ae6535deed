"""The closed list: what is accepted, what is refused and why, and how a file says what it is."""

from __future__ import annotations

import pytest
from ase.io.formats import ioformats

from model.structure_files.read import OWN_READERS
from service.errors import ServiceError
from service.structures.formats import ACCEPTED, CONTENT_TYPES, REFUSED, format_of_file_name, resolve_format


def test_every_accepted_format_has_a_reader():
    for name in ACCEPTED:
        assert name in OWN_READERS or ioformats[name].can_read, name
    assert set(OWN_READERS) <= set(ACCEPTED)


def test_nothing_is_both_accepted_and_refused():
    assert not set(ACCEPTED) & set(REFUSED)
    assert set(CONTENT_TYPES.values()) <= set(ACCEPTED)


@pytest.mark.parametrize(
    ("file_name", "expected"),
    [
        ("ethanol.xyz", "xyz"),
        ("ETHANOL.XYZ", "xyz"),
        ("C:\\data\\a.b.pdb", "proteindatabank"),
        ("/somewhere/POSCAR", "vasp"),
        ("geometry.in", "aims"),
        ("coord", "turbomole"),
        ("x.cub", "cube"),
        ("methanol.com", "gaussian-in"),
        ("methanol.gjf", "gaussian-in"),
        ("orca.inp", "orca-in"),
        ("a.mol2", "mol2"),
    ],
)
def test_names_say_the_format(file_name, expected):
    assert format_of_file_name(file_name) == expected


@pytest.mark.parametrize("file_name", ["", "molecule", "a.traj", "a.db", "a.nc", "a.py", "guess.chk", ".", "a."])
def test_names_that_say_none_or_a_refused_one(file_name):
    with pytest.raises(ServiceError) as caught:
        format_of_file_name(file_name)
    assert caught.value.code == "unsupported_format"


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_the_reason(name):
    with pytest.raises(ServiceError) as caught:
        resolve_format(name)
    assert REFUSED[name] in caught.value.detail


def test_every_other_format_of_ase_is_unsupported():
    for name in set(ioformats) - set(ACCEPTED) - {"json"}:
        with pytest.raises(ServiceError):
            resolve_format(name)
