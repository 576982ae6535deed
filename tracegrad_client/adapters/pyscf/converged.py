"""The converged Fock matrix of a PySCF calculation, or of its chkfile, with what belongs to it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyscf import scf

from tracegrad_client.adapters.pyscf.calculation import stated_level, treatment
from tracegrad_client.ask import Options
from tracegrad_client.errors import InvalidInputError, TraceGradWarning
from tracegrad_client.guess import fock_of

SAME_SPINS = 1e-6
"""hartree: how far the matrices of both spins of a closed shell may be apart."""


class Converged(NamedTuple):
    """A molecule with the matrices of its calculation, PySCF's order, hartree."""

    mol: Any
    fock: NDArray[np.float64]
    overlap: NDArray[np.float64]
    level: Options


def converged(mf: Any) -> Converged:
    """The matrices of a calculation that has run.

    Args:
        mf: RKS, RHF, or a closed shell's UKS, UHF, ROKS or ROHF.

    Raises:
        InvalidInputError: it has not run, is of a crystal or spinors, or is no closed shell.
    """
    mol = mf.mol
    if hasattr(mol, "lattice_vectors"):
        raise InvalidInputError("The calculation is of a crystal; only molecules are evaluated.")
    if treatment(mf) in (None, "generalised"):
        raise InvalidInputError(f"{type(mf).__name__} came; give an RKS, RHF or a closed shell's UKS or ROKS.")
    if mf.mo_coeff is None:
        raise InvalidInputError("The calculation has not run.", hint="Call mf.kernel() first.")
    if not mf.converged:
        warnings.warn(
            "The calculation is not converged: its matrix is no reference to judge a prediction by.",
            TraceGradWarning,
            stacklevel=3,
        )
    return Converged(mol, _one_spin(np.asarray(mf.get_fock())), np.asarray(mf.get_ovlp()), stated_level(mf, mol))


def of_chkfile(path: str | Path) -> Converged:
    """The same from a chkfile: F = S C e C^T S of its orbitals. PySCF evaluates text on reading: open your own files only.

    Raises:
        InvalidInputError: no chkfile, or one without an SCF of a closed shell.
    """
    try:
        mol, stored = scf.chkfile.load_scf(str(path))
        coefficients, energies = np.asarray(stored["mo_coeff"]), np.asarray(stored["mo_energy"])
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InvalidInputError(f"{str(path)[:200]!r} is no chkfile of a PySCF calculation that has run.") from error
    overlap = np.asarray(mol.intor_symmetric("int1e_ovlp"))
    spins = [(coefficients, energies)] if coefficients.ndim == 2 else list(zip(coefficients, energies, strict=True))
    if coefficients.shape[-2] != len(overlap):
        raise InvalidInputError("The chkfile's orbitals are not those of its own molecule, or are spinors.")
    fock = _one_spin(np.array([fock_of(overlap, *spin) for spin in spins]))
    return Converged(mol, fock, overlap, {"basis": mol.basis if isinstance(mol.basis, str) else None})


def _one_spin(fock: NDArray[Any]) -> NDArray[np.float64]:
    if np.iscomplexobj(fock):
        raise InvalidInputError("The Fock matrix is complex.")
    if fock.ndim == 3:
        if float(np.abs(fock[0] - fock[-1]).max()) > SAME_SPINS:
            raise InvalidInputError("The two spins have different Fock matrices; only closed shells are evaluated.")
        fock = fock.mean(axis=0)
    return np.asarray(fock, dtype=np.float64)
