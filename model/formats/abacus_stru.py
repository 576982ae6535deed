"""ABACUS's STRU: cell, atoms and, by the names of their orbital files, shells; and the words of INPUT and logs that matter.

Source: ABACUS documentation, advanced/input_files/stru.md. Lengths are in lattice constants (bohr) unless the file says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.errors import DamagedFileError, MissingFileError, UnsupportedContentError
from model.formats.text import read_numbers, read_text
from model.structure import SYMBOLS
from model.units import ANGSTROM_PER_BOHR

SECTIONS: Final = (
    "ATOMIC_SPECIES",
    "NUMERICAL_ORBITAL",
    "NUMERICAL_DESCRIPTOR",
    "LATTICE_CONSTANT",
    "LATTICE_VECTORS",
    "LATTICE_PARAMETERS",
    "ATOMIC_POSITIONS",
)
SHELL_LETTERS: Final = "spdfghi"
SHELLS_IN_NAME: Final = re.compile(r"_((?:\d+[spdfghi])+)\.orb$")
LATTICES: Final = {
    "sc": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "fcc": ((-0.5, 0, 0.5), (0, 0.5, 0.5), (-0.5, 0.5, 0)),
    "bcc": ((0.5, 0.5, 0.5), (-0.5, 0.5, 0.5), (-0.5, -0.5, 0.5)),
    "hexagonal": ((1, 0, 0), (-0.5, 0.75**0.5, 0), (0, 0, 1)),
}
"""Lattices by name whose vectors STRU leaves out; of the hexagonal one the third is c/a long."""


@dataclass(frozen=True, eq=False)
class Stru:
    """What STRU says.

    Attributes:
        labels: of the species, in the file's sequence.
        counts: atoms of each species.
        numbers: atomic number of each atom, (atom,).
        positions_angstrom: (atom, 3), as the file has them.
        cell_angstrom: rows are lattice vectors.
        shells: of each species, ascending l.
    """

    labels: tuple[str, ...]
    counts: tuple[int, ...]
    numbers: NDArray[np.int64]
    positions_angstrom: NDArray[np.float64]
    cell_angstrom: NDArray[np.float64]
    shells: tuple[tuple[int, ...], ...]


def read_stru(path: Path, lattice: str) -> Stru:
    """Read STRU.

    Args:
        path: the file.
        lattice: ``latname`` of INPUT; ``none`` where the vectors stand in STRU.

    Raises:
        FormatError: one of its leaves.
    """
    sections = _sections(path)
    species = [line.split() for line in sections["ATOMIC_SPECIES"]]
    labels = tuple(row[0] for row in species)
    elements = [element_of(label, str(path)) for label in labels]
    constant = read_numbers(sections["LATTICE_CONSTANT"][0].split()[0], str(path))[0] * ANGSTROM_PER_BOHR
    cell = _cell(sections, lattice, path) * constant
    kind, *rows = sections["ATOMIC_POSITIONS"]
    counts, coordinates, at = [], [], 0
    for label in labels:
        if at + 2 >= len(rows) or rows[at].split()[0] != label or not rows[at + 2].split()[0].isdigit():
            raise DamagedFileError(f"{path}: expected species {label}, its magnetism and its number of atoms.")
        count = int(rows[at + 2].split()[0])
        own = [read_numbers(" ".join(row.split()[:3]), str(path)) for row in rows[at + 3 : at + 3 + count]]
        if len(own) < count or any(len(row) != 3 for row in own):
            raise DamagedFileError(f"{path}: species {label} has fewer than {count} rows of three coordinates.")
        counts.append(count)
        coordinates += own
        at += 3 + count
    positions = np.array(coordinates).reshape(-1, 3)
    units = {"direct": cell, "cartesian": constant, "cartesian_angstrom": 1.0, "cartesian_au": ANGSTROM_PER_BOHR}
    unit = units.get(kind.split()[0].lower())
    if unit is None:
        raise UnsupportedContentError(
            f"{path}: positions in {kind.split()[0][:30]!r} are not read.", allowed=list(units)
        )
    positions = positions @ unit if isinstance(unit, np.ndarray) else positions * unit
    return Stru(
        labels,
        tuple(counts),
        np.repeat(np.array(elements, dtype=np.int64), counts),
        positions,
        cell,
        _shells(sections, labels, path),
    )


def element_of(label: str, where: str) -> int:
    """Atomic number of a species such as ``Fe1``.

    Raises:
        DamagedFileError: it begins with no element symbol.
    """
    for length in (2, 1):
        if label[:length] in SYMBOLS[1:]:
            return SYMBOLS.index(label[:length])
    raise DamagedFileError(f"{where}: species {label[:20]!r} does not begin with an element symbol.")


def input_values(path: Path) -> dict[str, str]:
    """Keywords and first words of INPUT; empty where there is none."""
    if not path.is_file():
        return {}
    rows = [line.split("#")[0].split() for line in read_text(path).splitlines()]
    return {row[0].lower(): row[1] for row in rows if len(row) > 1}


def fermi_from_log(folder: Path) -> float | None:
    """Last Fermi level of the logs of a run, eV; None without logs."""
    found: float | None = None
    for log in sorted(folder.glob("running_*.log")):
        for match in re.finditer(r"EFERMI\s*=\s*([-+.\dEe]+)\s*eV|E_Fermi\s+[-+.\dEe]+\s+([-+.\dEe]+)", read_text(log)):
            found = float(read_numbers(match[1] or match[2], str(log))[0])
    return found


def _sections(path: Path) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in read_text(path).splitlines():
        text = re.split(r"//|#", line)[0].strip()
        if text in SECTIONS:
            current = sections.setdefault(text, [])
        elif text and current is not None:
            current.append(text)
    missing = [name for name in ("ATOMIC_SPECIES", "LATTICE_CONSTANT", "ATOMIC_POSITIONS") if not sections.get(name)]
    if missing:
        raise DamagedFileError(f"{path} has no {', '.join(missing)}; is it a STRU file of ABACUS?")
    return sections


def _cell(sections: dict[str, list[str]], lattice: str, path: Path) -> NDArray[np.float64]:
    """Lattice vectors as rows, in lattice constants."""
    if "LATTICE_VECTORS" in sections:
        values = read_numbers(" ".join(sections["LATTICE_VECTORS"]), f"{path}, LATTICE_VECTORS")
        if values.size != 9:
            raise DamagedFileError(f"{path}: LATTICE_VECTORS has {values.size} numbers, not 9.")
        return values.reshape(3, 3)
    if lattice not in LATTICES:
        raise UnsupportedContentError(
            f"{path} has no LATTICE_VECTORS, and INPUT's latname is {lattice[:40]!r}.",
            allowed=sorted(LATTICES),
            hint="Write the vectors into STRU.",
        )
    cell = np.array(LATTICES[lattice], dtype=np.float64)
    if lattice == "hexagonal":
        cell[2] *= read_numbers(" ".join(sections.get("LATTICE_PARAMETERS", ["1"])), f"{path}, LATTICE_PARAMETERS")[0]
    return cell


def _shells(sections: dict[str, list[str]], labels: tuple[str, ...], path: Path) -> tuple[tuple[int, ...], ...]:
    """Shells of each species: from the orbital file's name (``..._4s2p2d1f.orb``), else from the file beside STRU."""
    names = [line.split()[0] for line in sections.get("NUMERICAL_ORBITAL", [])]
    if len(names) != len(labels):
        raise MissingFileError(
            f"{path} names {len(names)} orbital files for {len(labels)} species.",
            hint="NUMERICAL_ORBITAL says which shells an element has; without it the matrices have no orbitals.",
        )
    found = []
    for name in names:
        counts = _counts_in_name(name)
        if counts is None:
            counts = _counts_in_file(path.parent / Path(name).name)
        if not counts:
            raise MissingFileError(
                f"{path}: the shells of {name[:60]!r} are not clear.",
                hint="Its name should end like _4s2p2d1f.orb, or the file should lie beside STRU.",
            )
        found.append(tuple(ang for ang, count in sorted(counts.items()) for _ in range(count)))
    return tuple(found)


def _counts_in_name(name: str) -> dict[int, int] | None:
    match = SHELLS_IN_NAME.search(name)
    if match is None:
        return None
    return {SHELL_LETTERS.index(letter): int(n) for n, letter in re.findall(r"(\d+)([spdfghi])", match[1])}


def _counts_in_file(path: Path) -> dict[int, int]:
    """From the header of an orbital file: ``Number of Sorbital--> 4``."""
    if not path.is_file():
        return {}
    found = re.findall(r"Number of ([SPDFGHI])orbital-->\s*(\d+)", read_text(path)[:10_000])
    return {SHELL_LETTERS.index(letter.lower()): int(n) for letter, n in found if int(n)}
