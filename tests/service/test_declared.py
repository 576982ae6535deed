"""Files that declare more than they hold never reach a reader; true ones do, and the dear ones are known."""

from __future__ import annotations

import io

import pytest
from ase.build import bulk, molecule
from ase.io import write

from service.errors import ServiceError
from service.structures.declared import LONG_TEXT, is_dear, refuse_impossible

LIES = {
    "atoms of POSCAR": ("vasp", "x\n1\n1 0 0\n0 1 0\n0 0 1\nH\n20000000\nDirect\n0 0 0\n"),
    "atoms of an old POSCAR": ("vasp", "H\n1\n1 0 0\n0 1 0\n0 0 1\n20000000\nDirect\n0 0 0\n"),
    "atoms of LAMMPS": ("lammps-data", "x\n\n20000000 atoms\n1 atom types\n\nMasses\n\n1 1.0\n\nAtoms\n\n1 1 0 0 0\n"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_file_cannot_declare_more_than_it_holds(name: str) -> None:
    with pytest.raises(ServiceError) as caught:
        refuse_impossible(*LIES[name])
    assert caught.value.code == "unparsable_structure"
    assert len(caught.value.detail) < 200


@pytest.mark.parametrize("file_format", ["vasp", "lammps-data"])
def test_files_as_programs_write_them_pass(file_format: str) -> None:
    for atoms in (molecule("C60"), bulk("Si", cubic=True) * (2, 2, 1)):
        if not atoms.pbc.any():
            atoms.center(vacuum=3.0)
        stream = io.StringIO()
        write(stream, atoms, format=file_format)
        refuse_impossible(file_format, stream.getvalue())


def test_other_numbers_are_not_counts() -> None:
    refuse_impossible("vasp", "8 atoms\n1\n5 0 0\n0 5 0\n0 0 5\nH\n1\n10 10 10\n")


def test_dear_files_are_known_before_they_are_read() -> None:
    sites = "loop_\n_atom_site_label\n_atom_site_fract_x\n" + "".join(f"H{i} {i / 99:.3f}\n" for i in range(99))
    assert is_dear("cif", "data_x\n_space_group_name_H-M_alt 'F m -3 m'\n" + sites)
    assert not is_dear("cif", "data_x\n" + sites)
    assert not is_dear("cif", "data_x\n_space_group_name_H-M_alt 'F m -3 m'\n" + sites[:200])
    assert is_dear("xyz", " " * (LONG_TEXT + 1))
    assert not is_dear("xyz", "3\n\n" + "H 0 0 0\n" * 200)
