"""Methanol as the tests write it, and what a reader has to give."""

from __future__ import annotations

import numpy as np

from model.structure_files.frame import Frame, UnreadableError
from model.structure_files.read import read_structures

SYMBOLS = ("C", "O", "H", "H", "H", "H")
NUMBERS = [6, 8, 1, 1, 1, 1]
POSITIONS = np.array(
    [
        [-0.0466, 0.6631, 0.0],
        [-0.0466, -0.7580, 0.0],
        [-1.0862, 0.9752, 0.0],
        [0.4371, 1.0711, 0.8904],
        [0.4371, 1.0711, -0.8904],
        [0.8755, -1.0580, 0.0],
    ]
)
BOHR = 0.529177210903
LINE = "{s} {x:.6f} {y:.6f} {z:.6f}"


def rows(line: str = LINE, scale: float = 1.0, symbols: tuple[str, ...] = SYMBOLS) -> str:
    """A line for each atom; ``n`` counts them from 1."""
    return "".join(
        line.format(s=s, x=x * scale, y=y * scale, z=z * scale, n=n) + "\n"
        for n, (s, (x, y, z)) in enumerate(zip(symbols, POSITIONS, strict=True), start=1)
    )


def xyz(comment: str = "methanol", line: str = LINE, symbols: tuple[str, ...] = SYMBOLS) -> str:
    """An xyz file."""
    return f"6\n{comment}\n{rows(line, symbols=symbols)}"


def one(file_format: str, text: str) -> Frame:
    """The only frame of a text."""
    (frame,) = read_structures(file_format, text, 1)
    if isinstance(frame, UnreadableError):
        raise frame
    return frame


def is_methanol(frame: Frame | UnreadableError, tolerance: float = 1e-5) -> bool:
    """Whether a frame is methanol, where it is."""
    assert isinstance(frame, Frame)
    return frame.numbers == NUMBERS and np.allclose(frame.positions, POSITIONS, atol=tolerance)
