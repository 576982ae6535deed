"""The checkpoints that lie in the folder: who is there, in which versions. Reads cards, and nothing else.

A checkpoint is a folder with a ``card.json``, at ``<folder>/card.json`` or, where several versions are kept, at
``<folder>/<version>/card.json``. Its name and version are those of its card. A name from a request is looked up in what a
scan has found; it never becomes part of a path. Folders whose name begins with a dot are left alone: a new version can be
copied into one and then be renamed, so that no half copy is ever loaded.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.version import InvalidVersion, Version

from model.checkpoint.card import Card, read_card
from model.errors import CheckpointError
from service.checkpoints.checks import CheckList, RejectedError
from service.errors import ServiceError

logger = logging.getLogger(__name__)

CARD: Final = "card.json"
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Candidate:
    """A checkpoint folder as the scan found it.

    Attributes:
        name: of the card; of the folder, where the card does not read.
        version: of the card, or of the version's folder; None if neither says one.
        folder: with the checkpoint's files.
        top: name of the folder directly inside the checkpoints folder.
        card: None if it does not read.
        fault: why it cannot be loaded, as far as its card says.
    """

    name: str
    version: Version | None
    folder: Path
    top: str
    card: Card | None
    fault: RejectedError | None = None


class Catalogue:
    """What a scan found, by name."""

    def __init__(self, candidates: Mapping[str, tuple[Candidate, ...]]) -> None:
        self._candidates = candidates

    @property
    def names(self) -> list[str]:
        """Names of the checkpoints, sorted."""
        return sorted(self._candidates)

    def pick(self, name: str, version: str | None = None) -> Candidate:
        """The checkpoint of this name: the newest, or the one of this version.

        Raises:
            ServiceError: ``unknown_model`` if there is no such name or version.
            RejectedError: two folders claim the name, or the card does not read.
        """
        candidates = self._candidates.get(name, ())
        if not candidates:
            raise ServiceError(
                "unknown_model",
                "The checkpoints folder holds no checkpoint of this name.",
                field="name",
                allowed=self.names,
                hint="A checkpoint's name is the one in its card.json.",
            )
        if len({candidate.top for candidate in candidates}) > 1:
            raise RejectedError(
                "card",
                f"Two checkpoints are named {name!r}.",
                hint="Remove or rename one of them; versions of one model belong into one folder.",
            )
        if version is not None:
            candidates = tuple(candidate for candidate in candidates if candidate.version == _version(version))
            if not candidates:
                known = [str(item.version) for item in self._candidates[name] if item.version is not None]
                raise ServiceError(
                    "unknown_model", "There is no such version of this model.", field="version", allowed=known
                )
        chosen = candidates[0]
        if len(candidates) > 1 and candidates[1].version == chosen.version:
            raise RejectedError(
                "card",
                f"Two checkpoints are named {name!r} and have the same version.",
                hint="Remove or rename one of them.",
            )
        if chosen.fault is not None:
            raise chosen.fault
        return chosen


def scan(root: Path) -> Catalogue:
    """Read the cards of all checkpoints in a folder.

    Raises:
        OSError: the folder cannot be read.
    """
    found: dict[str, list[Candidate]] = {}
    for top in _subfolders(root.absolute()):  # absolute, so that paths in messages are recognised
        try:
            candidates = list(_candidates(top))
        except PermissionError:  # a volume's lost+found, for one
            logger.warning("left out %s: it may not be read", top.name)
            continue
        for candidate in candidates:
            found.setdefault(candidate.name, []).append(candidate)
    return Catalogue({name: tuple(sorted(items, key=_age, reverse=True)) for name, items in found.items()})


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _candidates(top: Path) -> Iterator[Candidate]:
    """The checkpoint in a folder, and those in its subfolders whose names are versions."""
    if (top / CARD).is_file():
        yield _candidate(top, top.name, None)
    for inner in _subfolders(top):
        if not (inner / CARD).is_file():
            continue
        stated = _version(inner.name)
        if stated is None:
            logger.warning("left out %s/%s: its name is not a version", top.name, inner.name)
            continue
        yield _candidate(inner, top.name, stated)


def _candidate(folder: Path, top: str, stated: Version | None) -> Candidate:
    fault: RejectedError | None = None
    card: Card | None = None
    try:
        with CheckList(folder.parent).check("card"):
            card = read_card(folder / CARD)
            if stated is not None and Version(card.version) != stated:
                raise CheckpointError(
                    f"The folder {top}/{folder.name} holds version {card.version}.",
                    hint="Name the folder after the version in its card.json.",
                )
    except RejectedError as error:
        fault = error
    if card is None:
        return Candidate(top, stated, folder, top, None, fault)
    return Candidate(card.name, stated or Version(card.version), folder, top, card, fault)


def _age(candidate: Candidate) -> tuple[bool, Version]:
    """Sort key. What does not say its version counts as the newest: it must not be passed over in silence."""
    return candidate.version is None, candidate.version or Version("0")


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None
