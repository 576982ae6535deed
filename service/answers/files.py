"""A guess as a file that other programs read: a PySCF chkfile, a Molden file, a Gaussian cube of the density, QCSchema.

These formats have their own conventions (AO order, hartree, bohr); PySCF's writers know them, and ``qcschema`` its own.
All are written in memory: no disk fills up, which would end the process inside HDF5's library. Those that may take seconds
look now and then whether anybody still waits. Nothing is ever read from a client's file.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from model.errors import NumericalError
from model.units import ANGSTROM_PER_BOHR
from service.answers import qcschema, qcschema_v1
from service.answers.bytes import dump_json
from service.answers.cubes import cube_shape, density_cube, orbital_cube
from service.answers.memory_text import MemoryText
from service.errors import ServiceError

if TYPE_CHECKING:
    from model.checkpoint.card import Card
    from model.predictor import Prediction

UNKNOWN_TOTAL_ENERGY_HARTREE: Final = 0.0
"""A guess has no total energy; the chkfile's field must be a finite number."""

DEAR_ORBITALS: Final = 400
"""From here on writing out a matrix of orbitals, a line for each number, takes a good part of a second."""
DEAR_PRODUCTS: Final = 2e9
"""Multiplications of an export that take about a second."""


def write_chk(prediction: Prediction, card: Card) -> bytes:
    """PySCF chkfile for ``mf.chkfile = "guess.chk"; mf.init_guess = "chkfile"``."""
    import h5py

    mole, orbitals = _mole(prediction), _orbitals(prediction)
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:  # the layout of pyscf.scf.chkfile.dump_scf
        file["mol"] = mole.dumps()
        scf = file.create_group("scf")
        scf["e_tot"] = UNKNOWN_TOTAL_ENERGY_HARTREE
        scf["mo_energy"] = orbitals.energies
        scf["mo_occ"] = orbitals.occupations
        scf["mo_coeff"] = orbitals.coefficients
    return memory.getvalue()


def write_molden(prediction: Prediction, card: Card) -> bytes:
    """Molden file with all orbitals, energies in hartree."""
    from pyscf.tools import molden

    mole, orbitals = _mole(prediction), _orbitals(prediction)

    file = MemoryText()
    molden.header(mole, file)
    molden.orbital_coeff(mole, file, orbitals.coefficients, ene=orbitals.energies, occ=orbitals.occupations)
    return file.content()


def write_cube(prediction: Prediction, card: Card, orbital: str | None = None) -> bytes:
    """Gaussian cube file of the electron density, electrons per cubic bohr, or of an orbital, bohr^(-3/2).

    Args:
        prediction: with orbitals.
        card: of its model.
        orbital: "homo", "lumo", "homo-1" ..., or an index from 0; None for the density.

    Raises:
        ServiceError: there is no such orbital.
    """
    mole, orbitals, guess = _mole(prediction), _orbitals(prediction), prediction.guess
    if guess is None:
        raise NumericalError("The prediction has no density matrix.")
    if orbital is None:
        return density_cube(mole, guess.density_matrix)
    return orbital_cube(mole, orbitals.coefficients[:, _index_of(orbital, orbitals)])


def _index_of(orbital: str, orbitals: Any) -> int:
    """Column of an orbital that is named or counted."""
    occupied, count = int((orbitals.occupations > 0).sum()), len(orbitals.energies)
    first = {"homo": occupied - 1, "lumo": occupied}.get(orbital[:4])
    index = int(orbital) if first is None else first + int(orbital[4:] or 0)
    if not 0 <= index < count:
        raise ServiceError(
            "invalid_request",
            f"There is no such orbital: {count} are numbered from 0.",
            field="orbital",
            hint="Name homo, lumo, homo-1 ..., or a number.",
        )
    return index


def write_qcschema(prediction: Prediction, card: Card) -> bytes:
    """QCSchema v2 document (JSON) with the wavefunction of the guess."""
    return dump_json(qcschema.document(prediction, card, _mole(prediction)))


def write_qcschema_v1(prediction: Prediction, card: Card) -> bytes:
    """The same in QCSchema v1."""
    return dump_json(qcschema_v1.document(prediction, card, _mole(prediction)))


WRITERS: Final[Mapping[str, Callable[[Prediction, Card], bytes]]] = {
    "chk": write_chk,
    "molden": write_molden,
    "cube": write_cube,
    "qcschema": write_qcschema,
    "qcschema-v1": write_qcschema_v1,
}


def is_dear(form: str, prediction: Prediction) -> bool:
    """Whether an export may take seconds: by the points of its grid, or the lines of its matrix, and its orbitals."""
    n_orbitals = len(prediction.ao_labels)
    if form == "cube":
        positions = prediction.structure.positions_angstrom / ANGSTROM_PER_BOHR
        return math.prod(cube_shape(positions)) * n_orbitals**2 > DEAR_PRODUCTS
    return form != "chk" and n_orbitals > DEAR_ORBITALS


def _mole(prediction: Prediction) -> Any:
    # PySCF takes most of a second to import; only these formats need it here.
    from model.integrals.pyscf_molecule import build_mole

    return build_mole(prediction.structure, prediction.space.name)


def _orbitals(prediction: Prediction) -> Any:
    if prediction.orbitals is None:
        raise NumericalError("The prediction has no orbitals.")
    return prediction.orbitals
