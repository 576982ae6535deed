"""What a checkpoint must pass before it serves: named checks with their seconds and figures, and what a failed one says.

The reason of a failure goes out in an answer, so it names files by their folder's own name and holds neither a path nor
the text of an exception that is not ours; those go into the log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from model.errors import ModelError
from service.errors import is_out_of_memory
from service.schemas.models import CheckReport, Figure

logger = logging.getLogger(__name__)


class RejectedError(Exception):
    """A checkpoint that must not be served.

    Attributes:
        check: the check that failed.
        reason: why, for the caller of the admin routes.
        hint: what to do next.
        for_operator: why, with everything that the log may hold.
    """

    def __init__(self, check: str, reason: str, *, hint: str | None = None, for_operator: str | None = None) -> None:
        super().__init__(f"{check}: {reason}")
        self.check = check
        self.reason = reason
        self.hint = hint
        self.for_operator = for_operator or (reason if hint is None else f"{reason} {hint}")


class CheckList:
    """Runs checks one after another and keeps what they found.

    Args:
        root: absolute path around the checkpoint; a reason that holds it does not go out.
        before_each: called with the name of each check; what it raises ends the loading.
    """

    def __init__(self, root: Path, before_each: Callable[[str], None] | None = None) -> None:
        self._root = str(root)
        self._before_each = before_each
        self.passed: list[CheckReport] = []

    @contextmanager
    def check(self, name: str) -> Iterator[dict[str, Figure]]:
        """Time a check; yields the figures for it to fill in.

        Raises:
            RejectedError: for whatever the check raised.
        """
        if self._before_each is not None:
            self._before_each(name)
        figures: dict[str, Figure] = {}
        started = time.perf_counter()
        try:
            yield figures
        except RejectedError:
            raise
        except Exception as error:
            raise self._rejection(name, error) from error
        self.passed.append(CheckReport(name=name, seconds=time.perf_counter() - started, figures=figures))

    def _rejection(self, check: str, error: Exception) -> RejectedError:
        if isinstance(error, ModelError) and self._root not in str(error):
            return RejectedError(check, error.detail, hint=error.hint, for_operator=str(error))
        full = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
        if is_out_of_memory(error):
            return RejectedError(
                check,
                "There is not enough memory to load it beside the models that are loaded.",
                hint="Unload a model first, or give the server more memory.",
                for_operator=full,
            )
        if isinstance(error, OSError | ModelError):
            return RejectedError(
                check,
                "A file of the checkpoint cannot be read.",
                hint="Look at the files and their permissions; the server's log has the cause.",
                for_operator=full,
            )
        logger.error("check %s could not be done", check, exc_info=error)
        return RejectedError(
            check,
            "The check could not be done: the checkpoint's files hold something that no release writes.",
            hint="The server's log has the cause; release the checkpoint again.",
            for_operator=full,
        )
