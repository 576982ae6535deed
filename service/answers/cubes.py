"""Gaussian cubes of the electron density and of orbitals, on grids that integrate to what is in them.

A sum over a grid misses or doubles what is at a nucleus, depending on where the nucleus lies between the points: 2 of the 10
electrons of HF at 0.3 bohr. The values at the points are right all the same, so nothing is scaled: the grid is shifted by
less than a spacing to where the sum of the s functions' products at each atom, which is known exactly (products of Gaussians
are sums along each axis), is that of their integrals.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from service.answers.memory_text import MemoryText
from service.serving.fair import stop_if_abandoned

if TYPE_CHECKING:
    from pyscf.tools.cubegen import Cube

MARGIN_BOHR: Final = 5.0
SPACING_BOHR: Final = 0.25
POINTS: Final = (20, 96)
"""Fewest and most points along an axis; a long molecule gets a coarser grid, not a larger file."""

_SHIFTS: Final = np.arange(12) / 12
"""Of a spacing, tried along each axis."""

COLUMNS: Final = 6


def density_cube(mole: Any, density: NDArray[np.float64]) -> bytes:
    """The file of the electron density, electrons per cubic bohr.

    Args:
        mole: PySCF's.
        density: (ao, ao), of both spins.
    """
    cube = make_grid(mole, density)
    values = _values(mole, cube, lambda ao: np.asarray(np.einsum("xp,xp->x", ao @ density, ao)))
    return _file(cube, values, "Electron density in real space (e/Bohr^3)")


def orbital_cube(mole: Any, coefficients: NDArray[np.float64]) -> bytes:
    """The file of an orbital, bohr^(-3/2).

    Args:
        mole: PySCF's.
        coefficients: (ao,).
    """
    cube = make_grid(mole, np.outer(coefficients, coefficients))
    values = _values(mole, cube, lambda ao: np.asarray(ao @ coefficients))
    return _file(cube, values, "Orbital value in real space (1/Bohr^1.5)")


def cube_shape(positions_bohr: NDArray[np.float64]) -> tuple[int, int, int]:
    """Points along x, y and z of the grid around some atoms, positions (atom, 3) in bohr."""
    extent = np.ptp(positions_bohr, axis=0) + 2.0 * MARGIN_BOHR
    nx, ny, nz = np.clip(np.ceil(extent / SPACING_BOHR), *POINTS).astype(int)
    return int(nx), int(ny), int(nz)


def make_grid(mole: Any, density: NDArray[np.float64]) -> Cube:
    """A grid around the molecule, shifted to where it integrates a density best."""
    from pyscf.tools.cubegen import Cube

    coordinates = mole.atom_coords()
    extent = np.ptp(coordinates, axis=0) + 2.0 * MARGIN_BOHR
    points = cube_shape(coordinates)
    spacing = extent / (np.array(points) - 1)
    origin = coordinates.min(axis=0) - MARGIN_BOHR
    excess = np.zeros((len(_SHIFTS),) * 3)
    for atom in range(mole.natm):
        exponents, weights = _s_products(mole, atom, density)
        if len(exponents):
            # sums of exp(-a x^2) over the points of each axis, for each shift of the origin
            sums = [
                spacing[axis]
                * _gaussian_sums(exponents, coordinates[atom, axis] - origin[axis], spacing[axis], points[axis])
                for axis in range(3)
            ]
            exact = float((weights * (np.pi / exponents) ** 1.5).sum())
            excess += np.einsum("n,in,jn,kn->ijk", weights, *sums) - exact
    best = np.unravel_index(int(np.abs(excess).argmin()), excess.shape)
    shift = np.array([_SHIFTS[index] for index in best]) * spacing
    return Cube(mole, *points, margin=MARGIN_BOHR, origin=origin - shift)


def _s_products(mole: Any, atom: int, density: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The part of a density that is made of an atom's own s functions, as sum of weights times exp(-exponent r^2)."""
    shells = [shell for shell in range(mole.nbas) if mole.bas_atom(shell) == atom and mole.bas_angular(shell) == 0]
    first = mole.ao_loc_nr()
    functions = []
    for shell in shells:
        exponents = mole.bas_exp(shell)
        # with the factor of the spherical harmonic
        for index, column in enumerate((mole._libcint_ctr_coeff(shell) / np.sqrt(4.0 * np.pi)).T):
            functions.append((first[shell] + index, exponents, column))
    found = [
        ((a[:, None] + b[None, :]).ravel(), density[i, j] * np.outer(c, d).ravel())
        for (i, a, c), (j, b, d) in product(functions, repeat=2)
    ]
    if not found:
        return np.empty(0), np.empty(0)
    return np.concatenate([each for each, _ in found]), np.concatenate([each for _, each in found])


def _gaussian_sums(exponents: NDArray[np.float64], centre: float, spacing: float, count: int) -> NDArray[np.float64]:
    """Sums over the points of an axis of exp(-a (x - centre)^2), (shift, exponent)."""
    positions = spacing * (np.arange(count)[None, :] - _SHIFTS[:, None]) - centre
    return np.stack([np.exp(-a * positions**2).sum(axis=1) for a in exponents], axis=1)


def _values(mole: Any, cube: Cube, of: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float64]:
    """What is made of the AOs at the points, (x, y, z); plane by plane, as long as somebody waits for it."""
    values = np.empty((cube.nx, cube.ny, cube.nz))
    for x, plane in zip(cube.xs, values, strict=True):
        stop_if_abandoned()
        fractions = np.stack(np.broadcast_arrays(x, cube.ys[:, None], cube.zs), axis=-1)
        ao = mole.eval_gto("GTOval", fractions.reshape(-1, 3) @ cube.box + cube.boxorig)
        plane[...] = of(ao).reshape(plane.shape)
    return values


def _file(cube: Cube, values: NDArray[np.float64], title: str) -> bytes:
    """The file of PySCF's ``Cube.write``, which takes no file but a name."""
    file = MemoryText()
    file.write(f"{title}\nWritten by the TraceGrad service\n")
    steps = cube.box * np.array([axis[1] for axis in (cube.xs, cube.ys, cube.zs)])[:, None]
    heads = [(cube.mol.natm, cube.boxorig), *zip(values.shape, steps, strict=True)]
    for count, vector in heads:
        file.write(f"{count:5d}{vector[0]:12.6f}{vector[1]:12.6f}{vector[2]:12.6f}\n")
    for number, (x, y, z) in zip(cube.mol.atom_charges(), cube.mol.atom_coords(), strict=True):
        file.write(f"{number:5d}{0.0:12.6f}{x:12.6f}{y:12.6f}{z:12.6f}\n")
    lines, rest = divmod(values.shape[2], COLUMNS)
    row = ("%13.5E" * COLUMNS + "\n") * lines + ("%13.5E" * rest + "\n") * bool(rest)
    for each in values.reshape(-1, values.shape[2]):
        file.write(row % tuple(each.tolist()))
    return file.content()
