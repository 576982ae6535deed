"""Programs that are not part of this one: found on the PATH, run in a folder, stopped when their time is over."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from training.generate.crystals.label import LabelError
from training.tables import ConfigError

INSTALL: Final = {
    "CP2K": "On Debian and Ubuntu: apt install cp2k; elsewhere see https://www.cp2k.org/download.",
    "GPAW": "On Debian and Ubuntu: apt install gpaw gpaw-data; elsewhere see https://gpaw.readthedocs.io/install.html.",
}
GRACE_SECONDS: Final = 30
"""Beyond the limit that the program knows itself."""
MOST_WORDS: Final = 400
"""Characters of a program's last words in a message."""


def find_program(command: str, name: str) -> str:
    """Path of an executable.

    Raises:
        ConfigError: not there; says how to install it.
    """
    found = shutil.which(command)
    if found is None:
        raise ConfigError(
            f"{name} is not installed: there is no executable {command!r}. {INSTALL[name]} "
            "Where it has another name, give it as [label] command."
        )
    return found


def run_program(
    command: Sequence[str],
    folder: Path,
    seconds: int,
    name: str,
    output: Path,
    environment: Mapping[str, str] | None = None,
    reason: Callable[[str], str] | None = None,
) -> None:
    """Run a program to its end, with one thread.

    Args:
        command: executable and arguments.
        folder: where it runs.
        seconds: wall time that it may take.
        name: for messages.
        output: the file that says why, if it fails.
        environment: variables besides this process's own.
        reason: finds the reason of a failure in the text of ``output``; its last words without.

    Raises:
        ConfigError: the program is not installed.
        LabelError: it failed or took too long.
    """
    executable = find_program(command[0], name)
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    with (folder / "messages.txt").open("wb") as messages:
        process = subprocess.Popen(
            [executable, *command[1:]],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            raise LabelError(f"{name} took longer than {seconds / 60:.0f} minutes.") from None
        finally:
            if process.poll() is None:  # its children too: started as a group of their own
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code:
        said = _text(output)
        found = reason(said) if reason is not None else ""
        last = " ".join((said or _text(folder / "messages.txt")).split())[-MOST_WORDS:]
        raise LabelError(f"{name} ended with code {code}: {found or last}")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
