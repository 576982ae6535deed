"""Folders that are written: never over something that is there."""

from __future__ import annotations

from pathlib import Path

from model.errors import UnsupportedContentError


def fresh_folder(folder: Path) -> Path:
    """Make a folder, or take an empty one.

    Raises:
        UnsupportedContentError: something is there already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UnsupportedContentError(f"{folder} is there already.", hint="Name a new or an empty folder.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
