"""Which jobs were submitted from here. A server lists no jobs, since their ids are what protects them; so they are kept here.

A file of JSON lines in the user's state folder (``$XDG_STATE_HOME/tracegrad/jobs.jsonl``), one added for each event.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracegrad_client.errors import InvalidInputError


@dataclass(frozen=True)
class Entry:
    """A job that was submitted.

    Attributes:
        id: the server's name for it.
        url: of the server.
        name: of the structure.
        stem: of the file that its result is written to.
        to: format of the result.
        submitted: seconds since 1970.
    """

    id: str
    url: str
    name: str
    stem: str
    to: str
    submitted: float


class Ledger:
    """The jobs of one server.

    Args:
        url: of the server.
    """

    def __init__(self, url: str) -> None:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        self.path = Path(state) / "tracegrad" / "jobs.jsonl"
        self.url = url.rstrip("/")

    def entries(self) -> list[Entry]:
        """Jobs that were submitted and not forgotten, oldest first."""
        try:
            lines = self.path.read_text().splitlines()
        except OSError:
            return []
        found: dict[str, Entry] = {}
        for line in lines:
            try:
                event = json.loads(line)
                if event["url"] != self.url:
                    continue
                if event.get("forgotten"):
                    found.pop(event["id"], None)
                else:
                    found[str(event["id"])] = Entry(**event)
            except (ValueError, KeyError, TypeError):
                continue  # a line that was cut
        return list(found.values())

    def add(self, job_id: str, name: str, stem: str, to: str) -> None:
        """Keep a job that was just submitted."""
        self._append({"id": job_id, "name": name, "stem": stem, "to": to, "submitted": time.time()})

    def forget(self, job_id: str) -> None:
        """Leave a job out from now on."""
        if any(entry.id == job_id for entry in self.entries()):
            self._append({"id": job_id, "forgotten": True})

    def named(self, words: list[str]) -> list[Entry]:
        """The jobs of ids, of their unique beginnings, or of names of structures; all where none is named.

        Raises:
            InvalidInputError: a beginning of several.
        """
        known = self.entries()
        if not words:
            return known
        found = []
        for word in words:
            fitting = [entry for entry in known if entry.id.startswith(word) or entry.name == word]
            if len(fitting) > 1:
                raise InvalidInputError(
                    f"{len(fitting)} jobs are named {word!r} or begin with it; give more of the id."
                )
            found.append(fitting[0] if fitting else Entry(word, self.url, word, word, "", 0.0))
        return found

    def _append(self, event: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(json.dumps({**event, "url": self.url}) + "\n")
