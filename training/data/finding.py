"""What one check of labels found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        severity: ``ok``, ``warning`` or ``error``.
        check: its name.
        detail: one sentence with figures.
    """

    severity: Severity
    check: str
    detail: str


def severity_of(value: float, warning: float, error: float) -> Severity:
    """Severity of a value that should be small."""
    return "error" if value > error else "warning" if value > warning else "ok"
