"""The text of a structure file to its frames, whatever the format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from model.structure_files.by_ase import read_by_ase
from model.structure_files.documents import read_ase_json, read_cjson, read_cml
from model.structure_files.frame import Frame, Frames, UnreadableError
from model.structure_files.gaussian import read_gaussian
from model.structure_files.mol2 import read_mol2
from model.structure_files.molfile import read_molfiles
from model.structure_files.orca import read_orca
from model.structure_files.pdb import read_pdb
from model.structure_files.turbomole import read_turbomole
from model.structure_files.xyz import read_xyz

OWN_READERS: Final[Mapping[str, Callable[[str, int], Frames]]] = {
    "xyz": read_xyz,
    "extxyz": read_xyz,
    "proteindatabank": read_pdb,
    "mol": read_molfiles,
    "sdf": read_molfiles,
    "mol2": read_mol2,
    "turbomole": read_turbomole,
    "gaussian-in": read_gaussian,
    "orca-in": read_orca,
    "cjson": read_cjson,
    "cml": read_cml,
    "json": read_ase_json,
}
"""By ASE's names, where it has one."""

FORMAT_OF_SUFFIX: Final[Mapping[str, str]] = {
    name: name for name in ("xyz", "extxyz", "mol", "sdf", "mol2", "cjson", "cml")
} | {
    "pdb": "proteindatabank",
    "ent": "proteindatabank",
    "tmol": "turbomole",
    "gjf": "gaussian-in",
    "com": "gaussian-in",
    "gau": "gaussian-in",
    "inp": "orca-in",
    "orca": "orca-in",
}
"""Of the files of molecules, in lower case and without the dot."""


def read_structures(file_format: str, text: str, max_frames: int) -> Frames:
    """Read the structures of a file.

    Args:
        file_format: a name of ``OWN_READERS``, or one of ASE's.
        text: the whole file.
        max_frames: so many at most.

    Returns:
        for each structure a frame, or what is wrong with it; a file without any is one frame without atoms.

    Raises:
        UnreadableError: what is wrong with the file as a whole.
        ManyFramesError: more than ``max_frames`` structures.
        Exception: whatever a reader raises on text that it cannot read.
    """
    text = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    reader = OWN_READERS.get(file_format)
    frames = reader(text, max_frames) if reader is not None else read_by_ase(file_format, text, max_frames)
    if len(frames) == 1 and isinstance(frames[0], UnreadableError):
        frames[0].frame = None
    return frames or [Frame([], [])]
