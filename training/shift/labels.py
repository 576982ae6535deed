"""Converged Fock matrices of another functional, kept one by one: ``FOLDER/<xc>/<digest of the geometry>.npy``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.integrals.pyscf_molecule import build_mole
from model.level import fold_functional
from model.predictor import Predictor
from training.atomic import replaced
from training.data.frame import Frame
from training.data.sources import DatasetError, read_frames
from training.tables import ConfigError

Matrix = NDArray[np.float64]

GRID_LEVEL: Final = 1
"""Of the numerical integration: the error of F is a hundredth of what a shift leaves."""

CONVERGED: Final = 1e-9
"""Change of the energy in the last cycle, hartree."""

HARTREE_FOCK: Final = "hf"


@dataclass(frozen=True, eq=False)
class Label:
    """One geometry.

    Attributes:
        frame: which.
        predicted: the checkpoint's Hamiltonian, (ao, ao), hartree.
        fock: the other functional's, converged, (ao, ao), hartree.
    """

    frame: Frame
    predicted: Matrix
    fock: Matrix


def choose_frames(path: Path, split: str, predictor: Predictor, largest: int, count: int, seed: int) -> list[Frame]:
    """So many molecules of a split that are small enough and that the checkpoint takes, drawn at random; a geometry each.

    Raises:
        DatasetError: of the file; or there are none.
    """
    found = []
    for frame in read_frames(path, [split], frames_per_molecule=1):
        if predictor.count_orbitals(frame.structure) <= largest and len(frame.structure) > 1:
            predictor.check(frame.structure)
            found.append(frame)
    if not found:
        raise DatasetError(f"{path} has no molecule of at most {largest} orbitals in its split {split!r}.")
    order = np.random.default_rng(seed).permutation(len(found))
    return [found[index] for index in order[:count]]


def label(frame: Frame, xc: str, predictor: Predictor, folder: Path) -> Label | None:
    """A geometry's label, computed unless it is kept already; None where the SCF does not converge."""
    prediction = predictor.predict([frame.structure])[0]
    assert prediction.guess is not None
    place = np.ascontiguousarray(frame.structure.positions_angstrom).tobytes()
    path = folder / fold_functional(xc) / f"{hashlib.sha256(place).hexdigest()[:20]}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        mf = calculation(build_mole(frame.structure, predictor.space.name), xc)
        mf.conv_tol = CONVERGED
        mf.kernel(dm0=prediction.guess.density_matrix)
        with replaced(path) as temporary, temporary.open("wb") as file:
            np.save(file, mf.get_fock() if mf.converged else np.zeros((0, 0)))
    fock = np.load(path)
    return Label(frame, prediction.hamiltonian, fock) if fock.size else None


def calculation(mole: Any, xc: str) -> Any:
    """A restricted calculation of a functional.

    Raises:
        ConfigError: PySCF does not know it.
    """
    from pyscf import dft, scf

    if fold_functional(xc) == HARTREE_FOCK:
        return scf.RHF(mole)
    try:
        dft.libxc.parse_xc(xc)
    except Exception as error:  # which one depends on what is wrong with the name
        raise ConfigError(f"PySCF knows no functional {xc!r}.") from error
    mf = dft.RKS(mole, xc=xc)
    mf.grids.level = GRID_LEVEL
    return mf
