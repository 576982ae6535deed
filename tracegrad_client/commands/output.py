"""Where answers go: one file, a file a structure in a folder, or standard output; and in which format."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tracegrad_client.commands.inputs import STANDARD_STREAM, Input
from tracegrad_client.files import write_atomically

FORMATS_BY_SUFFIX: Final[Mapping[str, str]] = {
    ".chk": "chk",
    ".npz": "npz",
    ".molden": "molden",
    ".json": "json",
    ".safetensors": "safetensors",
    ".qcschema": "qcschema",
    ".cube": "cube",
}
GUESS_FORMATS: Final = (*sorted(FORMATS_BY_SUFFIX.values()), "qcschema-v1")
_SUFFIXES: Final[Mapping[str, str]] = {"qcschema-v1": ".qcschema"}


def add_output(parser: argparse.ArgumentParser, formats: Sequence[str]) -> None:
    """The arguments that say where to, and in which format."""
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        help="the file to write, an older one is replaced; of several structures a folder (with --to); - writes to standard "
        "output (with --to)",
    )
    parser.add_argument("--to", choices=sorted(formats), help="format of the output")


class Target:
    """Where the answers of a command go.

    Args:
        parser: ends the program on wrong usage.
        output: as given.
        to: format, as given.
        inputs: the structures.
        formats: by suffix.
    """

    def __init__(
        self,
        parser: argparse.ArgumentParser,
        output: str,
        to: str | None,
        inputs: Sequence[Input],
        formats: Mapping[str, str],
    ) -> None:
        self.path = Path(output)
        self.is_stream = output == STANDARD_STREAM
        self.is_folder = not self.is_stream and (output.endswith("/") or self.path.is_dir() or len(inputs) > 1)
        has_format = self.path.suffix.lower() in formats and not self.path.is_dir()
        if self.is_folder and has_format and not output.endswith("/"):
            parser.error(f"-o {output} is the name of one file, and there are {len(inputs)} structures; name a folder.")
        known = to or (None if self.is_folder else formats.get(self.path.suffix.lower()))
        if self.is_stream and len(inputs) > 1:
            parser.error(f"{len(inputs)} structures cannot all go to standard output; name a folder with -o.")
        if known is None:
            suffixes = ", ".join(formats)
            how = "with a folder give --to" if self.is_folder else f"use one of {suffixes}, or give --to"
            parser.error(f"-o {output} does not say which format is wanted; {how}.")
        self.format = known
        if self.is_folder and self.path.exists() and not self.path.is_dir():
            parser.error(f"-o {output} is a file, and there are {len(inputs)} structures; name a folder.")
        twice = [stem for stem, count in Counter(each.stem for each in inputs).items() if count > 1]
        if self.is_folder and twice:
            parser.error(
                f"several structures would be written as {twice[0]}; give them one by one, or rename the files."
            )
        for each in inputs:
            place = self.place(each)
            if place is None or each.path is None or not (place.is_file() and each.path.exists()):
                continue
            if place.samefile(each.path):
                parser.error(f"-o {output} would replace the structure file {each.path}; name another file.")

    def place(self, each: Input) -> Path | None:
        """The file for a structure; None for standard output."""
        if self.is_stream:
            return None
        if not self.is_folder:
            return self.path
        return self.path / f"{each.stem}{_SUFFIXES.get(self.format, f'.{self.format}')}"

    def write(self, each: Input, content: bytes) -> None:
        """Put an answer where it was wanted, and say so; standard output has the content alone.

        Raises:
            OSError: it could not be written.
        """
        place = self.place(each)
        if place is None:
            sys.stdout.buffer.write(content)
            sys.stdout.flush()
            return
        if self.is_folder:
            self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(place, content)
        told = f"{place}: {self.format}, {len(content)} bytes"
        print(told, file=sys.stderr if not place.is_file() else sys.stdout)
