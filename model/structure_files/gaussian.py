"""Inputs of Gaussian (gjf, com): charge, multiplicity and Cartesian coordinates (https://gaussian.com/input/)."""

from __future__ import annotations

import re
from typing import Final

from model.structure_files.fields import element, is_real, real
from model.structure_files.frame import Frame, Frames, ManyFramesError, UnreadableError
from model.structure_files.lengths import in_angstrom
from model.structure_files.stated import Stated

_LINK: Final = re.compile(r"--link1--", re.IGNORECASE)
_BOHR: Final = re.compile(r"units?\s*(?:=\s*\(?|\()[^)\s]*\b(au|bohr)\b", re.IGNORECASE)
_FROM_CHECKPOINT: Final = re.compile(r"geom\s*(?:=\s*\(?|\()[^)\s]*(check|modredundant,check)", re.IGNORECASE)
_PARENTHESES: Final = re.compile(r"\([^()]*\)")
Lines = list[tuple[int, str]]


def read_gaussian(text: str, max_frames: int) -> Frames:
    """Read the structures of all jobs of an input; those that take theirs from a checkpoint file have none.

    Raises:
        ManyFramesError: more than ``max_frames``.
        UnreadableError: none at all.
    """
    jobs: list[Lines] = [[]]
    for number, line in enumerate(text.split("\n"), start=1):
        if _LINK.match(line.strip()):
            jobs.append([])
        else:
            jobs[-1].append((number, line.split("!", 1)[0].rstrip()))
    frames: Frames = []
    for job in jobs:
        parts = _parts(job)
        route = " ".join(line for _, line in parts[0]) if parts else ""
        without_atoms = len(parts) < 3 or len(parts[2]) == 1
        if not route or (_FROM_CHECKPOINT.search(route) and without_atoms):
            continue
        try:
            frames.append(_job(job))
        except UnreadableError as error:
            frames.append(error)
    if len(frames) > max_frames:
        raise ManyFramesError
    for index, frame in enumerate(frames, start=1):
        if isinstance(frame, UnreadableError) and len(frames) > 1:
            frame.frame = index
    if not frames:
        raise UnreadableError(
            "There is no route section with a structure after it.",
            hint="An input has a route '# ...', a blank line, a title, a blank line, 'charge multiplicity', and atoms.",
        )
    return frames


def _parts(job: Lines) -> list[Lines]:
    """Sections between blank lines, from the route on, without Link 0 commands."""
    parts: list[Lines] = [[]]
    for number, line in job:
        if not line.strip():
            if parts[-1]:
                parts.append([])
        elif not (len(parts) == 1 and line.lstrip().startswith("%")):
            parts[-1].append((number, line))
    if not parts[-1]:
        parts.pop()
    return parts


def _job(job: Lines) -> Frame:
    parts = _parts(job)
    if not parts[0][0][1].lstrip().startswith("#"):
        raise UnreadableError("no route, which begins with #.", line=parts[0][0][0])
    if len(parts) < 3:
        raise UnreadableError("title, or charge and multiplicity, are missing.", line=parts[-1][-1][0])
    route = " ".join(line for _, line in parts[0])
    (number, head), *rows = parts[2]
    numbers = re.split(r"[\s,]+", head.strip())
    stated = Stated(number)
    if len(numbers) < 2 or not all(is_real(value) for value in numbers):
        raise UnreadableError("no charge and multiplicity.", line=number)
    stated.say_charge(numbers[0])
    stated.say_multiplicity(numbers[1])
    frame = Frame([], [])
    vectors = []
    for line, text in rows:
        symbol, position = _atom(text, line)
        if symbol.lower() == "tv":
            vectors.append(position)
            continue
        frame.numbers.append(element(symbol, line))
        frame.positions.append(position)
    if vectors:
        frame.cell = [*vectors, *[[0.0] * 3] * (3 - len(vectors))][:3]
        frame.pbc = (True, len(vectors) > 1, len(vectors) > 2)
    in_angstrom(frame, "bohr" if _BOHR.search(route) else None, certain=True)
    return stated.give(frame)


def _atom(text: str, line: int) -> tuple[str, list[float]]:
    """``C``, ``C-CT--0.1``, ``C(Fragment=1)``, ``6``; a code of frozen atoms, or none; three coordinates."""
    symbol, *fields = re.split(r"[\s,]+", _PARENTHESES.sub("", text).strip())
    if len(fields) >= 4 and re.fullmatch(r"0|-\d+", fields[0]) and is_real(fields[3]):
        fields = fields[1:]
    z_matrix = len(fields) > 3 and fields[0].isdigit() and fields[2].isdigit()
    if len(fields) < 3 or not all(is_real(field) for field in fields[:3]) or z_matrix:
        raise UnreadableError(
            "not 'symbol x y z'.", line=line, hint="Z-matrices are not read; write Cartesian coordinates."
        )
    return (symbol if "bq" in symbol.lower() else symbol.split("-", 1)[0]), [real(field, line) for field in fields[:3]]
