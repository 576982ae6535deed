"""Large cells: the states around an energy, and how many lie below it, from sparse H(k) and S(k); nothing dense is made.

    H - E S = L D L^dagger:    as many negative pivots D as states below E (Sylvester's law of inertia)
    shift-invert Lanczos:      the states nearest to E, with the same factorisation

Real at Gamma, complex at other k-points. SuperLU factorises in its symmetric mode (minimum degree of A + A^T, pivots on the
diagonal); a factorisation that had to pivot elsewhere counts nothing and is refused. Memory and time grow with the entries of
the factor: in a layer nearly with the number of atoms.

H damped (``electronic.kinetic_damping``) is dense, G = delta (S + delta)^-1 being an inverse, so it is factorised in three
times the unknowns: H - G U G is the Schur complement, onto the first, of

    [[H, 0, delta], [0, -U, S + delta], [delta, S + delta, 0]]

of whose lower two rows half the eigenvalues are negative, whatever U. Their unknowns are mixed by MIXING, so that no
pivot is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh, splu

from model.blocks.block_set import BlockSet
from model.blocks.matrices import sparse_matrix
from model.electronic.bands import PROJECTION_THRESHOLD, require_alike, require_hermitian
from model.electronic.kinetic_damping import KineticDamping
from model.errors import ElectronCountError, NumericalError, StructureError

FIRST_BRACKET_HARTREE: Final = 1.0
"""Half the width of the first interval that is searched for an energy; it is doubled until it holds the wanted one."""

MOST_STEPS: Final = 60
"""Factorisations of one search; a bisection of a hundred hartree down to 1e-15 needs fewer."""

MIXING: Final = 0.3
"""Of the second unknowns of a damped H into the third: their diagonal becomes 2 MIXING (S + delta) - MIXING^2 U, above 0."""

NUDGE: Final = 1e-9
"""Relative step away from an energy at which H - E S cannot be factorised: an eigenvalue."""


@dataclass(frozen=True, eq=False)
class States:
    """Some states of one k-point.

    Attributes:
        energies: ascending, in H's unit, (state,).
        first: number of states below the first of them, so that they can be told apart as bands.
    """

    energies: NDArray[np.float64]
    first: int


@dataclass(frozen=True, eq=False)
class _Factor:
    energy: float
    below: int
    solver: Any
    n_states: int

    def solve(self, right: NDArray[np.float64]) -> NDArray[np.float64]:
        """(H - E S)^-1 of a vector."""
        padded = np.zeros(self.solver.shape[0], dtype=right.dtype)
        padded[: self.n_states] = right
        return np.asarray(self.solver.solve(padded)[: self.n_states])


class SparseLevels:
    """Levels of one spin at one k-point.

    Args:
        hamiltonian: H(R), restricted or spinor; of two collinear spins take one at a time.
        overlap: S(R), restricted, of the same orbitals; its pairs may be others.
        k: fractional coordinates.
        damping: of a predicted H(k); None to take it as it is.

    Raises:
        StructureError: blocks of different atoms, orbitals or orders, or two collinear spins.
        NumericalError: blocks that are not finite or not hermitian.
    """

    def __init__(
        self,
        hamiltonian: BlockSet,
        overlap: BlockSet,
        k: Sequence[float] = (0.0, 0.0, 0.0),
        damping: KineticDamping | None = None,
    ) -> None:
        require_alike(hamiltonian, overlap)
        if hamiltonian.spin == "unrestricted":
            raise StructureError("Two collinear spins came.", hint="Solve the blocks of one spin at a time.")
        for name, blocks in (("Hamiltonian", hamiltonian), ("overlap", overlap)):
            require_hermitian(name, blocks)
        h, s = sparse_matrix(hamiltonian, k), sparse_matrix(overlap, k)
        copies = 2 if hamiltonian.spin == "spinor" else 1
        if copies == 2:
            s = scipy.sparse.block_diag([s] * copies, format="csr")
        self._h, self._s = h.tocsc(), s.tocsc().astype(h.dtype)
        self._left_out = None if damping is None else self._rows_left_out(hamiltonian, damping, k, copies)

    def _rows_left_out(self, hamiltonian: BlockSet, damping: KineticDamping, k: Sequence[float], copies: int) -> Any:
        """The matrix of the module's docstring, without H, and mixed."""
        require_alike(hamiltonian, damping.kinetic)
        kinetic = scipy.sparse.block_diag([sparse_matrix(damping.kinetic, k)] * copies, format="csc")
        one = scipy.sparse.eye_array(self.n_states, format="csc", dtype=self._s.dtype)
        u, s = self._h - kinetic, self._s + damping.delta * one
        mixed, last = s - MIXING * u, 2 * MIXING * s - MIXING**2 * u
        delta = damping.delta * one
        return scipy.sparse.block_array([[None, None, delta], [None, -u, mixed], [delta, mixed, last]], format="csc")

    @property
    def n_states(self) -> int:
        """All states of this k-point."""
        return int(self._h.shape[0])

    @property
    def n_found_at_most(self) -> int:
        """States that one search finds: ARPACK's limit, all but one of a real matrix, all but two of a complex one."""
        return self.n_states - (2 if np.iscomplexobj(self._h.data) else 1)

    def count_below(self, energy: float) -> int:
        """States below an energy (in H's unit).

        Raises:
            NumericalError: H - E S could not be factorised without pivoting.
        """
        return self._factor(energy).below

    def count_dependent(self, threshold: float = PROJECTION_THRESHOLD) -> int:
        """Eigenvalues of S below a threshold. What ``bands`` projects out stays in here: say so if there are any.

        Raises:
            NumericalError: S could not be factorised without pivoting.
        """
        identity = scipy.sparse.eye_array(self.n_states, format="csc", dtype=self._s.dtype)
        return _inertia(self._s - threshold * identity, threshold)[0]

    def smallest_overlap(self) -> float:
        """Smallest eigenvalue of S at this k-point.

        Raises:
            NumericalError: S could not be factorised without pivoting, or the iteration failed.
        """
        below, solver = _inertia(self._s, 0.0)
        if below:  # not positive: the lowest is what counts, not the one nearest to zero
            return float(self._extreme(which="SA", solver=None))
        return float(self._extreme(which="LM", solver=solver))

    def around(self, energy: float, n_states: int) -> States:
        """The states nearest to an energy.

        Args:
            energy: in H's unit.
            n_states: from 1 to ``n_found_at_most``.

        Raises:
            StructureError: more states than that, or none.
            NumericalError: factorisation or iteration failed.
        """
        return self._nearest(self._factor(energy), n_states)

    def around_filling(self, n_filled: int, n_states: int, guess: float = 0.0) -> States:
        """States on both sides of where the lowest ``n_filled`` end: half of them full, half of them empty.

        Args:
            n_filled: states that are full, at least 1 and less than all.
            n_states: how many to give, from 2 to all but one; more of the others where there are fewer full or empty ones
                than half of them.
            guess: where to begin the search, in H's unit (hartree).

        Raises:
            ElectronCountError: a number of full states that cannot be.
            StructureError, NumericalError: as of :meth:`around`.
        """
        if not 0 < n_filled < self.n_states:
            raise ElectronCountError(f"{n_filled} full states of {self.n_states}.", field="charge")
        if not 1 < n_states < self.n_states:
            raise StructureError(
                f"{n_states} states were asked for of {self.n_states}; from 2 to all but one are found."
            )
        most = self.n_found_at_most
        n_states = min(n_states, most)
        near = self._near_filling(n_filled, max(n_states // 4, 1), guess)
        first = min(max(n_filled - n_states // 2, 0), self.n_states - n_states)
        # half as many more: the nearest are seldom as many on both sides, and a second search costs more than a longer one
        count = min(n_states + max(2 * abs(near.below - n_filled), n_states // 2), most)
        found = self._nearest(near, count)
        while (missing := max(found.first - first, first + n_states - found.first - count)) > 0 and count < most:
            count = min(count + 2 * missing, most)
            found = self._nearest(near, count)
        begin = max(first, found.first)
        return States(found.energies[begin - found.first : first + n_states - found.first], begin)

    def _near_filling(self, n_filled: int, slack: int, guess: float) -> _Factor:
        """A factorisation at an energy with ``n_filled`` states below it, give or take ``slack``."""
        here = self._factor(guess)
        low = high = here
        width = FIRST_BRACKET_HARTREE
        for _ in range(MOST_STEPS):
            if abs(here.below - n_filled) <= slack:
                return here
            if here.below < n_filled:
                low = here
            else:
                high = here
            if low.below >= n_filled or high.below <= n_filled:  # not yet enclosed
                step = width if here.below < n_filled else -width
                width *= 2
                here = self._factor(here.energy + step)
                continue
            # where a straight line between the counts says, kept off the ends so that the interval shrinks
            share = (n_filled - low.below) / (high.below - low.below)
            here = self._factor(low.energy + min(max(share, 0.1), 0.9) * (high.energy - low.energy))
        raise NumericalError(
            f"No energy with {n_filled} states below it was found in {MOST_STEPS} steps.",
            hint="More states than a search can tell apart may have one energy; ask for more of them.",
        )

    def _nearest(self, factor: _Factor, n_states: int) -> States:
        if not 0 < n_states <= self.n_found_at_most:
            allowed = f"from 1 to {self.n_found_at_most} are found"
            raise StructureError(f"{n_states} states were asked for of {self.n_states}; {allowed}.")
        start = np.random.default_rng(0).normal(size=self.n_states).astype(self._h.dtype)
        try:
            with _lent(self._h, self._h.__matmul__, self._s.__matmul__, factor.solve) as (h, s, inverse):
                found = eigsh(h, n_states, M=s, sigma=factor.energy, OPinv=inverse, v0=start, return_eigenvectors=False)
        except ArpackError as error:
            raise NumericalError(f"The search for states near {factor.energy:.4f} failed: {error}.") from error
        energies = np.sort(np.asarray(found.real, dtype=np.float64))
        return States(energies, factor.below - int(np.count_nonzero(energies < factor.energy)))

    def _extreme(self, which: str, solver: Any) -> float:
        """One eigenvalue of S: its lowest, or with a factorisation of S the one nearest to zero."""
        start = np.random.default_rng(0).normal(size=self.n_states).astype(self._s.dtype)
        try:
            with _lent(self._s, self._s.__matmul__, *([] if solver is None else [solver.solve])) as (s, *inverse):
                shift = {"sigma": 0.0, "OPinv": inverse[0]} if inverse else {}
                found = eigsh(s, 1, which=which, v0=start, return_eigenvectors=False, **shift)
        except ArpackError as error:
            raise NumericalError(f"The search for the smallest eigenvalue of the overlap failed: {error}.") from error
        return float(found[0].real)

    def _factor(self, energy: float) -> _Factor:
        for attempt in range(3):
            shifted = energy + attempt * NUDGE * max(1.0, abs(energy))
            try:
                below, solver = _inertia(self._shifted(shifted), shifted)
            except NumericalError:  # exactly at an eigenvalue, or of a leading part
                if attempt == 2:
                    raise
                continue
            return _Factor(shifted, below - (0 if self._left_out is None else self.n_states), solver, self.n_states)
        raise AssertionError("the last attempt returns or raises")

    def _shifted(self, energy: float) -> Any:
        """H - E S, with the rows and columns that damp it."""
        matrix = self._h - energy * self._s
        if self._left_out is None:
            return matrix
        rest = (2 * self.n_states,) * 2
        return scipy.sparse.block_diag([matrix, scipy.sparse.csc_array(rest, dtype=matrix.dtype)]) + self._left_out


@contextmanager
def _lent(like: Any, *products: Callable[[NDArray[Any]], NDArray[Any]]) -> Iterator[list[LinearOperator]]:
    """Operators that multiply a vector so, of a matrix's shape and type, for as long as this lasts.

    What drives ARPACK in scipy refers to itself: it would keep each k-point's matrices and factorisation, gigabytes in large
    cells, until Python's collector comes by.
    """
    held = list(products)

    def operator(index: int) -> LinearOperator:
        return LinearOperator(like.shape, matvec=lambda vector: held[index](vector), dtype=like.dtype)

    try:
        yield [operator(index) for index in range(len(products))]
    finally:
        held.clear()


def separator_size(n_rows: int, entries_each_row: float, n_periodic: int) -> float:
    """Rows of the largest dense part of a factorisation: those of a cut through the cell as wide as the matrix reaches.

    The time of a factorisation grows with its cube, the memory with its square (measured for graphene, 200 to 968 atoms:
    4e-8 s times the cube for 40 states of complex matrices, 9 to 21 times the square in entries of the factors).

    Args:
        n_rows: of H(k).
        entries_each_row: of H(k), on average.
        n_periodic: directions in which the crystal is large, 1 to 3.
    """
    unit_ball = {1: 2.0, 2: np.pi, 3: 4 * np.pi / 3}[n_periodic]
    cut = n_rows ** (1 - 1 / n_periodic) * (entries_each_row / unit_ball) ** (1 / n_periodic)
    return float(min(cut, n_rows))


def _inertia(matrix: Any, energy: float) -> tuple[int, Any]:
    """Negative eigenvalues of a sparse hermitian matrix, and its factorisation."""
    try:
        solver = splu(
            matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
    except RuntimeError as error:
        raise NumericalError(f"The matrix is singular at E = {energy:.6f}.") from error
    if not np.array_equal(solver.perm_r, solver.perm_c):
        raise NumericalError(
            f"The matrix could not be factorised at E = {energy:.6f} without pivoting.",
            hint="Is the overlap positive definite, and complete?",
        )
    return int(np.count_nonzero(solver.U.diagonal().real < 0)), solver
