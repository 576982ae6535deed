"""What a command is about: structure files, folders, patterns, frames of a file, standard input."""

from __future__ import annotations

import argparse
import glob
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tracegrad_client.errors import InvalidInputError, TraceGradError
from tracegrad_client.frames import split
from tracegrad_client.structure_file import FORMAT_OF_NAME, StructureFile, format_of_name

STANDARD_STREAM: Final = "-"
IN_FOLDERS: Final = frozenset(
    (
        "xyz",
        "extxyz",
        "vasp",
        "poscar",
        "cif",
        "pdb",
        "ent",
        "mol",
        "sdf",
        "mol2",
        "gjf",
        "com",
        "gau",
        "inp",
        "orca",
        "cml",
    )
) | frozenset(("gen", "tmol", "xsf", "res", "cjson"))
"""Suffixes that are taken from a folder; other files are named by themselves."""


@dataclass(frozen=True)
class Input:
    """One structure of a command line.

    Attributes:
        name: for messages; frames of a file are ``name#2``.
        stem: of the file that is written.
        file_name: that is sent.
        content: the bytes that are sent.
        options: form fields that go with it: the format, where the name does not tell.
        path: of the file, or None for standard input.
        first_line: of a frame, in its file.
        error: why there is nothing to send.
    """

    name: str
    stem: str
    file_name: str = ""
    content: bytes = b""
    options: dict[str, str] = field(default_factory=dict)
    path: Path | None = None
    first_line: int = 1
    error: TraceGradError | None = None


def add_files(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what a command is about."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="structure files (xyz, extxyz, sdf, mol, pdb, gjf ...), folders of them, or patterns; every frame of a file "
        "counts; - reads standard input (with --format)",
    )
    parser.add_argument("--format", help="ASE's name of the files' format, where the suffix does not tell")


def gather(words: Sequence[str], file_format: str | None) -> list[Input]:
    """Every structure, in order; what cannot be read is there with its error."""
    return [each for word in words for each in _of_word(word, file_format)]


def _of_word(word: str, file_format: str | None) -> Iterator[Input]:
    if word == STANDARD_STREAM:
        yield from _frames("standard input", "structure", sys.stdin.buffer.read(), file_format, None)
        return
    path = Path(word)
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if each.is_file() and _is_structure(each))
        if not found:
            yield Input(word, path.name, error=InvalidInputError(f"There is no structure file in the folder {word}."))
        for each in found:
            yield from _of_file(each, file_format)
    elif not path.exists() and glob.has_magic(word):
        matches = sorted(glob.glob(word))
        if not matches:
            yield Input(word, path.stem, error=InvalidInputError(f"No file fits the pattern {word}."))
        for match in matches:
            yield from _of_file(Path(match), file_format)
    else:
        yield from _of_file(path, file_format)


def _is_structure(path: Path) -> bool:
    name = path.name.lower()
    return name in FORMAT_OF_NAME or (not name.startswith(".") and format_of_name(name) in IN_FOLDERS)


def _of_file(path: Path, file_format: str | None) -> Iterator[Input]:
    try:
        content = path.read_bytes()
    except OSError as error:
        yield Input(str(path), path.stem, error=InvalidInputError(f"{path}: {error.strerror or error}."))
        return
    yield from _frames(str(path), path.name, content, file_format, path)


def _frames(name: str, file_name: str, content: bytes, file_format: str | None, path: Path | None) -> Iterator[Input]:
    options = {} if file_format is None else {"format": file_format}
    stem = Path(file_name).stem or file_name
    try:
        frames = split(StructureFile.decode(file_name, content, file_format))
    except TraceGradError:
        frames = []  # the server says what is wrong with it
    if len(frames) < 2:
        yield Input(name, stem, file_name, content, options, path)
        return
    digits = len(str(len(frames)))
    for number, frame in enumerate(frames, start=1):
        yield Input(
            f"{name}#{number}",
            f"{stem}_{number:0{digits}d}",
            file_name,
            frame.text.encode(),
            options,
            path,
            frame.first_line,
        )
