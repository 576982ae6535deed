"""A PySCF Cell as the structure that is sent: its elements (pseudopotentials hide the nuclear charges), atoms and lattice."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyscf import lib
from pyscf.data import elements

from tracegrad_client.errors import InvalidInputError
from tracegrad_client.structure import Molecule


def structure_of_cell(cell: Any) -> Molecule:
    """The crystal of a Cell, Å.

    Raises:
        InvalidInputError: ghost atoms, or no periodic direction.
    """
    if not getattr(cell, "_built", True):
        cell.build(False, False)
    if cell.dimension == 0:
        raise InvalidInputError("The Cell is periodic in no direction.", hint="Give a Mole to what is for molecules.")
    numbers = [elements.charge(cell.atom_symbol(atom)) for atom in range(cell.natm)]
    if 0 in numbers:
        raise InvalidInputError("The Cell has ghost atoms, which a crystal of the server's has not.")
    return Molecule(
        np.array(numbers, dtype=np.int64),
        np.asarray(cell.atom_coords(unit="Angstrom"), dtype=np.float64),
        int(cell.charge),
        int(cell.spin) + 1,
        np.asarray(cell.lattice_vectors(), dtype=np.float64) * lib.param.BOHR,
        (cell.dimension > 0, cell.dimension > 1, cell.dimension > 2),
    )
