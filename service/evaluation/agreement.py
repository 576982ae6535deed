"""Whether the caller's matrix is of the same functions, in the same order, in the unit that it says.

The overlap decides: only the same functions at the same places in the same order have the same one. Without it the
predicted matrix stands in, which in another order misses the caller's by a hundred times more than in the right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.orbitals.orders import ORDERS, OrbitalOrder, e3nn_to_pyscf
from model.units import EV_PER_HARTREE
from service.errors import ServiceError
from service.evaluation.given import Given

OVERLAP_TOLERANCE: Final = 1e-4
"""Largest difference of overlaps that are the same: printed digits, and atoms to 1e-4 Å."""
CLEARLY: Final = 3.0
"""Without an overlap another order is better if the mean difference in it is so many times smaller."""
FAR_HARTREE: Final = 0.02
"""Without an overlap a mean difference beyond which nothing says that the basis is the same; predictions miss by 1e-3."""
_DEEP_HARTREE: Final = -1.0
"""A core's level: its element of the matrix tells the unit."""
_RATIOS: Final = {"eV": EV_PER_HARTREE, "rydberg": 2.0, "hartree, not eV": 1.0 / EV_PER_HARTREE}
_RATIO_TOLERANCE: Final = 0.05

Matrix = NDArray[np.float64]


def in_pyscf_order(matrix: Matrix, shells: Sequence[int], order: str) -> Matrix:
    """A matrix of a program's orbitals in PySCF's order and signs.

    Args:
        matrix: (ao, ao).
        shells: angular momentum of each shell.
        order: the program's, of ``model.orbitals.orders.ORDERS``.
    """
    into = OrbitalOrder.of(shells, order)
    standard = matrix[np.ix_(into.index, into.index)] * np.outer(into.sign, into.sign)
    back = e3nn_to_pyscf(shells)
    return standard[np.ix_(back, back)]


def agreed_fock(
    given: Given, shells: Sequence[int], order: str, factor: float, hamiltonian: Matrix, overlap: Matrix, basis: str
) -> tuple[Matrix, float | None]:
    """The caller's Fock matrix in PySCF's order, hartree, and how far the overlaps are apart.

    Args:
        given: as it came.
        shells: angular momentum of each shell.
        order: as the caller names it.
        factor: from hartree to the caller's unit.
        hamiltonian: as predicted, hartree, PySCF's order.
        overlap: ours.
        basis: the model's name for it.

    Returns:
        the matrix, symmetric; the largest difference of the overlaps, None if none came.

    Raises:
        ServiceError: ``invalid_request`` with the order or unit that would fit; ``unsupported_basis``.
    """
    fock = given.fock / factor
    _check_unit(fock, hamiltonian)
    if given.overlap is None:
        differences = {name: _mean(in_pyscf_order(fock, shells, name) - hamiltonian) for name in ORDERS}
        _check_nearest(differences, order, basis)
        error = None
    else:
        errors = {name: _largest(in_pyscf_order(given.overlap, shells, name) - overlap) for name in ORDERS}
        _check_overlap(errors, order, given.overlap, overlap, basis)
        error = errors[order]
    ordered = in_pyscf_order(fock, shells, order)
    return 0.5 * (ordered + ordered.T), error


def _check_unit(fock: Matrix, hamiltonian: Matrix) -> None:
    """Compare the lowest diagonal elements, which do not depend on the order."""
    expected = float(hamiltonian.diagonal().min())
    if expected > _DEEP_HARTREE:
        return
    ratio = float(fock.diagonal().min()) / expected
    for unit, value in _RATIOS.items():
        if abs(ratio / value - 1.0) < _RATIO_TOLERANCE:
            raise ServiceError(
                "invalid_request",
                f"The matrix is not in the stated unit: its lowest diagonal element is {ratio:.3g} times the predicted one.",
                field="energy_unit",
                hint="Halve it: Rydberg is not a unit of this route."
                if unit == "rydberg"
                else f"It seems to be in {unit}; say so with energy_unit.",
            )


def _check_overlap(errors: dict[str, float], order: str, theirs: Matrix, ours: Matrix, basis: str) -> None:
    if errors[order] <= OVERLAP_TOLERANCE:
        return
    if fitting := [name for name in ORDERS if errors[name] <= OVERLAP_TOLERANCE]:
        raise _another_order(f"The overlap is not in the order {order}: it differs by {errors[order]:.1e}.", fitting)
    levels = float(np.abs(np.linalg.eigvalsh(theirs) - np.linalg.eigvalsh(ours)).max())
    if levels <= OVERLAP_TOLERANCE:
        raise ServiceError(
            "invalid_request",
            "The overlap has the right eigenvalues and the right elements in no known order: the same functions, but "
            "rotated, with the atoms in another order, or with the orbitals in one that is not known here.",
            field="ao_order",
            allowed=list(ORDERS),
            hint="Send the geometry in the orientation and the order of atoms that the calculation printed.",
        )
    raise ServiceError(
        "unsupported_basis",
        f"The overlap is not that of {basis} at this geometry: it differs by {min(errors.values()):.1e} at best.",
        field="overlap",
        hint="Check the basis, the unit of the coordinates, and that structure and matrix are of the same geometry.",
    )


def _check_nearest(differences: dict[str, float], order: str, basis: str) -> None:
    nearest = min(differences.values())
    if nearest * CLEARLY < differences[order]:
        fitting = [name for name in ORDERS if differences[name] <= 1.01 * nearest]
        raise _another_order(
            f"The matrix is not in the order {order}: another one is far nearer to the prediction.", fitting
        )
    if differences[order] > FAR_HARTREE:
        raise ServiceError(
            "unsupported_basis",
            f"The matrix differs from the prediction by {differences[order]:.2g} hartree in the mean, in every known order: "
            f"nothing says that it is in {basis}, at this geometry.",
            field="fock",
            hint="Send the overlap beside it: with it the basis is checked, and any difference is answered.",
        )


def _another_order(detail: str, fitting: Sequence[str]) -> ServiceError:
    return ServiceError(
        "invalid_request",
        detail,
        field="ao_order",
        allowed=list(ORDERS),
        hint=f"It fits ao_order={' and '.join(fitting)}.",
    )


def _largest(difference: Matrix) -> float:
    return float(np.abs(difference).max())


def _mean(difference: Matrix) -> float:
    return float(np.abs(difference).mean())
