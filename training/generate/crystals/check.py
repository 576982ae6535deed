"""Does a program's label turn with its structure? One structure in so many is labelled again, turned and moved.

This finds what no law of one matrix shows, a wrong order of orbitals or atoms, and measures the noise of the grid: H of the
copy, turned back and with its common zero fixed (H - mu S), must be the first H.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.spatial.transform import Rotation

from model.blocks.gauge import gauge_shift, shifted
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
    """Compare a label with that of its turned copy; their difference has no component along S."""
    first = label.matrices.require_hamiltonian()
    overlap = label.matrices.overlap
    assert overlap is not None
    turned, s = turn(first, TURN), turn(overlap.on_pairs(first.pairs), TURN)
    other = copy.matrices.require_hamiltonian().on_pairs(first.pairs)
    difference = turned.with_values(other.values - turned.values)
    difference = shifted(difference, s, -gauge_shift(difference, s))
    size = np.abs(difference.values) * 1000 * EV_PER_HARTREE
    return TurnError(float(size.mean()), float(size.max()))
