"""Order of the AOs inside a shell: PySCF's and e3nn's, both ways from one table.

PySCF's real spherical p shell is (x, y, z), that is m = 1, -1, 0; its d, f, ... shells run m = -l..l. Here "e3nn order"
is m = -l..l for every l, so p is (y, z, x). All signs are plus. e3nn itself calls its polar axis y; feeding it
coordinates as (y, z, x) makes the two agree (``model.nn.frames``), so no other permutation exists in this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

AO_ORDERS: Final = ("pyscf", "e3nn")

_PYSCF_INDEX_OF_M: Final[dict[int, tuple[int, ...]]] = {1: (1, 2, 0)}
"""For each l whose orders differ: position in PySCF's shell of m = -l, ..., l."""


def pyscf_to_e3nn(shells: Sequence[int]) -> NDArray[np.int64]:
    """Indices p with ``matrix_e3nn = matrix_pyscf[np.ix_(p, p)]``.

    Args:
        shells: angular momentum of each shell, in AO order.

    Returns:
        shape (ao,), int64.
    """
    parts = []
    offset = 0
    for ang in shells:
        size = 2 * ang + 1
        parts.append(offset + np.array(_PYSCF_INDEX_OF_M.get(ang, tuple(range(size))), dtype=np.int64))
        offset += size
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def e3nn_to_pyscf(shells: Sequence[int]) -> NDArray[np.int64]:
    """Inverse of :func:`pyscf_to_e3nn`: ``matrix_pyscf = matrix_e3nn[np.ix_(p, p)]``."""
    return np.argsort(pyscf_to_e3nn(shells))
