"""Coulomb potentials of spherical charges on a molecule's atoms, by a kernel in C where there is one (``coulomb.c``).

PySCF's three-centre integrals evaluate every Gaussian of every atom by itself; the kernel adds charges up as soon as it can.
Both give the same matrices to rounding (docs/decisions/0020-three-centre-kernel.md).
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import scipy.special
import torch
from numpy.typing import NDArray
from pyscf import gto

from model.nn import native

Matrix = NDArray[np.float64]

SOURCE: Final = Path(__file__).with_name("coulomb.c")
LANES, LARGEST_L, MOST_SETS, MOST_EXPONENTS = 8, 4, 4, 64
LIMIT, STEPS, TERMS = 28, 8, 7
THRESHOLD: Final = 1e-14
"""Products of two primitives that are smaller, over the sum of their exponents, are left out: 1e-10 hartree in all."""


def is_ready() -> bool:
    """Whether the kernel can be had on this machine."""
    return _kernel() is not None


def fits(n_sets: int, n_exponents: int) -> bool:
    """Whether the kernel takes so many sets of so many Gaussians."""
    return n_sets <= MOST_SETS and n_exponents <= MOST_EXPONENTS


def coulomb_potentials(mole: Any, exponents: NDArray[np.float64], charges: Matrix) -> Matrix | None:
    """Matrices of the potentials of normalised Gaussian charges on the atoms, each set's summed over atoms.

    Args:
        mole: PySCF's molecule, spherical functions.
        exponents: of the Gaussians, (exponent,), 1/bohr^2; infinity is a point.
        charges: (set, atom, exponent), elementary charges times what the matrix is to be of: an electron in the field of
            nuclei Z has charges -Z.

    Returns:
        (set, ao, ao), hartree; None where there is no kernel, or where it was not made for such shells.
    """
    library = _kernel()
    if library is None or not fits(len(charges), len(exponents)) or mole.cart:
        return None
    shells, centres, numbers = _shells(mole)
    if shells[:, 0].max() > LARGEST_L:
        return None
    order = np.argsort(-exponents)
    positions = np.array([mole.atom_coord(atom) for atom in range(mole.natm)])
    along = _along(positions)
    padded = -(-len(along) // LANES) * LANES
    atoms = np.repeat(positions[along[-1:]].T, padded, axis=1)
    atoms[:, : len(along)] = positions[along].T
    sorted_charges = np.zeros((len(charges), len(exponents), padded))
    sorted_charges[:, :, : len(along)] = charges[:, along][:, :, order].transpose(0, 2, 1)
    sums = np.zeros((len(charges), len(exponents) + 1, padded))
    np.cumsum(sorted_charges, axis=1, out=sums[:, 1:])
    result = np.empty((len(charges), mole.nao, mole.nao))
    arrays = [shells, centres, numbers, _spherical(), atoms, exponents[order], sorted_charges, sums, _boys(), result]
    held = [np.ascontiguousarray(array) for array in arrays]
    at = [ctypes.c_void_p(array.ctypes.data) for array in held]
    integer = ctypes.c_int64
    refused = library.coulomb(
        integer(len(shells)), *at[:4], integer(padded), at[4], integer(len(exponents)), at[5], integer(len(charges)),
        *at[6:9], ctypes.c_double(THRESHOLD), integer(mole.nao), at[9],
    )  # fmt: skip
    return None if refused else result


@cache
def _kernel() -> ctypes.CDLL | None:
    return native.library(SOURCE, torch.float64)


def _shells(mole: Any) -> tuple[NDArray[np.int64], Matrix, Matrix]:
    """One entry a contraction: (l, first ao, primitives, where exponents and coefficients start); centres; the numbers."""
    rows, centres, first = [], [], 0
    for shell in mole._bas.tolist():
        angular, n_primitives, n_contractions = shell[gto.ANG_OF], shell[gto.NPRIM_OF], shell[gto.NCTR_OF]
        start = int(mole._atm[shell[gto.ATOM_OF], gto.PTR_COORD])
        for contraction in range(n_contractions):
            pointer = shell[gto.PTR_COEFF] + contraction * n_primitives
            rows.append((angular, first, n_primitives, shell[gto.PTR_EXP], pointer))
            centres.append(mole._env[start : start + 3])
            first += 2 * angular + 1
    return np.array(rows, dtype=np.int64), np.array(centres), np.asarray(mole._env)


def _along(positions: Matrix) -> NDArray[np.int64]:
    """Atoms in their sequence along the molecule's longest axis, so that those of one block are near each other."""
    centred = positions - positions.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return np.argsort(centred @ axes[:, -1], kind="stable")


@cache
def _spherical() -> Matrix:
    """Cartesian to spherical functions of l = 0, 1, .., (cartesian, spherical), one after another."""
    return np.concatenate([np.asarray(gto.mole.cart2sph(angular)).ravel() for angular in range(LARGEST_L + 1)])


@cache
def _boys() -> Matrix:
    """Boys functions on the kernel's grid, (order, LIMIT * STEPS + 1, LANES): F_order and the next six, then exp(-T)."""
    argument = np.arange(LIMIT * STEPS + 1)[:, None] / STEPS
    half = np.arange(2 * LARGEST_L + TERMS) + 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        values = scipy.special.gammainc(half, argument) * scipy.special.gamma(half) / (2.0 * argument**half)
    values[0] = 0.5 / half
    table = aligned((2 * LARGEST_L + 1, len(argument), LANES))
    for order, rows in enumerate(table):
        rows[:, :TERMS] = values[:, order : order + TERMS]
        rows[:, TERMS:] = np.exp(-argument)
    return table


def aligned(shape: tuple[int, ...]) -> Matrix:
    """Zeros that start at a multiple of 64 bytes, as vectors of the kernel do."""
    size = 8 * int(np.prod(shape))
    raw = np.zeros(size + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(np.float64).reshape(shape)
