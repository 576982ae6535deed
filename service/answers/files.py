"""A guess as a file that other programs read: a PySCF chkfile, a Molden file, a Gaussian cube of the density, QCSchema.

These formats have their own conventions (AO order, hartree, bohr); PySCF's writers know them, and ``qcschema`` its own.
PySCF's writers of text take file names, so each of these exports has a private folder that is gone when it returns. HDF5 is
written in memory: on a disk that fills up its library ends the process. Nothing is ever read from a client's file.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model.errors import NumericalError
from service.answers import qcschema
from service.answers.bytes import dump_json

if TYPE_CHECKING:
    from model.checkpoint.card import Card
    from model.predictor import Prediction

UNKNOWN_TOTAL_ENERGY_HARTREE: Final = 0.0
"""A guess has no total energy; the chkfile's field must be a finite number."""

CUBE_MARGIN_BOHR: Final = 4.0
CUBE_SPACING_BOHR: Final = 0.3
CUBE_POINTS: Final = (20, 90)
"""Fewest and most points along an axis; a long molecule gets a coarser grid, not a larger file."""


def write_chk(prediction: Prediction, card: Card) -> bytes:
    """PySCF chkfile for ``mf.chkfile = "guess.chk"; mf.init_guess = "chkfile"``."""
    import h5py

    mole, orbitals = _mole(prediction, card), _orbitals(prediction)
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

    mole, orbitals = _mole(prediction, card), _orbitals(prediction)

    def write(path: Path) -> None:
        molden.from_mo(mole, str(path), orbitals.coefficients, ene=orbitals.energies, occ=orbitals.occupations)

    return _written(write, "guess.molden")


def write_cube(prediction: Prediction, card: Card) -> bytes:
    """Gaussian cube file of the electron density, electrons per cubic bohr."""
    from pyscf.tools import cubegen

    mole = _mole(prediction, card)
    guess = prediction.guess
    if guess is None:
        raise NumericalError("The prediction has no density matrix.")
    extent = np.ptp(mole.atom_coords(), axis=0) + 2.0 * CUBE_MARGIN_BOHR
    points = np.clip(np.ceil(extent / CUBE_SPACING_BOHR), *CUBE_POINTS).astype(int)

    def write(path: Path) -> None:
        cubegen.density(
            mole, str(path), guess.density_matrix, *(int(count) for count in points), margin=CUBE_MARGIN_BOHR
        )

    return _written(write, "guess.cube")


def write_qcschema(prediction: Prediction, card: Card) -> bytes:
    """QCSchema v2 document (JSON) with the wavefunction of the guess."""
    return dump_json(qcschema.document(prediction, card, _mole(prediction, card)))


WRITERS: Final[Mapping[str, Callable[[Prediction, Card], bytes]]] = {
    "chk": write_chk,
    "molden": write_molden,
    "cube": write_cube,
    "qcschema": write_qcschema,
}


def _mole(prediction: Prediction, card: Card) -> Any:
    # PySCF takes most of a second to import; only these formats need it here.
    from model.integrals.pyscf_molecule import build_mole

    return build_mole(prediction.structure, card.basis.name)


def _orbitals(prediction: Prediction) -> Any:
    if prediction.orbitals is None:
        raise NumericalError("The prediction has no orbitals.")
    return prediction.orbitals


def _written(write: Callable[[Path], None], name: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="tracegrad-export-") as folder:
        path = Path(folder, name)
        write(path)
        return path.read_bytes()
