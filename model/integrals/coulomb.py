"""Coulomb potentials of spherical charges on a molecule's atoms: by a kernel in C (``coulomb.c``), and by PySCF.

PySCF's three-centre integrals evaluate every Gaussian of every atom by itself; the kernel adds charges up as soon as it can.
Both give the same matrices to rounding (docs/decisions/0020-three-centre-kernel.md).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
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
COEFFICIENTS: Final = 36
THRESHOLD: Final = 1e-14
"""Products of two primitives that are smaller, over the sum of their exponents, are left out: 1e-10 hartree in all."""


CHUNK_BYTES = 256 * 2**20
"""Three-centre integrals held at a time."""


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
    positions = mole.atom_coords()
    along = _along(positions)
    padded = -(-len(along) // LANES) * LANES
    atoms = np.repeat(positions[along[-1:]].T, padded, axis=1)
    atoms[:, : len(along)] = positions[along].T
    sorted_charges = np.zeros((len(charges), len(exponents), padded))
    sorted_charges[:, :, : len(along)] = charges[:, along][:, :, order].transpose(0, 2, 1)
    sums = np.zeros((len(charges), len(exponents) + 1, padded))
    np.cumsum(sorted_charges, axis=1, out=sums[:, 1:])
    result = np.empty((len(charges), mole.nao, mole.nao))
    descending = np.pad(exponents[order], (0, LANES), constant_values=1.0)  # the kernel reads whole vectors
    arrays = [shells, centres, numbers, _spherical(), atoms, descending, sorted_charges, sums, _boys(), result]
    held = [np.ascontiguousarray(array) for array in arrays]
    at = [ctypes.c_void_p(array.ctypes.data) for array in held]
    integer = ctypes.c_int64
    refused = library.coulomb(
        integer(len(shells)), *at[:4], integer(padded), at[4], integer(len(exponents)), at[5], integer(len(charges)),
        *at[6:9], ctypes.c_double(THRESHOLD), integer(mole.nao), at[9],
    )  # fmt: skip
    return None if refused else result


def gaussian_potentials(
    mole: Any, exponents: NDArray[np.float64], contractions: Mapping[int, NDArray[np.float64]]
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Coulomb potentials of atom-centred spherical Gaussian charges, (mu nu | g), exactly and analytically.

    They come in chunks of atoms, so that a large molecule's are never all in memory.

    Args:
        mole: PySCF's molecule.
        exponents: of the unit-charge Gaussians (a / pi)^(3/2) exp(-a r^2), (exponent,), 1/bohr^2.
        contractions: atomic number -> (contraction, exponent): each row is one charge distribution of that element.

    Yields:
        which atoms, and (atom, contraction, ao (ao + 1) / 2): packed lower triangles, hartree per unit charge.
    """
    n_contractions = len(next(iter(contractions.values())))
    # libcint's s functions carry Y_00; this is what makes one of them integrate to charge 1
    unit_charge = 1.0 / (2.0 * np.sqrt(np.pi) * gto.gaussian_int(2, exponents))
    environment: list[NDArray[np.float64]] = [np.zeros(gto.PTR_ENV_START), np.asarray(exponents, dtype=float)]
    pointer = gto.PTR_ENV_START
    exponent_pointer = pointer
    pointer += len(exponents)
    coefficient_pointer = {}
    numbers = [int(mole.atom_charge(atom)) for atom in range(mole.natm)]
    for number in sorted(set(numbers)):
        coefficient_pointer[number] = pointer
        environment.append((contractions[number] * unit_charge).ravel())
        pointer += contractions[number].size
    atoms = np.zeros((mole.natm, gto.ATM_SLOTS), dtype=np.int32)
    shells = np.zeros((mole.natm, gto.BAS_SLOTS), dtype=np.int32)
    for atom, number in enumerate(numbers):
        atoms[atom, gto.PTR_COORD] = pointer
        environment.append(np.asarray(mole.atom_coord(atom)))
        pointer += 3
        shells[atom, [gto.ATOM_OF, gto.NPRIM_OF, gto.NCTR_OF, gto.PTR_EXP, gto.PTR_COEFF]] = [
            atom,
            len(exponents),
            n_contractions,
            exponent_pointer,
            coefficient_pointer[number],
        ]
    atm, bas, env = gto.mole.conc_env(mole._atm, mole._bas, mole._env, atoms, shells, np.concatenate(environment))
    triangle = mole.nao * (mole.nao + 1) // 2
    step = max(1, CHUNK_BYTES // (8 * triangle * n_contractions))
    for start in range(0, mole.natm, step):
        stop = min(mole.natm, start + step)
        packed = gto.moleintor.getints(
            "int3c2e_sph",
            atm,
            bas,
            env,
            shls_slice=(0, mole.nbas, 0, mole.nbas, mole.nbas + start, mole.nbas + stop),
            aosym="s2ij",
        )
        yield slice(start, stop), packed.T.reshape(stop - start, n_contractions, triangle)


@cache
def _kernel() -> ctypes.CDLL | None:
    return native.library(SOURCE, torch.float64)


def _shells(mole: Any) -> tuple[NDArray[np.int64], Matrix, Matrix]:
    """One entry a contraction: (l, first ao, primitives, where exponents and coefficients start); centres; the numbers."""
    bas = mole._bas
    contractions = bas[:, gto.NCTR_OF]
    of_row = np.repeat(np.arange(len(bas)), contractions)
    number = np.arange(len(of_row)) - np.repeat(np.cumsum(contractions) - contractions, contractions)
    angular, n_primitives, exponents = (bas[of_row, slot] for slot in (gto.ANG_OF, gto.NPRIM_OF, gto.PTR_EXP))
    first = np.cumsum(2 * angular + 1) - (2 * angular + 1)
    coefficients = bas[of_row, gto.PTR_COEFF] + number * n_primitives
    shells = np.stack([angular, first, n_primitives, exponents, coefficients], axis=1).astype(np.int64)
    return shells, mole.atom_coords()[bas[of_row, gto.ATOM_OF]], np.asarray(mole._env)


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
    """Boys functions as the kernel evaluates them, (order, COEFFICIENTS): F_order is a polynomial of x = 2 T / limit - 1."""
    points = np.polynomial.chebyshev.chebpts1(COEFFICIENTS)
    rows = []
    for order in range(2 * LARGEST_L + 1):
        argument, half = 0.5 * min(24.0 + 2.0 * order, 28.0) * (points + 1.0), order + 0.5  # limits as in the kernel
        values = scipy.special.gammainc(half, argument) * scipy.special.gamma(half) / (2.0 * argument**half)
        fitted = np.polynomial.chebyshev.chebfit(points, values, COEFFICIENTS - 1)
        rows.append(np.polynomial.chebyshev.cheb2poly(fitted))
    return np.array(rows)
