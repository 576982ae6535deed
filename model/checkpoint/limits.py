"""How large what stands in a checkpoint may be. A folder comes from somewhere else: what no release writes is refused by name
before anything is computed or allocated for it."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from model.errors import CheckpointError
from model.structure import SYMBOLS

MAX_CARD_BYTES: Final = 2**20
MAX_GOLDEN_BYTES: Final = 16 * 2**20
MAX_WEIGHTS_BYTES: Final = 8 * 2**30
MAX_GOLDEN_STRUCTURES: Final = 32
MAX_GOLDEN_ATOMS: Final = 1000
"""Of all golden structures together: they are predicted at every load, moved and unmoved."""
MAX_GOLDEN_BLOCKS: Final = 100_000
"""Atoms and pairs of one golden structure."""


def _known_element(symbol: str) -> str:
    if symbol not in SYMBOLS[1:]:
        raise ValueError("Input should be the symbol of an element")
    return symbol


def _known_pair(name: str) -> str:
    first, _, second = name.partition("-")
    if not (first in SYMBOLS[1:] and second in SYMBOLS[1:]):
        raise ValueError("Input should be two symbols of elements, such as C-H")
    return name


Word = Annotated[str, Field(max_length=200)]
Text = Annotated[str, Field(max_length=20_000)]
Count = Annotated[int, Field(ge=0, le=10**9)]
Element = Annotated[int, Field(ge=1, le=len(SYMBOLS) - 1)]
Symbol = Annotated[str, AfterValidator(_known_element)]
SymbolPair = Annotated[str, AfterValidator(_known_pair)]
Shells = Annotated[list[Annotated[int, Field(ge=0, le=6)]], Field(min_length=1, max_length=40)]
"""Angular momenta of an element's shells; cc-pV6Z has up to l = 6, and def2-QZVPP's heaviest elements 27 shells."""
Electrons = Annotated[int, Field(ge=0, le=len(SYMBOLS) - 1)]
Charges = Annotated[list[Annotated[int, Field(ge=-20, le=20)]], Field(min_length=1, max_length=41)]
Multiplicities = Annotated[list[Annotated[int, Field(ge=1, le=20)]], Field(min_length=1, max_length=20)]
Cutoff = Annotated[float, Field(gt=0.0, le=50.0)]
"""Å; the longest pairs of any basis of local orbitals end before."""


def read_json(path: Path, most_bytes: int) -> Any:
    """A JSON file of a checkpoint.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is no file of at most so many bytes, or no JSON.
    """
    check_size(path, most_bytes)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.parent.name}/{path.name} cannot be read: {error}.") from error


def check_size(path: Path, most_bytes: int) -> None:
    """Refuse what is no regular file (reading a pipe never ends) or too large.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: as said.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > most_bytes:
        raise CheckpointError(
            f"{path.parent.name}/{path.name} cannot be read: it is no regular file of at most {most_bytes} bytes.",
            hint="Release the checkpoint again with 'python -m training release'.",
        )
