"""BlockSpace: blocks <-> irrep coefficients, spin included, by one orthogonal matrix (QHNet's "Expansion", arXiv:2306.04922).

A block of shells (a, b) with angular momenta (la, lb) is the direct sum of L = |la - lb| .. la + lb. With orthonormal
Clebsch-Gordan coefficients the map is orthogonal: norms, and so mean squared errors, are the same for coefficients and for
the real numbers of the block. These numbers are the *components*, real arrays (component, row, column) in standard order:

    restricted     H
    unrestricted   sqrt(2) mean, sqrt(2) difference           alpha, beta = mean +- difference
    spinor         sqrt(2) times Re h0, Re hx, Re hy, Re hz, Im h0, Im hx, Im hy, Im hz
                   [[uu, ud], [du, dd]] = h0 x 1 + hx x sigma_x + hy x sigma_y + hz x sigma_z

so that the squares of the components add up to those of all spin parts of the block. A flip of all spins leaves the mean and
turns the sign of the difference. In a spinor's block each L gives the irrep L for h0 and L - 1, L, L + 1 for h, because
(l1 x 1/2) x (l2 x 1/2) = (l1 x l2) x (0e + 1e): spin is an axial vector, so all have the parity (-1)^(l1 + l2) and unnatural
ones (0o, 1e, 2o ...) occur. Rotations are real, so real and imaginary parts are copies of the same irreps.

Time reversal, where it holds, makes h0 real and h imaginary (orbitals are real): half of the components are zero and
left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import Spin, Values
from model.errors import UnsupportedBasisError
from model.nn.irreps import CoefficientLayout, SpinTerm

_TERMS: Final[Mapping[str, tuple[SpinTerm, ...]]] = {
    "restricted": (SpinTerm("h", (0,), 0),),
    "unrestricted": (SpinTerm("mean", (0,), 0), SpinTerm("difference", (1,), 1)),
    "spinor": (
        SpinTerm("Re h0", (0,), 0),
        SpinTerm("Re h", (1, 2, 3), 1),
        SpinTerm("Im h0", (4,), 0),
        SpinTerm("Im h", (5, 6, 7), 1),
    ),
}
_TIME_REVERSAL: Final = (SpinTerm("Re h0", (0,), 0), SpinTerm("Im h", (1, 2, 3), 1))
_PAULI: Final = np.array(
    [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0], [0.0, -1j, 1j, 0.0], [1.0, 0.0, 0.0, -1.0]]
) / np.sqrt(2.0)
"""Rows 1, sigma_x, sigma_y, sigma_z; columns uu, ud, du, dd; unitary."""
_MEAN_AND_DIFFERENCE: Final = np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2.0)


@dataclass(frozen=True, eq=False)
class BlockSpace:
    """The map for one template and one spin treatment.

    Attributes:
        coefficients: layout of the coefficients: all that an architecture needs to know.
        spin: spin treatment of the blocks.
        time_reversal: whether the components that time reversal makes zero are left out; spinors only.
    """

    coefficients: CoefficientLayout
    spin: Spin = "restricted"
    time_reversal: bool = False

    @classmethod
    def of(cls, template: Sequence[int], spin: Spin = "restricted", *, time_reversal: bool = False) -> BlockSpace:
        """Build for a template.

        Args:
            template: angular momentum of each shell of the template.
            spin: spin treatment.
            time_reversal: leave out what time reversal makes zero; measure it on the labels first
                (``motions.time_reversal_error``).

        Raises:
            UnsupportedBasisError: an unknown spin treatment, or ``time_reversal`` without spinors.
        """
        if spin not in _TERMS:
            raise UnsupportedBasisError(f"Spin treatment {spin!r} is not known.", allowed=list(_TERMS))
        if time_reversal and spin != "spinor":
            raise UnsupportedBasisError(
                f"Time reversal halves the blocks of spinors only; these are {spin}.",
                hint="Leave time_reversal out, or use spin 'spinor'.",
            )
        terms = _TIME_REVERSAL if time_reversal else _TERMS[spin]
        return cls(CoefficientLayout.of(template, terms), spin, time_reversal)

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """Orthogonal, (component * row * column, coefficient), float64: ``components.ravel() = matrix @ coefficients``."""
        return self.coefficients.matrix

    @property
    def n_components(self) -> int:
        """Real components of a block: 1, 2, 8, or 4 with time reversal."""
        return self.coefficients.n_components

    @property
    def channel_of_coefficient(self) -> NDArray[np.int64]:
        """Index into ``coefficients.channels`` of each coefficient, (coefficient,)."""
        parts = []
        start = 0
        for (ang, _), count in zip(self.coefficients.layout.irreps, self.coefficients.multiplicity, strict=True):
            parts.append(np.tile(np.arange(start, start + count), 2 * ang + 1))
            start += count
        return np.concatenate(parts)

    @property
    def n_traces(self) -> int:
        """Trace labels of a block: one a shell pair, or two (mean and difference; |h0|^2 and |hx|^2 + |hy|^2 + |hz|^2)."""
        groups = 1 + max(term.group for term in self.coefficients.terms)
        return groups * len(self.coefficients.template) ** 2

    def trace_index(self) -> NDArray[np.int64]:
        """Trace label that each coefficient's square belongs to, (coefficient,).

        Label ``(group * shells + a) * shells + b`` for shell pair (a, b): the finest sums that neither rotations nor a
        flip of all spins change. Of a spinor's block a single spin part is not invariant, nor is one component of h.
        """
        layout = self.coefficients
        n_shells = len(layout.template)
        of_channel = [(layout.terms[c.term].group * n_shells + c.row) * n_shells + c.column for c in layout.channels]
        return np.asarray(np.array(of_channel, dtype=np.int64)[self.channel_of_coefficient])

    @property
    def adjoint_sign(self) -> NDArray[np.float64]:
        """+1 or -1 of each component, (component,): the block of (j, i, -R) is ``sign * transpose`` of that of (i, j, R)."""
        signs = np.ones(self.n_components)
        for term in self.coefficients.terms:
            if term.name.startswith("Im"):
                signs[list(term.components)] = -1.0
        return signs

    def to_components(self, values: Values) -> NDArray[np.float64]:
        """Spin parts of blocks -> real components.

        Args:
            values: (spin part, ...) as in ``BlockSet.values``.

        Returns:
            (component, ...); with ``time_reversal`` the part of the block that obeys it.
        """
        if self.spin == "restricted":
            return values
        if self.spin == "unrestricted":
            return np.tensordot(_MEAN_AND_DIFFERENCE, values, axes=1)
        h = np.tensordot(_PAULI.conj(), values, axes=1)
        if self.time_reversal:
            return np.concatenate([h[:1].real, h[1:].imag])
        return np.concatenate([h.real, h.imag])

    def to_values(self, components: NDArray[np.float64]) -> Values:
        """Inverse of :meth:`to_components`: (component, ...) -> (spin part, ...), complex for spinors."""
        if self.spin == "restricted":
            return components
        if self.spin == "unrestricted":
            return np.tensordot(_MEAN_AND_DIFFERENCE, components, axes=1)
        if self.time_reversal:
            h = np.concatenate([components[:1] + 0j, 1j * components[1:]])
        else:
            h = components[:4] + 1j * components[4:]
        return np.tensordot(_PAULI.T, h, axes=1)
