"""The door to files of matrices: which format something is, and its reader and writer by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model.errors import MissingFileError, UnknownFormatError
from model.formats.abacus import is_abacus, outline_abacus, read_abacus, write_abacus
from model.formats.crystal_h5 import is_crystal_h5, outline_crystal_h5, read_crystal_h5, structures_of
from model.formats.deeph import is_deeph, outline_deeph, read_deeph, write_deeph
from model.formats.deeph_legacy import is_deeph_legacy, outline_deeph_legacy, read_deeph_legacy, write_deeph_legacy
from model.formats.matrices import Matrices, Outline
from model.formats.siesta import is_siesta, read_siesta, write_siesta
from model.formats.units import CODATA_EV, DEEPH_EV, HARTREE, RYDBERG, EnergyUnit


@dataclass(frozen=True)
class Codec:
    """One format.

    Attributes:
        what: in a few words, for people.
        recognises: whether a path is of this format.
        outline: path -> what is known without the matrices.
        read: path and wanted unit of energy -> matrices.
        write: matrices and a new folder; None where the format is only read.
        unit: in which the format holds energies.
    """

    what: str
    recognises: Callable[[Path], bool]
    outline: Callable[[Path], Outline]
    read: Callable[[Path, EnergyUnit], Matrices]
    write: Callable[[Matrices, Path], None] | None
    unit: EnergyUnit


FORMATS: Final[Mapping[str, Codec]] = {
    "deeph": Codec("DeepH folder, new layout", is_deeph, outline_deeph, read_deeph, write_deeph, DEEPH_EV),
    "deeph-legacy": Codec(
        "DeepH folder, legacy layout",
        is_deeph_legacy,
        outline_deeph_legacy,
        read_deeph_legacy,
        write_deeph_legacy,
        DEEPH_EV,
    ),
    "abacus": Codec(
        "ABACUS run with H(R), S(R) as sparse text", is_abacus, outline_abacus, read_abacus, write_abacus, RYDBERG
    ),
    "siesta": Codec(
        "SIESTA's .HSX, .TSHS, .DM",
        is_siesta,
        lambda path: read_siesta(path).outline,
        read_siesta,
        write_siesta,
        CODATA_EV,
    ),
    "crystal-h5": Codec(
        "HDF5 file of many crystals",
        is_crystal_h5,
        outline_crystal_h5,
        lambda path, unit: read_crystal_h5(path, None, unit),
        None,
        CODATA_EV,
    ),
}
"""By name; a path of none of them, or of two, is not read without being named."""


def identify(path: Path) -> str:
    """Name of a path's format.

    Raises:
        MissingFileError: nothing is there.
        UnknownFormatError: none of the formats, or more than one.
    """
    if not path.exists():
        raise MissingFileError(f"{path} is not there.")
    found = [name for name, codec in FORMATS.items() if codec.recognises(path)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownFormatError(f"{path} could be {' or '.join(found)}.", hint="Name the format, or a single file.")
    inside = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) if path.is_dir() else "a file"
    raise UnknownFormatError(
        f"{path} is of no known format (it is {inside or 'an empty folder'}).",
        allowed=[f"{name} ({codec.what})" for name, codec in FORMATS.items()],
    )


def read(path: Path, format: str | None = None, unit: EnergyUnit = HARTREE) -> Matrices:
    """Read the matrices of one structure.

    Args:
        path: file or folder.
        format: a key of ``FORMATS``; recognised by itself if not given.
        unit: of the result's energies.

    Raises:
        UnknownFormatError: a format that is not known, or a path that is not of it.
        FormatError: one of its other leaves, with the file and the reason.
    """
    if format is not None and format not in FORMATS:
        raise UnknownFormatError(f"Format {format[:40]!r} is not known.", allowed=list(FORMATS))
    if format is not None and path.exists() and not FORMATS[format].recognises(path):
        others = [name for name, codec in FORMATS.items() if codec.recognises(path)]
        looks = f"it looks like {' or '.join(others)}" if others else "it looks like none of the known formats"
        raise UnknownFormatError(f"{path} is not of the format {format!r}: {looks}.")
    return FORMATS[format or identify(path)].read(path, unit)


def write(matrices: Matrices, folder: Path, format: str) -> None:
    """Write matrices into a new folder.

    Raises:
        UnknownFormatError: a format that is not known, or only read.
        FormatError: matrices that the format has no place for.
    """
    writers = {name: codec.write for name, codec in FORMATS.items() if codec.write is not None}
    if format not in writers:
        raise UnknownFormatError(f"Format {format[:40]!r} cannot be written.", allowed=list(writers))
    writers[format](matrices, folder)


@dataclass(frozen=True)
class Entry:
    """One structure of a data set.

    Attributes:
        name: of its folder or group.
        path: file or folder.
        format: a key of ``FORMATS``.
        group: in a file of many; None elsewhere.
        split: that the file assigns it to; empty where it assigns none.
    """

    name: str
    path: Path
    format: str
    group: str | None = None
    split: str = ""

    def outline(self) -> Outline:
        """What is known without the matrices.

        Raises:
            FormatError: one of its leaves, with the file and the reason.
        """
        if self.group is not None:
            return outline_crystal_h5(self.path, self.group)
        return FORMATS[self.format].outline(self.path)

    def read(self, unit: EnergyUnit = HARTREE) -> Matrices:
        """The matrices.

        Raises:
            FormatError: one of its leaves, with the file and the reason.
        """
        if self.group is not None:
            return read_crystal_h5(self.path, self.group, unit)
        return FORMATS[self.format].read(self.path, unit)


def entries(path: Path) -> list[Entry]:
    """The structures under a path, sorted by name: its own, those of its sub-folders, or the groups of a file.

    Raises:
        MissingFileError, UnknownFormatError: nothing is there, or nothing that is known.
    """
    if is_crystal_h5(path):
        return [Entry(name, path, "crystal-h5", name, split) for name, split in structures_of(path).items()]
    if path.is_dir() and not any(codec.recognises(path) for codec in FORMATS.values()):
        inner = sorted(folder for folder in path.iterdir() if folder.is_dir())
        known = [folder for folder in inner if any(codec.recognises(folder) for codec in FORMATS.values())]
        if known:
            return [Entry(folder.name, folder, identify(folder)) for folder in known]
    return [Entry(path.name, path, identify(path))]
