"""The zero of energy of a crystal's Hamiltonian: H and H + c S describe the same crystal.

Labels of two cells have no common zero: it depends on the vacuum, the composition and the program. So models of crystals are
trained on, and predict, the Hamiltonian whose component along the overlap is zero,

    H - mu S    with    mu = <H, S> / <S, S>,    <A, B> = sum over R, i, j of A_ij(R) B_ij(R),

which is the same for a supercell as for its cell, turns with the crystal, and shifts eigenvalues and Fermi level by mu.
"""

from __future__ import annotations

import numpy as np

from model.blocks.block_set import SHARED_PARTS, BlockSet


def gauge_shift(hamiltonian: BlockSet, overlap: BlockSet) -> float:
    """mu = <H, S> / <S, S>, in the unit of H.

    Args:
        hamiltonian: H(R), of any spin treatment.
        overlap: S(R) of the same orbitals, restricted; pairs that it does not have are zero.
    """
    values = overlap.on_pairs(hamiltonian.pairs).values[0]
    parts = hamiltonian.values[list(SHARED_PARTS[hamiltonian.spin])]
    return float(np.real(parts @ values).mean() / (values @ values))


def shifted(hamiltonian: BlockSet, overlap: BlockSet, by: float) -> BlockSet:
    """H + by S, whose eigenvalues are all higher by ``by``; arguments as in :func:`gauge_shift`."""
    return hamiltonian.plus_shared(overlap, by)
