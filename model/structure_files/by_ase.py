"""Formats that are ASE's to read, and what it would read wrongly without a word."""

from __future__ import annotations

import io
import re
import tempfile
import warnings
from pathlib import Path
from typing import Final

from model.structure_files.cif import bad_row_of_atoms, check_cif
from model.structure_files.espresso import bad_card
from model.structure_files.frame import Frame, Frames, ManyFramesError, UnreadableError
from model.structure_files.stated import Stated
from model.structure_files.xyz import from_atoms

_IN_ESPRESSO: Final = re.compile(r"^\s*(tot_charge|tot_magnetization)\s*=\s*([^\s,!]+)", re.MULTILINE | re.IGNORECASE)

_FINDERS: Final = {"cif": bad_row_of_atoms, "espresso-in": bad_card}
"""What looks for a mistake and its line, of formats whose readers take the whole file."""
_QUOTED: Final = re.compile(r"[`'\"]([^`'\"]+)[`'\"]")
"""What an error of ASE's or Python's cites: a word that is no number, an element, a space group."""


class _Lines(io.StringIO):
    """A text that knows how far it was read, if it was read line by line."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._read = 0
        self._as_a_whole = False

    @property
    def place(self) -> int | None:
        """The last line that was read, from 1; None where none was, or where the reader took all lines before it looked."""
        return None if self._as_a_whole or not self._read else self._read

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]  # typeshed has bytes
        line = super().readline(-1 if size is None else size)
        self._read += bool(line)
        return line

    def __next__(self) -> str:  # type: ignore[override]  # typeshed has bytes
        try:
            return super().__next__()  # through readline()
        except StopIteration:
            self._as_a_whole = True
            raise

    def readlines(self, hint: int | None = -1, /) -> list[str]:  # type: ignore[override]  # typeshed has bytes
        self._as_a_whole = True
        return super().readlines(-1 if hint is None else hint)

    def read(self, size: int | None = -1, /) -> str:
        self._as_a_whole = True
        return super().read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        place = super().seek(offset, whence)
        self._read = self.getvalue().count("\n", 0, place)
        return place


def read_by_ase(file_format: str, text: str, max_frames: int) -> Frames:
    """Read a file of one of ASE's formats.

    Raises:
        ManyFramesError: more than ``max_frames``.
        UnreadableError: what ASE would misread, and where its reader failed, if it reads line by line.
        Exception: whatever its reader raises.
    """
    from ase.io import read
    from ase.io.formats import ioformats

    if file_format == "lammps-data" and not re.search(r"^\s*(Masses|Atom Type Labels)\b", text, re.MULTILINE):
        # without them ASE takes atom type 1 for hydrogen, 2 for helium, ...
        raise UnreadableError(
            "There is no Masses section.", hint="It is needed: it says which element each atom type is."
        )
    if file_format == "cif":
        check_cif(text)
    known = ioformats[file_format]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are for those who program with ASE
        index = slice(0, max_frames + 1)
        stream = io.BytesIO(text.encode()) if known.isbinary else _Lines(text)
        try:
            if known.acceptsfd:
                found = list(read(stream, index=index, format=file_format))
            else:
                with tempfile.TemporaryDirectory(dir=".") as folder:
                    path = Path(folder, "structure")
                    path.write_text(text)
                    found = list(read(str(path), index=index, format=file_format))
        except MemoryError:
            raise
        except Exception as error:
            explained = _explained(error, file_format, text, stream)
            if explained is None:
                raise
            raise explained from error
    if len(found) > max_frames:
        raise ManyFramesError
    frames: Frames = []
    for atoms in found:
        stated = Stated()
        stated.say_keys(atoms.info)
        if file_format == "espresso-in":
            for name, value in _IN_ESPRESSO.findall(text):
                number = value.lower().replace("d", "e")
                if name.lower() == "tot_charge":
                    stated.say_charge(number)
                elif float(number) >= 0:
                    stated.say_multiplicity(float(number) + 1)
        frame: Frame = from_atoms(atoms, stated)
        if file_format == "cube":
            frame.pbc = (False, False, False)  # its box is that of the grid; a cube does not say whether it repeats
        frames.append(frame)
    return frames


def _explained(error: Exception, file_format: str, text: str, stream: io.IOBase) -> UnreadableError | None:
    """What is wrong with the text and where, as far as the reader's error or the place where it stopped tells."""
    find = _FINDERS.get(file_format)
    if find is not None and (bad := find(text)) is not None:
        return bad
    place = stream.place if isinstance(stream, _Lines) else None
    if place is not None:
        detail = f"A reader of {file_format} files stops here: what is wrong is in this line or shortly before."
        return UnreadableError(detail, line=place)
    if isinstance(error, TypeError | AttributeError):
        return None  # they cite Python's names
    detail = f"A reader of {file_format} files does not understand what stands here."
    for cited in _QUOTED.findall(str(error)):
        for number, line in enumerate(text.splitlines(), 1):
            if cited in line.split() or (len(cited) > 1 and cited in line):
                return UnreadableError(detail, line=number)
    return None
