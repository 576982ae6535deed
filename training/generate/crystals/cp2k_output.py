"""What CP2K's output says, and its files of H(R) and S(R).

Measured on CP2K 2023.1: the list ``KS CSR write| N periodic images`` gives the lattice vector of each file; a file has rows
``row column value`` (from 1, hartree), both triangles of R = 0. Orbitals are m = -l..l in each shell, all signs plus.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.errors import DamagedFileError
from model.formats.entries import Entries, blocks_of_entries
from model.orbitals.space import OrbitalSpace
from model.structure import Structure

KINDS: Final = {"KS": "hamiltonian", "S": "overlap"}
_FLOAT: Final = r"([-+]?\d+\.\d+(?:[EeDd][-+]?\d+)?)"
_CONVERGED: Final = re.compile(r"SCF run converged in\s+(\d+) steps")
_BOX: Final = re.compile(r"^ \*{40,}\n((?: \*.*\n)*? \* *\[ABORT\].*\n(?: \*.*\n)*?) \*{40,}$", re.MULTILINE)
_BOX_PICTURE: Final = 11
"""Columns of a box that its picture takes."""
_IMAGES: Final = r"^ *{kind} CSR write\| *(\d+) periodic images *\n.*\n((?:(?: +-?\d+){{4}} *\n)+)"


@dataclass(frozen=True)
class Cp2kResult:
    """Figures of one run.

    Attributes:
        version: of CP2K.
        cycles: of the SCF.
        n_electrons: valence electrons of a cell.
        fermi_hartree: Fermi level.
        energy_hartree: total energy of a cell.
        images: the lattice vector of each file, per kind (``KS``, ``S``): number -> (R1, R2, R3).
    """

    version: str
    cycles: int
    n_electrons: int
    fermi_hartree: float
    energy_hartree: float
    images: dict[str, dict[int, tuple[int, int, int]]]


def read_output(text: str, where: str) -> Cp2kResult:
    """Figures of an output.

    Raises:
        DamagedFileError: the SCF did not converge, or something is missing; says what.
    """
    if "SCF run NOT converged" in text:
        raise DamagedFileError(f"{where}: the SCF did not converge.", hint="Raise maximum_cycles or smearing_kelvin.")
    converged = _CONVERGED.search(text)
    if converged is None:
        raise DamagedFileError(
            f"{where}: no converged SCF. {abort_reason(text)}".strip(), hint="Was the run cut off, or out of time?"
        )
    return Cp2kResult(
        version=_find(r"CP2K version ([\w.]+)", text, "its version", where),
        cycles=int(converged[1]),
        n_electrons=int(_find(r"Number of electrons: *(\d+)", text, "the number of electrons", where)),
        fermi_hartree=float(_find(rf"Fermi energy: *{_FLOAT}", text, "the Fermi level", where)),
        energy_hartree=float(_find(rf"ENERGY\| Total FORCE_EVAL.*?: *{_FLOAT}", text, "the energy", where)),
        images={kind: _images(kind, text, where) for kind in KINDS},
    )


def _find(pattern: str, text: str, what: str, where: str) -> str:
    """The last match of a pattern: what CP2K prints again is printed better."""
    found = re.findall(pattern, text)
    if not found:
        raise DamagedFileError(f"{where} does not say {what}.", hint="Was the run cut off, or is this another version?")
    return str(found[-1])


def _images(kind: str, text: str, where: str) -> dict[int, tuple[int, int, int]]:
    match = re.search(_IMAGES.format(kind=kind), text, flags=re.MULTILINE)
    if match is None:
        raise DamagedFileError(f"{where} lists no periodic images of {KINDS[kind]}.")
    rows = [[int(word) for word in line.split()] for line in match[2].splitlines()]
    if len(rows) != int(match[1]):
        raise DamagedFileError(f"{where} lists {len(rows)} periodic images of {KINDS[kind]} and announces {match[1]}.")
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def abort_reason(text: str) -> str:
    """What an aborted run says in its last box, the one with ``[ABORT]``; empty if there is none."""
    boxes = _BOX.findall(text)
    if not boxes:
        return ""
    words = [line[_BOX_PICTURE:].rstrip(" *").strip() for line in boxes[-1].splitlines()]
    return " ".join(word for word in words if word)


def read_blocks(
    folder: Path, project: str, result: Cp2kResult, kind: str, structure: Structure, space: OrbitalSpace
) -> BlockSet:
    """H(R) (``KS``) or S(R) (``S``) of a run.

    Args:
        folder, project: where CP2K's files are and how their names begin.
        result: of the same run.
        kind: ``KS`` or ``S``.
        structure: atoms as CP2K wraps them.
        space: orbitals in the order ``e3nn``, which is CP2K's.

    Raises:
        DamagedFileError: a file is missing or does not fit the structure.
    """
    cells, parts = [], []
    for number, shift in sorted(result.images[kind].items()):
        table = _read_csr(folder / f"{project}-{kind}_SPIN_1_R_{number}-1_0.csr")
        cells.append(shift)
        parts.append(table)
    sizes = [len(part) for part in parts]
    entries = np.concatenate(parts)
    whole = Entries(
        rows=entries[:, 0].astype(np.int64) - 1,
        columns=entries[:, 1].astype(np.int64) - 1,
        cell=np.repeat(np.arange(len(cells)), sizes),
        cells=np.array(cells, dtype=np.int64),
        values=entries[None, :, 2],
    )
    return blocks_of_entries(space, structure, whole, "restricted", f"{folder.name}, {KINDS[kind]}")


def _read_csr(path: Path) -> NDArray[np.float64]:
    try:
        if path.stat().st_size == 0:
            return np.empty((0, 3))
        table = np.loadtxt(path, ndmin=2, dtype=np.float64)
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{path.name}: {error}") from error
    if table.shape[1] != 3:
        raise DamagedFileError(f"{path.name} has {table.shape[1]} columns, not row, column and value.")
    return table
