"""Work that is shared out to tasks of a batch system: part i of n takes every n-th item, from the i-th on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from training.tables import ConfigError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Part:
    """Part ``number`` of ``count``, from 1; as a text ``2/8``."""

    number: int = 1
    count: int = 1

    @classmethod
    def read(cls, text: str) -> Part:
        """Of a command line.

        Raises:
            ConfigError: no such part.
        """
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ConfigError(
                f"--part {text}: give two numbers like 2/8, the part and how many there are; parts count from 1 "
                "(in a SLURM script with --array=1-8: --part $SLURM_ARRAY_TASK_ID/8)."
            )
        return cls(int(number), int(count))

    @property
    def is_whole(self) -> bool:
        """Whether there is no other part."""
        return self.count == 1

    def of(self, items: Iterable[Item]) -> Iterator[Item]:
        """Its items, in their order."""
        return islice(items, self.number - 1, None, self.count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def require_all_done(undone: int, total: int, what: str) -> None:
    """What must hold before parts are merged.

    Raises:
        ConfigError: something is neither made nor given up.
    """
    if undone:
        raise ConfigError(
            f"{undone} of {total} {what} are not done. Start the parts that were cut off again, with the same command; what "
            "is done is kept."
        )
