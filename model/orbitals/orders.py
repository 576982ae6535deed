"""Order and signs of the orbitals inside a shell: one table a program, and the way to the standard order and back.

The standard order is m = -l..l of the real spherical harmonics, all signs plus: p is (y, z, x), d is (xy, yz, z2, xz,
x2-y2). It is e3nn's once coordinates are fed to it as (y, z, x) (``model.nn.frames``), CCA's and GPAW's; the networks know no
other. ``tests/model/test_orders.py`` proves the tables on matrices that the programs made: PySCF and ABACUS to f, OpenMX and
SIESTA to d. No matrix of ORCA or of GPAW itself was at hand: their tables are those of iodata and of GPAW's source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.errors import UnsupportedBasisError

ORDERS: Final = ("pyscf", "e3nn", "openmx", "siesta", "abacus", "gpaw", "orca")
"""Programs whose order is known; ``e3nn`` names the standard order."""

_OUTWARD: Final = "outward"
"""m = 0, 1, -1, 2, -2, ..."""

_M_OF_POSITION: Final[Mapping[str, Mapping[int, tuple[int, ...]]]] = {
    "pyscf": {1: (1, -1, 0)},
    "openmx": {1: (1, -1, 0), 2: (0, 2, -2, 1, -1)},
}
"""m of each position in a shell, where a program differs from its general rule (below)."""

_RULE: Final[Mapping[str, str]] = {"openmx": _OUTWARD, "abacus": _OUTWARD, "orca": _OUTWARD}
"""General rule of a program; m = -l..l where there is none."""


def _sign(order: str, m: int) -> int:
    """Sign of a program's function against the standard one.

    SIESTA and ABACUS keep the Condon-Shortley phase (-1)^m of the complex harmonics; ORCA turns |m| = 3 and 4.
    """
    if order in ("siesta", "abacus"):
        return -1 if m % 2 else 1
    if order == "orca":
        return -1 if abs(m) in (3, 4) else 1
    return 1


@dataclass(frozen=True)
class OrbitalOrder:
    """Permutation and signs between a program's orbitals and the standard ones, for some shells in a row.

    Attributes:
        index: position in the program's list of each standard orbital, (ao,).
        sign: +1 or -1 of each standard orbital, (ao,): ``standard[k] = sign[k] * program[index[k]]``.
    """

    index: NDArray[np.int64]
    sign: NDArray[np.float64]

    @classmethod
    def of(cls, shells: Sequence[int], order: str) -> OrbitalOrder:
        """Build for shells of these angular momenta.

        Raises:
            UnsupportedBasisError: an order that no table knows.
        """
        index, sign, start = [], [], 0
        for ang in shells:
            of_m = {m: position for position, m in enumerate(m_of_position(order, ang))}
            index += [start + of_m[m] for m in range(-ang, ang + 1)]
            sign += [_sign(order, m) for m in range(-ang, ang + 1)]
            start += 2 * ang + 1
        return cls(np.array(index, dtype=np.int64), np.array(sign, dtype=np.float64))

    def inverse(self) -> OrbitalOrder:
        """From the standard order to the program's: ``program[k] = sign[k] * standard[index[k]]``."""
        back = np.argsort(self.index)
        return OrbitalOrder(back, self.sign[back])


def m_of_position(order: str, ang: int) -> tuple[int, ...]:
    """m of each orbital of one shell in a program's own sequence, (2l + 1,).

    Raises:
        UnsupportedBasisError: an order that no table knows.
    """
    if order not in ORDERS:
        raise UnsupportedBasisError(f"Orbital order {order[:40]!r} is not known.", allowed=list(ORDERS))
    special = _M_OF_POSITION.get(order, {}).get(ang)
    if special is not None:
        return special
    if _RULE.get(order) == _OUTWARD:
        return (0, *(sign * m for m in range(1, ang + 1) for sign in (1, -1)))
    return tuple(range(-ang, ang + 1))


def pyscf_to_e3nn(shells: Sequence[int]) -> NDArray[np.int64]:
    """Indices p with ``matrix_e3nn = matrix_pyscf[np.ix_(p, p)]``, (ao,); PySCF has no signs."""
    return OrbitalOrder.of(shells, "pyscf").index


def e3nn_to_pyscf(shells: Sequence[int]) -> NDArray[np.int64]:
    """Inverse of :func:`pyscf_to_e3nn`: ``matrix_pyscf = matrix_e3nn[np.ix_(p, p)]``."""
    return OrbitalOrder.of(shells, "pyscf").inverse().index
