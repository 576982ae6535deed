"""Structure: a molecule or a crystal as it enters the model; checked once, at construction, then trusted.

Lengths are in Å. A structure is physical: finite coordinates, at least one atom, no two atoms closer than
``MINIMUM_DISTANCE_ANGSTROM`` (images of periodic directions included), lattice vectors that span a cell, a positive electron
count that fits the multiplicity (of molecules; a crystal's bands may be partly filled). What a given checkpoint supports
(elements, charge, size) is checked later, by ``model.checkpoint.card.Card.check``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.errors import (
    AtomsTooCloseError,
    CellError,
    ElectronCountError,
    EmptyStructureError,
    InvalidElementError,
    NonFiniteCoordinatesError,
    StructureError,
)

MINIMUM_DISTANCE_ANGSTROM: Final = 0.5
"""Closer pairs are taken for an input mistake (H2 at its shortest compressed bond is 0.6 Å)."""

MINIMUM_CELL_SHAPE: Final = 0.05
"""Volume (area, for two periodic directions) of the cell of unit vectors along the lattice vectors; a flatter one is an input
mistake. A rhombohedral cell with angles of 20 degrees has 0.1."""

FEW_ATOMS: Final = 64
"""Molecules up to this size are searched for close atoms pair by pair, larger ones by cell lists."""

MAXIMUM_COORDINATE_ANGSTROM: Final = 1.0e4
MAXIMUM_ATOMIC_NUMBER: Final = 118

SYMBOLS: Final[tuple[str, ...]] = tuple(
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb "  # noqa: SIM905
    "Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au "
    "Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts "
    "Og".split()
)
"""Element symbols by atomic number (index 0 is unused)."""


def element_pair(a: int, b: int) -> str:
    """Name of two elements' pair, "B-N": symbols of the atomic numbers in alphabetical order."""
    return "-".join(sorted((SYMBOLS[a], SYMBOLS[b])))


