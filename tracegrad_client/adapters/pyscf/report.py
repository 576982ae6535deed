"""What became of a guess, and how the user hears of it: an attribute, a line in PySCF's output, a warning."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from pyscf.lib import logger

from tracegrad_client.errors import TraceGradWarning


@dataclass(frozen=True)
class GuessReport:
    """What became of the guess of one SCF; the attribute ``tracegrad`` of an attached object is the last one's.

    Attributes:
        used: whether the SCF started from the server's guess.
        reason: why, or why not.
        rms_commutator: the guard's figure in hartree, or None where it was not computed.
        seconds: what asking, checking and a rejected Fock build cost in addition to the SCF itself.
        model: name and version of the model, or None where no answer came.
        warnings: the server's warnings and ours about a guess that was used all the same.
        projected_from: the model's basis where it is not the calculation's.
        parent: the closed shell whose orbitals were filled, where the calculation is of an ion or an open shell.
        learned_from: earlier geometries of this calculation whose errors the guess takes into account.
    """

    used: bool
    reason: str
    rms_commutator: float | None = None
    seconds: float = 0.0
    model: str | None = None
    warnings: tuple[str, ...] = ()
    projected_from: str | None = None
    parent: str | None = None
    learned_from: int = 0


def announce(mf: Any, report: GuessReport) -> None:
    """Put the report into PySCF's output and, where the user should know, into a TraceGradWarning."""
    if report.used:
        logger.note(mf, "TraceGrad: %s", report.reason)
        for text in report.warnings:
            logger.note(mf, "TraceGrad: %s", text)
            warnings.warn(TraceGradWarning(text), stacklevel=3)
    else:
        logger.note(mf, "TraceGrad: not used, the SCF starts from its own guess. %s", report.reason)
        text = f"The SCF starts from its own guess. {report.reason}"
        warnings.warn(TraceGradWarning(text), stacklevel=3)
