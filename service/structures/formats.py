"""Which structure files are read: the closed list, the refused ones with the reason, and what they are called.

A format comes from a request's ``format``, from a file name's suffix or from a content type; whatever is not listed
here never reaches ASE. No import of ASE: the parser process has it to itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from model.structure_files.read import FORMAT_OF_SUFFIX
from service.errors import ServiceError

ACCEPTED: Final[tuple[str, ...]] = (
    "xyz",
    "extxyz",
    "vasp",
    "cif",
    "proteindatabank",
    "mol",
    "sdf",
    "mol2",
    "gaussian-in",
    "orca-in",
    "cml",
    "gen",
    "turbomole",
    "xsf",
    "cube",
    "espresso-in",
    "castep-cell",
    "aims",
    "res",
    "lammps-data",
    "cjson",
    "json",
)

_OPENS_FILES = "it names other files, which a server must not open"
_DATABASE = "it is a database, not a structure file"
_BINARY = "it is a binary container; convert it to extxyz first"

REFUSED: Final[Mapping[str, str]] = {
    "octopus-in": _OPENS_FILES,
    "onetep-in": _OPENS_FILES,
    "acemolecule-input": _OPENS_FILES,
    "xtd": _OPENS_FILES,
    "gpw": _OPENS_FILES,
    "db": _DATABASE,
    "sqlite3": _DATABASE,
    "mysql": _DATABASE,
    "mariadb": _DATABASE,
    "postgresql": _DATABASE,
    "aselmdb": _DATABASE,
    "traj": _BINARY,
    "bundletrajectory": _BINARY,
    "netcdf": _BINARY,
    "netcdftrajectory": _BINARY,
    "dcd": _BINARY,
    "cp2k-dcd": _BINARY,
    "lammps-dump-binary": _BINARY,
    "abinit-gsr": _BINARY,
    "chk": "it holds text that PySCF executes on reading; send the structure itself",
    "hdf5": _BINARY,
    "npz": _BINARY,
}

_ALIASES: Final[Mapping[str, str]] = {
    "poscar": "vasp",
    "contcar": "vasp",
    **FORMAT_OF_SUFFIX,
    "shelx": "res",
    "cub": "cube",
    "pwi": "espresso-in",
    "cell": "castep-cell",
    "lammps": "lammps-data",
    "nc": "netcdf",
    "h5": "hdf5",
}

_WHOLE_NAMES: Final[Mapping[str, str]] = {
    "poscar": "vasp",
    "contcar": "vasp",
    "coord": "turbomole",
    "geometry.in": "aims",
}

CONTENT_TYPES: Final[Mapping[str, str]] = {
    "chemical/x-xyz": "xyz",
    "chemical/x-extxyz": "extxyz",
    "chemical/x-vasp": "vasp",
    "chemical/x-cif": "cif",
    "chemical/x-pdb": "proteindatabank",
    "chemical/x-mdl-molfile": "mol",
    "chemical/x-mdl-sdfile": "sdf",
    "chemical/x-mol2": "mol2",
    "chemical/x-gaussian-input": "gaussian-in",
    "chemical/x-orca-input": "orca-in",
    "chemical/x-cml": "cml",
    "chemical/x-dftb-gen": "gen",
    "chemical/x-turbomole": "turbomole",
    "chemical/x-xsf": "xsf",
    "chemical/x-cube": "cube",
    "chemical/x-gaussian-cube": "cube",
    "chemical/x-espresso-in": "espresso-in",
    "chemical/x-castep-cell": "castep-cell",
    "chemical/x-aims": "aims",
    "chemical/x-shelx": "res",
    "chemical/x-lammps-data": "lammps-data",
    "chemical/x-cjson": "cjson",
    "chemical/x-ase-json": "json",
}

HINTS: Final[Mapping[str, str]] = {
    "json": "Expected ASE's own JSON with numbers and positions; for plain arrays send a structure of kind 'atoms'.",
}


def resolve_format(name: str) -> str:
    """The accepted format that a caller's format name stands for.

    Raises:
        ServiceError: ``unsupported_format``, with the reason where the format is known and refused.
    """
    key = name.strip().lower()
    key = _ALIASES.get(key, key)
    if key in ACCEPTED:
        return key
    if key in REFUSED:
        detail = f"The format {key} is refused: {REFUSED[key]}."
    else:
        detail = "This file format is not on the list of accepted formats."
    raise ServiceError(
        "unsupported_format",
        detail,
        field="format",
        allowed=ACCEPTED,
        hint="Name one of the accepted formats, or convert the file to xyz.",
    )


def format_of_file_name(file_name: str) -> str:
    """The accepted format of an uploaded file, by its name.

    Raises:
        ServiceError: ``unsupported_format``.
    """
    base = file_name.replace("\\", "/").rsplit("/", 1)[-1].strip().lower()
    if base in _WHOLE_NAMES:
        return _WHOLE_NAMES[base]
    if "." not in base:
        raise ServiceError(
            "unsupported_format",
            "The file name has no suffix that says which format it is.",
            field="format",
            allowed=ACCEPTED,
            hint="Add the form field 'format', for example -F format=xyz.",
        )
    return resolve_format(base.rsplit(".", 1)[-1])
