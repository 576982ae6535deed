"""A predicted H without ghost bands: nearly dependent functions keep their kinetic energy, whatever the network says of them.

With the label's states in S = V s V^dagger and H = T + U, T the kinetic energy (known exactly, like S):

    H_damped = H - G U G,    G = V diag(delta / (s + delta)) V^dagger

An error of U moves a combination of functions with eigenvalue s of S by up to |dU| / s: a few meV make a state of 100 eV one
of -100 eV, which then takes electrons. The true U of such a combination is small beside its T, because it oscillates faster
than any potential: what is left out is U among such combinations alone, by shares G; U between them and all others stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model.blocks.block_set import BlockSet
from model.blocks.matrices import BlochSum
from model.electronic.overlap import Matrix, OverlapFactor


@dataclass(frozen=True, eq=False)
class KineticDamping:
    """What H(k) is made of it.

    Attributes:
        kinetic: T(R), hartree, restricted, of the Hamiltonian's atoms, orbitals and order.
        delta: G is a half where an eigenvalue of S is this; 0.02 is what docs/decisions/0018 found.
    """

    kinetic: BlockSet
    delta: float

    def in_order(self, order: str) -> KineticDamping:
        """The same for a Hamiltonian of another order of orbitals."""
        return KineticDamping(self.kinetic.in_order(order), self.delta)

    @cached_property
    def _kinetic_at(self) -> BlochSum:
        return BlochSum(self.kinetic)

    def __call__(self, hamiltonian: Matrix, factor: OverlapFactor, k: Sequence[float]) -> Matrix:
        """Damped H(k).

        Args:
            hamiltonian: H(k) of one spin, (ao, ao), or of spinors, (2 ao, 2 ao); hartree.
            factor: of S(k), (ao, ao).
            k: fractional coordinates.
        """
        left_out, kinetic = left_out_shares(factor, self.delta), self._kinetic_at(k)
        if len(hamiltonian) == 2 * len(kinetic):
            left_out, kinetic = (np.kron(np.eye(2), matrix) for matrix in (left_out, kinetic))
        return hamiltonian - left_out @ (hamiltonian - kinetic) @ left_out


def left_out_shares(factor: OverlapFactor, delta: float) -> Matrix:
    """G, hermitian, (ao, ao); 0 for a delta of 0."""
    return np.asarray((factor.vectors * (delta / (factor.values + delta))) @ factor.vectors.conj().T)
