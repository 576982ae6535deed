"""How orbitals turn, from PySCF alone: what ``model.blocks.motions`` is held against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.integrals.pyscf_molecule import build_mole
from model.structure import Structure


def pyscf_transform(before: Structure, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """U, (ao, ao), of x -> matrix @ x: PySCF evaluates its orbitals on points r, and those of the moved molecule on M r.

    chi'(M r) = U chi(r), so U of each shell is a least-squares solution.
    """
    after = Structure(before.numbers, before.positions_angstrom @ matrix.T)
    points = np.random.default_rng(0).normal(scale=2.0, size=(6000, 3))
    mole = build_mole(before, "def2-svp")
    old = mole.eval_gto("GTOval_sph", points)
    new = build_mole(after, "def2-svp").eval_gto("GTOval_sph", points @ matrix.T)
    transform = np.zeros((mole.nao, mole.nao))
    locations = mole.ao_loc_nr()
    for shell in range(mole.nbas):
        part = slice(locations[shell], locations[shell + 1])
        transform[part, part] = np.linalg.lstsq(old[:, part], new[:, part], rcond=None)[0].T
    return transform
