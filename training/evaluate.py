"""``python -m training evaluate``: what a checkpoint is worth on labelled structures, by every figure that matters.

The door to :mod:`training.evaluation`; docs/metrics.md defines the figures.
"""

from __future__ import annotations

from training.evaluation.frames import FrameErrors, frame_errors
from training.evaluation.orbitals import first_order_density
from training.evaluation.report import evaluate, write_report
from training.evaluation.scf import GUESSES
from training.evaluation.summary import summarise, table

__all__ = [
    "GUESSES",
    "FrameErrors",
    "evaluate",
    "first_order_density",
    "frame_errors",
    "summarise",
    "table",
    "write_report",
]
