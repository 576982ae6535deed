"""Paths through the Brillouin zone: by names of special points (ASE's, after Setyawan and Curtarolo), or own k-points."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.structure import Structure
from service.crystals.meshes import touching
from service.errors import ServiceError

DEFAULT_POINTS: Final = 100
"""k-points of a path whose number nobody chose."""

SAME: Final = 1e-9
"""Distances along a path that are one, 1/Å."""


@dataclass(frozen=True, eq=False)
class KPath:
    """A path.

    Attributes:
        points: fractional coordinates, (k, 3).
        distances: along the path, with 2 pi, 1/Å, (k,); none between two pieces that do not touch.
        labels: index of a k-point and the name of its special point.
        name: "GMKG", or None for the caller's own points.
    """

    points: NDArray[np.float64]
    distances: NDArray[np.float64]
    labels: tuple[tuple[int, str], ...]
    name: str | None


def special_path(structure: Structure, path: str | None, n_points: int | None) -> KPath:
    """A path along special points of the lattice; of a slab or chain, those of its periodic directions.

    Without names it also leaves out directions of vacuum, see ``meshes.touching``.

    Args:
        structure: periodic.
        path: names, such as "GMKG"; a comma between pieces that do not touch. None for ASE's.
        n_points: of all together; at least one for each special point.

    Raises:
        ServiceError: ``invalid_request``: a lattice that ASE names no points of, names that it does not have, or a path of
            fewer than two points.
    """
    from ase.cell import Cell  # a second that a server without crystals need not wait for
    from ase.dft.kpoints import parse_path_string

    cell = Cell(structure.cell_angstrom)
    pbc = list(structure.pbc)
    disperses = list(touching(structure))
    if path is None and any(disperses):
        with contextlib.suppress(Exception):  # ASE names no points of every slab; the whole lattice has some then
            cell.bandpath(npoints=0, pbc=disperses)
            pbc = disperses
    try:
        known = cell.bandpath(npoints=0, pbc=pbc)
    except Exception as error:  # ASE raises what comes to hand, assertions among them
        raise ServiceError(
            "invalid_request",
            "This lattice, with these periodic directions, has no special points by name.",
            field="path",
            hint="Send your own k-points in kpts.",
        ) from error
    names = list(known.special_points)
    if path is not None:
        pieces = parse_path_string(path)
        if not all(name in names for piece in pieces for name in piece) or min(map(len, pieces)) < 2:
            usual = special_path(structure, None, None).name
            raise ServiceError(
                "invalid_request",
                "The path has pieces of fewer than two points, or names that this lattice does not have.",
                field="path",
                allowed=sorted(names),
                hint=f"Join names, with a comma between pieces that do not touch; the usual path here is {usual}.",
            )
    made = cell.bandpath(path, npoints=n_points or DEFAULT_POINTS, pbc=pbc)
    distances, corners, labels = made.get_linear_kpoint_axis()
    return KPath(np.asarray(made.kpts), distances, _placed(distances, corners, labels), made.path)


def own_path(structure: Structure, points: Sequence[Sequence[float]]) -> KPath:
    """The caller's k-points, fractional, in their sequence."""
    fractional = np.asarray(points, dtype=np.float64)
    assert structure.cell_angstrom is not None
    cartesian = 2 * np.pi * fractional @ np.linalg.inv(structure.cell_angstrom).T
    steps = np.linalg.norm(np.diff(cartesian, axis=0), axis=1)
    return KPath(fractional, np.concatenate([[0.0], np.cumsum(steps)]), (), None)


def _placed(distances: NDArray[np.float64], corners: Any, labels: Sequence[str]) -> tuple[tuple[int, str], ...]:
    """Each name with the first free k-point at its distance: where two pieces meet there are two."""
    found: list[tuple[int, str]] = []
    start = 0
    for corner, label in zip(corners, labels, strict=True):
        index = start + int(np.argmax(np.abs(distances[start:] - corner) < SAME))
        found.append((index, label))
        start = index + 1
    return tuple(found)
