"""A guess as a file that other programs read: a PySCF chkfile, a Molden file, a Gaussian cube of the density, QCSchema.

These formats have their own conventions (AO order, hartree, bohr); PySCF's writers know them, and ``qcschema`` its own.
All are written in memory: no disk fills up, which would end the process inside HDF5's library. Those that may take seconds
look now and then whether anybody still waits. Nothing is ever read from a client's file.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model.errors import NumericalError
from model.units import ANGSTROM_PER_BOHR
from service.answers import qcschema
from service.answers.bytes import dump_json
from service.serving.fair import stop_if_abandoned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.checkpoint.card import Card
    from model.predictor import Prediction

UNKNOWN_TOTAL_ENERGY_HARTREE: Final = 0.0
"""A guess has no total energy; the chkfile's field must be a finite number."""

CUBE_MARGIN_BOHR: Final = 4.0
CUBE_SPACING_BOHR: Final = 0.3
CUBE_POINTS: Final = (20, 90)
"""Fewest and most points along an axis; a long molecule gets a coarser grid, not a larger file."""
CUBE_COLUMNS: Final = 6
DEAR_ORBITALS: Final = 400
"""From here on writing out a matrix of orbitals, a line for each number, takes a good part of a second."""
CHECK_EVERY_S: Final = 0.1
DEAR_PRODUCTS: Final = 2e9
"""Multiplications of an export that take about a second."""


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

    file = _Text()
    molden.header(mole, file)
    molden.orbital_coeff(mole, file, orbitals.coefficients, ene=orbitals.energies, occ=orbitals.occupations)
    return file.content()


def write_cube(prediction: Prediction, card: Card) -> bytes:
    """Gaussian cube file of the electron density, electrons per cubic bohr."""
    from pyscf.dft import numint
    from pyscf.tools.cubegen import Cube

    mole = _mole(prediction, card)
    guess = prediction.guess
    if guess is None:
        raise NumericalError("The prediction has no density matrix.")
    shape = cube_shape(mole.atom_coords())
    cube = Cube(mole, *shape, margin=CUBE_MARGIN_BOHR)
    density = np.empty(shape)
    for x, plane in zip(cube.xs, density, strict=True):
        stop_if_abandoned()
        fractions = np.stack(np.broadcast_arrays(x, cube.ys[:, None], cube.zs), axis=-1)
        orbitals = mole.eval_gto("GTOval", fractions.reshape(-1, 3) @ cube.box + cube.boxorig)
        plane[...] = numint.eval_rho(mole, orbitals, guess.density_matrix).reshape(shape[1:])
    return _cube_file(cube, density)


def cube_shape(positions_bohr: NDArray[np.float64]) -> tuple[int, int, int]:
    """Points along x, y and z of the density of some atoms, positions (atom, 3) in bohr."""
    extent = np.ptp(positions_bohr, axis=0) + 2.0 * CUBE_MARGIN_BOHR
    nx, ny, nz = np.clip(np.ceil(extent / CUBE_SPACING_BOHR), *CUBE_POINTS).astype(int)
    return int(nx), int(ny), int(nz)


def write_qcschema(prediction: Prediction, card: Card) -> bytes:
    """QCSchema v2 document (JSON) with the wavefunction of the guess."""
    return dump_json(qcschema.document(prediction, card, _mole(prediction, card)))


WRITERS: Final[Mapping[str, Callable[[Prediction, Card], bytes]]] = {
    "chk": write_chk,
    "molden": write_molden,
    "cube": write_cube,
    "qcschema": write_qcschema,
}


def is_dear(form: str, prediction: Prediction) -> bool:
    """Whether an export may take seconds: by the points of its grid, or the lines of its matrix, and its orbitals."""
    n_orbitals = int(prediction.hamiltonian.shape[-1])
    if form == "cube":
        positions = prediction.structure.positions_angstrom / ANGSTROM_PER_BOHR
        return math.prod(cube_shape(positions)) * n_orbitals**2 > DEAR_PRODUCTS
    return form != "chk" and n_orbitals > DEAR_ORBITALS


def _mole(prediction: Prediction, card: Card) -> Any:
    # PySCF takes most of a second to import; only these formats need it here.
    from model.integrals.pyscf_molecule import build_mole

    return build_mole(prediction.structure, card.basis.name)


def _orbitals(prediction: Prediction) -> Any:
    if prediction.orbitals is None:
        raise NumericalError("The prediction has no orbitals.")
    return prediction.orbitals


def _cube_file(cube: Any, density: NDArray[np.float64]) -> bytes:
    """The file of PySCF's ``Cube.write``, which takes no file but a name."""
    file = _Text()
    file.write("Electron density in real space (e/Bohr^3)\nWritten by the TraceGrad service\n")
    steps = cube.box * np.array([axis[1] for axis in (cube.xs, cube.ys, cube.zs)])[:, None]
    heads = [(cube.mol.natm, cube.boxorig), *zip(density.shape, steps, strict=True)]
    for count, vector in heads:
        file.write(f"{count:5d}{vector[0]:12.6f}{vector[1]:12.6f}{vector[2]:12.6f}\n")
    for number, (x, y, z) in zip(cube.mol.atom_charges(), cube.mol.atom_coords(), strict=True):
        file.write(f"{number:5d}{0.0:12.6f}{x:12.6f}{y:12.6f}{z:12.6f}\n")
    lines, rest = divmod(density.shape[2], CUBE_COLUMNS)
    row = ("%13.5E" * CUBE_COLUMNS + "\n") * lines + ("%13.5E" * rest + "\n") * bool(rest)
    for values in density.reshape(-1, density.shape[2]):
        file.write(row % tuple(values.tolist()))
    return file.content()


class _Text(io.StringIO):
    """A file in memory whose writer ends when nobody waits for it any more."""

    def __init__(self) -> None:
        super().__init__()
        self._checked = 0.0

    def write(self, text: str, /) -> int:
        now = time.monotonic()
        if now - self._checked > CHECK_EVERY_S:
            self._checked = now
            stop_if_abandoned()
        return super().write(text)

    def content(self) -> bytes:
        """What was written."""
        return self.getvalue().encode()
