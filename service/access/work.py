"""What a request costs beyond being one: by the square of its structures' orbitals, where the operator wants that."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

charge: Final[ContextVar[Callable[[int], None] | None]] = ContextVar("charge", default=None)
"""Counts the orbitals of a structure against the key of the request, if it has one with a quota."""


def weight(n_orbitals: int, unit: int) -> int:
    """As how many requests a structure counts: a prediction's time grows with the square of its orbitals.

    Args:
        n_orbitals: of the structure.
        unit: orbitals of a structure that counts as one; 0: all do.
    """
    return 1 if unit == 0 else max(1, math.ceil((n_orbitals / unit) ** 2))


def charge_work(n_orbitals: int) -> None:
    """Count a structure whose size is known by now, before it is computed.

    Raises:
        ServiceError: ``quota_exceeded``.
    """
    counts = charge.get()
    if counts is not None:
        counts(n_orbitals)
