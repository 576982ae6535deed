"""Does a program's label turn with its structure? One structure in so many is labelled again, turned and moved.

This finds what no law of one matrix shows, a wrong order of orbitals or atoms, and measures the noise of the grid: H of the
copy, turned back and with its common zero fixed (H - mu S), must be the first H.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.spatial.transform import Rotation

from model.blocks.motions import turn
from model.structure import Structure
from model.units import EV_PER_HARTREE
from training.generate.crystals.label import CrystalLabel

TURN: Final = np.asarray(Rotation.from_euler("zxz", [0.7, 0.0, 0.0]).as_matrix(), dtype=np.float64)
"""About z, so that a layer stays a layer."""
MOVE_ANGSTROM: Final = np.array([0.131, 0.217, 0.073])
"""Off the grid."""


@dataclass(frozen=True)
class TurnError:
    """How much H of a turned copy differs, meV."""

    mean: float
    largest: float


def turned_copy(structure: Structure) -> Structure:
    """The structure turned by ``TURN`` and moved by ``MOVE_ANGSTROM``."""
    assert structure.cell_angstrom is not None
    return replace(
        structure,
        positions_angstrom=structure.positions_angstrom @ TURN.T + MOVE_ANGSTROM,
        cell_angstrom=structure.cell_angstrom @ TURN.T,
    )


def turn_error(label: CrystalLabel, copy: CrystalLabel) -> TurnError:
    """Compare a label with that of its turned copy, after the gauge fix mu = <dH, S> / <S, S>."""
    first = label.matrices.require_hamiltonian()
    overlap = label.matrices.overlap
    assert overlap is not None
    turned = turn(first, TURN).values
    other = copy.matrices.require_hamiltonian().on_pairs(first.pairs).values
    s = np.zeros_like(turned)
    s[[0] if len(s) == 1 else [0, -1]] = turn(overlap.on_pairs(first.pairs), TURN).values[0]
    difference = other - turned
    difference -= np.vdot(s, difference) / np.vdot(s, s) * s
    size = np.abs(difference) * 1000 * EV_PER_HARTREE
    return TurnError(float(size.mean()), float(size.max()))
