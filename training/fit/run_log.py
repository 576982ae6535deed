"""What a run says: ``metrics.jsonl``, ``tensorboard/`` and the terminal; of processes after the first, nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

TRAINED_EVERY = 20
"""Steps between two readings of the training loss."""


class RunLog:
    """See the module; silent where there is no board.

    Args:
        board, file, bar: where things are written; None for a silent log.
    """

    def __init__(
        self, board: SummaryWriter | None = None, file: IO[str] | None = None, bar: tqdm[None] | None = None
    ) -> None:
        self._board, self._file, self._bar = board, file, bar

    def step(self, step: int, parts: Mapping[str, float]) -> None:
        """One step is done."""
        if self._bar is None or self._board is None:
            return
        self._bar.update()
        if step % TRAINED_EVERY == 0:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in parts.items()})
            for name, value in parts.items():
                self._board.add_scalar(f"train/{name}", value, step)

    def validation(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        """A validation after so many seconds of training."""
        if self._file is None or self._board is None:
            return
        for name, value in values.items():
            self._board.add_scalar(f"validation/{name}", value, step)
        self._file.write(json.dumps({"step": step, "seconds": round(seconds, 1), **values}) + "\n")
        self._file.flush()
        self.say(f"step {step}: " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def say(self, text: str) -> None:
        """A line for whoever watches."""
        if self._bar is not None:
            self._bar.write(text)


@contextmanager
def run_log(folder: Path, *, writes: bool, first_step: int, last_step: int) -> Iterator[RunLog]:
    """The log of one call.

    Args:
        folder: of the run.
        writes: whether this process is the one that says anything.
        first_step, last_step: where the call begins and may end.
    """
    if not writes:
        yield RunLog()
        return
    with (
        SummaryWriter(str(folder / "tensorboard")) as board,
        (folder / "metrics.jsonl").open("a") as file,
        tqdm(total=last_step, initial=first_step, desc="fit", mininterval=10.0) as bar,
    ):
        yield RunLog(board, file, bar)
