"""How large a crystal's matrices are, what a k-point costs, and so whether they are solved dense or sparse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from model.electronic.sparse import separator_size
from model.structure import Structure
from service.errors import ServiceError
from service.structures.build import SizeLimits

DEFAULT_STATES: Final = 40
"""Bands around the Fermi level of a cell that is too large for all of them."""

SPARSE_COST: Final = 20.0
"""A k-point by sparse matrices, in cubes of the factorisation's largest dense part: 4e-8 s where a dense one takes 2e-9 s for
each orbital cubed."""

FACTOR_BYTES: Final = 1000.0
"""Of the factors, in squares of that part: 21 entries for each, complex, with their places and copies."""


DAMPED_ENTRIES: Final = 6.0
"""Entries of a damped factorisation over those of a plain one (docs/decisions/0018)."""


@dataclass(frozen=True)
class CellSize:
    """Of a crystal's matrices.

    Attributes:
        orbitals: of a cell.
        rows: of H(k); twice the orbitals of spinors.
        entries_each_row: of the sparse H(k) that are not zero, at most.
        collinear: two spins, each of its own.
        damped: sparse matrices have three times the rows, for the kinetic damping.
    """

    orbitals: int
    rows: int
    entries_each_row: float
    collinear: bool = False
    damped: bool = False

    @classmethod
    def of(cls, structure: Structure, orbitals: int, blocks: int, spin: str, *, damped: bool = False) -> CellSize:
        """From the network's blocks (atoms, and each pair once).

        Args:
            structure: periodic.
            orbitals: of it.
            blocks: of it.
            spin: treatment of the model.
            damped: whether its levels are.
        """
        atoms = len(structure)
        rows = orbitals * (2 if spin == "spinor" else 1)
        each = (2 * blocks - atoms) / atoms * rows / atoms
        return cls(orbitals, rows, min(each, float(rows)), spin == "unrestricted", damped)

    def separator(self, structure: Structure) -> float:
        """See :func:`model.electronic.sparse.separator_size`; of a damped H(k) so much larger as its factor is."""
        plain = separator_size(self.rows, self.entries_each_row, sum(structure.pbc))
        return plain * DAMPED_ENTRIES**0.5 if self.damped else plain

    def sparse_bytes(self, structure: Structure) -> int:
        """Memory of one k-point that is solved sparse."""
        return int(FACTOR_BYTES * self.separator(structure) ** 2)

    def cost_of_k_point(self, structure: Structure, *, sparse: bool) -> float:
        """In orbitals cubed."""
        dense = float(self.rows) ** 3
        return min(SPARSE_COST * self.separator(structure) ** 3, dense) if sparse else dense


def sparse_states(
    asked: int | None, size: CellSize, structure: Structure, n_points: int, limits: SizeLimits
) -> int | None:
    """How many states are to be found around the Fermi level from sparse matrices; None for all of them from dense ones.

    Args:
        asked: what the caller wants, if they said so.
        size: of the cell.
        structure: the crystal.
        n_points: k-points.
        limits: caps: what is too large for dense matrices there is solved sparse.

    Raises:
        ServiceError: ``invalid_request`` where the model has two spins, or the cell not so many states.
    """
    if asked is not None:
        if size.collinear:
            raise ServiceError(
                "invalid_request",
                "This model has alpha and beta electrons, whose bands are solved all together.",
                field="states",
                hint="Leave out states, or name another model.",
            )
        if asked >= size.rows:
            raise ServiceError(
                "invalid_request",
                f"The cell has {size.rows} bands.",
                field="states",
                hint="Leave out states for all of them.",
            )
        return asked
    fits = size.orbitals <= limits.max_orbitals
    fits = fits and n_points * size.cost_of_k_point(structure, sparse=False) <= limits.max_k_cost
    # where there are jobs to go to, a request that is waited for is refused rather than cut down to a few bands
    if fits or size.collinear or limits.of_jobs is not None or size.rows <= 2 * DEFAULT_STATES:
        return None
    return DEFAULT_STATES


def check_cost(
    size: CellSize,
    structure: Structure,
    n_points: int,
    limits: SizeLimits,
    *,
    sparse: bool,
    sparse_as_job: bool = False,
) -> None:
    """Refuse more k-points than are taken.

    Args:
        sparse: whether they are solved so.
        sparse_as_job: whether a job would.

    Raises:
        ServiceError: ``too_many_k_points``.
    """
    each, as_job = (size.cost_of_k_point(structure, sparse=kind) for kind in (sparse, sparse or sparse_as_job))
    what = f"{size.rows} orbitals{', sparse,' if sparse else ''}"
    limits.check_k_points(n_points, each, what=what, each_as_job=as_job)
