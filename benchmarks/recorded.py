"""What a recorded measurement is: numbers with units, and the circumstances without which they mean nothing."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Self, TypeAlias

from machine import machine, versions
from pydantic import BaseModel, ConfigDict, Field, model_validator

Cell: TypeAlias = str | int | float | None
RESULTS: Final = Path(__file__).parent / "results"
"""One JSON file a measurement."""


class Record(BaseModel):
    """Strict: a key that nothing reads is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(Record):
    """A column of a table.

    Attributes:
        name: what it is.
        unit: of its numbers; None for words, counts and ratios.
        digits: after the point; None shows a number as it is.
    """

    name: str
    unit: str | None = None
    digits: int | None = None


class Table(Record):
    """Columns and rows; an empty cell is null."""

    columns: Annotated[list[Column], Field(min_length=2)]
    rows: Annotated[list[list[Cell]], Field(min_length=1)]

    @model_validator(mode="after")
    def _rows_fit(self) -> Self:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"the row {row} has {len(row)} cells for {len(self.columns)} columns")
        return self


class Figure(Record):
    """One number; a range is given by its ends.

    Attributes:
        name: what it is.
        value: in ``unit``.
        unit: None for counts and ratios.
        spread: [smallest, largest] of the repeats, in ``unit``, where they were kept.
    """

    name: str
    value: float | int | str
    unit: str | None = None
    spread: tuple[float, float] | None = None


class Result(Record):
    """One measurement.

    Attributes:
        title: heading.
        command: what was run.
        date: when.
        machine: on what, and what else ran there.
        versions: of what counts for the figures; checkpoint by version and weights.
        spread: how far repeats lie apart, in words; what is not known is said.
        text: what was measured, and how.
        tables, figures: the numbers.
        notes: what they say.
    """

    title: str
    command: str
    date: datetime.date
    machine: str
    versions: dict[str, str]
    spread: str
    text: str = ""
    tables: list[Table] = []
    figures: list[Figure] = []
    notes: list[str] = []

    @model_validator(mode="after")
    def _has_numbers(self) -> Self:
        if not self.tables and not self.figures:
            raise ValueError("no tables and no figures")
        return self


def record(
    name: str,
    *,
    tables: Sequence[Table] = (),
    figures: Sequence[Figure] = (),
    spread: str,
    checkpoint: str | None,
    checkpoint_name: str = "default",
) -> Path:
    """Put today's numbers in the place of the recorded ones; title, command and text stay, notes on the old ones go.

    Args:
        name: of a file in ``RESULTS``, without its suffix.
        tables, figures: the numbers.
        spread: of the repeats.
        checkpoint: version of the checkpoint that was measured; None if none was.
        checkpoint_name: and its name.
    """
    path = RESULTS / f"{name}.json"
    found = Result.model_validate_json(path.read_bytes()).model_copy(
        update={
            "date": datetime.date.today(),
            "machine": machine(),
            "versions": versions() if checkpoint is None else {checkpoint_name: checkpoint, **versions()},
            "tables": list(tables),
            "figures": list(figures),
            "spread": spread,
            "notes": [],
        }
    )
    path.write_text(found.model_dump_json(indent=1, exclude_defaults=True) + "\n")
    return path


def as_markdown(table: Table) -> str:
    """The table, with units in its head."""
    heads = [column.name + (f", {column.unit}" if column.unit else "") for column in table.columns]
    rows = [
        [_shown(value, column.digits) for value, column in zip(row, table.columns, strict=True)] for row in table.rows
    ]
    return markdown_rows([heads, ["---"] * len(heads), *rows])


def markdown_rows(rows: list[list[str]]) -> str:
    """Cells between bars."""
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _shown(value: Cell, digits: int | None) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}f}" if digits is not None and not isinstance(value, str) else str(value)