@dataclass(frozen=True, eq=False)
class Structure:
    """Atoms in space with charge and spin.

    Attributes:
        numbers: atomic numbers, shape (atom,), int64.
        positions_angstrom: Cartesian positions, shape (atom, 3), float64, Å.
        charge: total charge in units of e.
        multiplicity: 2S + 1.
        cell_angstrom: lattice vectors as rows, shape (3, 3), Å, or None; zero where not periodic is allowed.
        pbc: periodicity along each lattice vector.

    Raises:
        StructureError: one of its leaves, with the reason.
    """

    numbers: NDArray[np.int64]
    positions_angstrom: NDArray[np.float64]
    charge: int = 0
    multiplicity: int = 1
    cell_angstrom: NDArray[np.float64] | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)

    def __post_init__(self) -> None:
        try:
            numbers = np.array(self.numbers, dtype=np.int64)
            positions = np.array(self.positions_angstrom, dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise StructureError("Atomic numbers and positions must be plain numbers.", field="positions") from error
        if numbers.size == 0:
            raise EmptyStructureError("The structure has no atoms.", hint="Send at least one atom.", field="numbers")
        if numbers.ndim != 1 or positions.shape != (len(numbers), 3):
            raise StructureError(
                f"{numbers.size} atomic numbers came with positions of shape {positions.shape}.",
                hint="Send one row of three coordinates for each atom.",
                field="positions",
            )
        bad = numbers[(numbers < 1) | (numbers > MAXIMUM_ATOMIC_NUMBER)]
        if bad.size:
            raise InvalidElementError(
                f"Atomic number {int(bad[0])} is not an element.",
                hint=f"Atomic numbers run from 1 to {MAXIMUM_ATOMIC_NUMBER}; dummy atoms are not supported.",
                field="numbers",
            )
        if not np.isfinite(positions).all():
            atom = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
            raise NonFiniteCoordinatesError(
                f"Atom {atom} has a coordinate that is not a finite number.",
                hint="Replace NaN and infinities by real coordinates in Å.",
                field="positions",
            )
        if np.abs(positions).max() > MAXIMUM_COORDINATE_ANGSTROM:
            raise StructureError(
                f"A coordinate is larger than {MAXIMUM_COORDINATE_ANGSTROM:g} Å.",
                hint="Positions are in Å; move the molecule near the origin.",
                field="positions",
            )
        cell = _checked_cell(self.cell_angstrom, self.pbc)
        _refuse_close_atoms(positions, cell, self.pbc)
        electrons = int(numbers.sum()) - int(self.charge)
        unpaired = int(self.multiplicity) - 1
        misfit = (electrons - unpaired) % 2 and not any(self.pbc)
        if electrons < 1 or unpaired < 0 or unpaired > electrons or misfit:
            raise ElectronCountError(
                f"{electrons} electrons (charge {self.charge}) do not fit multiplicity {self.multiplicity}.",
                hint="An even electron count needs an odd multiplicity (1, 3, ...), an odd count an even one; "
                "check charge and multiplicity.",
                field="multiplicity",
            )
        numbers.setflags(write=False)
        positions.setflags(write=False)
        object.__setattr__(self, "numbers", numbers)
        object.__setattr__(self, "positions_angstrom", positions)
        object.__setattr__(self, "cell_angstrom", cell)
        object.__setattr__(self, "pbc", tuple(bool(periodic) for periodic in self.pbc))

    @classmethod
    def from_symbols(
        cls, symbols: Sequence[str], positions_angstrom: ArrayLike, *, charge: int = 0, multiplicity: int = 1
    ) -> Structure:
        """Build from element symbols (``["O", "H", "H"]``) instead of atomic numbers."""
        numbers = []
        for symbol in symbols:
            if symbol not in SYMBOLS[1:]:
                raise InvalidElementError(f"{symbol[:12]!r} is not an element symbol.", field="numbers")
            numbers.append(SYMBOLS.index(symbol))
        return cls(np.array(numbers), np.asarray(positions_angstrom, dtype=np.float64), charge, multiplicity)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Element symbol of each atom."""
        return tuple(SYMBOLS[z] for z in self.numbers)

    @property
    def n_electrons(self) -> int:
        """Number of electrons: nuclear charges less the total charge."""
        return int(self.numbers.sum()) - self.charge

    @property
    def is_periodic(self) -> bool:
        """True if any lattice direction is periodic."""
        return any(self.pbc)


def _checked_cell(cell: ArrayLike | None, pbc: Sequence[bool]) -> NDArray[np.float64] | None:
    """The lattice vectors, read-only, or what is wrong with them."""
    if len(pbc) != 3:
        raise CellError(f"Periodicity is said for {len(pbc)} directions; there are three.", field="pbc")
    if cell is None:
        if any(pbc):
            raise CellError(
                "The structure is periodic, but it came without lattice vectors.",
                hint="Send the cell, or set pbc to false for a molecule.",
                field="cell",
            )
        return None
    try:
        vectors = np.array(cell, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise CellError("Lattice vectors must be plain numbers.", field="cell") from error
    if vectors.shape != (3, 3) or not np.isfinite(vectors).all():
        raise NonFiniteCoordinatesError("The cell must be three finite lattice vectors in Å.", field="cell")
    vectors.setflags(write=False)
    periodic = vectors[np.array(pbc, dtype=bool)]
    lengths = np.linalg.norm(periodic, axis=1)
    if (lengths > MAXIMUM_COORDINATE_ANGSTROM).any():
        raise CellError(
            f"A lattice vector is longer than {MAXIMUM_COORDINATE_ANGSTROM:g} Å.", hint="It is in Å.", field="cell"
        )
    if (lengths < MINIMUM_DISTANCE_ANGSTROM).any():
        raise CellError(
            f"A periodic lattice vector is {lengths.min():.3g} Å long.",
            hint=f"Every atom would be closer than {MINIMUM_DISTANCE_ANGSTROM} Å to its own image; vectors are in Å, rows.",
            field="cell",
        )
    directions = periodic / lengths[:, None]
    shape = float(np.sqrt(max(0.0, np.linalg.det(directions @ directions.T)))) if len(periodic) else 1.0
    if shape < MINIMUM_CELL_SHAPE:
        raise CellError(
            "The periodic lattice vectors span no cell: they lie (almost) in one "
            f"{'plane' if len(periodic) == 3 else 'line'}.",
            hint="Send three vectors as rows, in Å, that are not multiples or sums of each other.",
            field="cell",
        )
    return vectors


def _refuse_close_atoms(positions: NDArray[np.float64], cell: NDArray[np.float64] | None, pbc: Sequence[bool]) -> None:
    """Raise if two atoms, or an atom and an image, are too close."""
    if not any(pbc) and len(positions) <= FEW_ATOMS:
        found = _closest_pair(positions)
    else:
        import vesin  # imports torch where it is installed; a reader of structures need not pay for it

        box = np.zeros((3, 3)) if cell is None else np.where(np.array(pbc)[:, None], cell, 0.0)
        search = vesin.NeighborList(cutoff=MINIMUM_DISTANCE_ANGSTROM, full_list=False)
        i, j, shift, distance = search.compute(points=positions, box=box, periodic=list(pbc), quantities="ijSd")
        first = int(np.argmin(distance)) if len(distance) else 0
        found = (
            (int(i[first]), int(j[first]), np.asarray(shift[first]), float(distance[first])) if len(distance) else None
        )
    if found is None:
        return
    atom, other, shift, distance = found
    cells = tuple(int(n) for n in shift)
    which = f"Atom {atom} and the image of atom {other} in cell {cells}" if any(cells) else f"Atoms {atom} and {other}"
    raise AtomsTooCloseError(
        f"{which} are {distance:.3f} Å apart.",
        hint=f"No two atoms may be closer than {MINIMUM_DISTANCE_ANGSTROM} Å; positions and cell are in Å, not bohr.",
        field="positions",
    )


def _closest_pair(positions: NDArray[np.float64]) -> tuple[int, int, NDArray[np.int64], float] | None:
    """The first pair that is too close. Row by row: an N x N x 3 array is never held."""
    for atom in range(1, len(positions)):
        distances = np.linalg.norm(positions[:atom] - positions[atom], axis=1)
        other = int(distances.argmin())
        if distances[other] < MINIMUM_DISTANCE_ANGSTROM:
            return other, atom, np.zeros(3, dtype=np.int64), float(distances[other])
    return None
