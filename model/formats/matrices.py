"""Matrices: what a file of H(R) and S(R) holds, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet, Spin
from model.errors import DamagedFileError, NoHamiltonianError, OrbitalsDoNotFitError
from model.formats.units import HARTREE, EnergyUnit
from model.orbitals.space import OrbitalSpace
from model.structure import Structure


@dataclass(frozen=True, eq=False)
class Outline:
    """What a file says without its matrices being read.

    Attributes:
        numbers: atomic numbers, (atom,).
        space: orbitals, in the file's order.
        spin: spin treatment.
        has_hamiltonian: whether there is one.
    """

    numbers: NDArray[np.int64]
    space: OrbitalSpace
    spin: Spin
    has_hamiltonian: bool


@dataclass(frozen=True, eq=False)
class Matrices:
    """Matrices of one structure between atomic orbitals.

    Attributes:
        structure: atoms and cell, Å; ``pbc`` is true along the directions in which pairs reach into other cells.
        hamiltonian: H(R) in ``unit``; None where the source has overlaps only.
        overlap: S(R), restricted and real; None if the source has none.
        density: D(R), without unit; its trace with S is the number of electrons.
        fermi_energy: in ``unit``; None if nobody says.
        n_electrons: that the orbitals describe; None if nobody says.
        program: that made the matrices, or the format if the files do not say.
        unit: of ``hamiltonian`` and ``fermi_energy``.
        notes: what a reader had to assume or repair, one sentence each.
        k_points: Gamma-centred mesh of the calculation; None if nobody says.
        is_folded: whether H(R) was made from H(k) on that mesh, which knows it no farther than its supercell reaches.

    Raises:
        DamagedFileError: values that are not finite, or matrices of other atoms than the structure's.
        OrbitalsDoNotFitError: matrices that do not share their orbitals.
    """

    structure: Structure
    hamiltonian: BlockSet | None
    overlap: BlockSet | None
    density: BlockSet | None = None
    fermi_energy: float | None = None
    n_electrons: float | None = None
    program: str = ""
    unit: EnergyUnit = HARTREE
    notes: tuple[str, ...] = ()
    k_points: tuple[int, int, int] | None = None
    is_folded: bool = False

    def __post_init__(self) -> None:
        if not self.stored:
            raise DamagedFileError("There is neither a Hamiltonian nor an overlap nor a density matrix.")
        space = self.space
        for name, blocks in self.stored.items():
            if not np.array_equal(blocks.numbers, self.structure.numbers):
                raise DamagedFileError(f"The atoms of the {name} are not those of the structure.")
            if blocks.space.order != space.order or any(
                blocks.space.shells_of(z) != space.shells_of(z) for z in set(self.structure.numbers.tolist())
            ):
                raise OrbitalsDoNotFitError(f"The orbitals of the {name} are not those of the other matrices.")
            if not np.isfinite(blocks.values).all():
                raise DamagedFileError(
                    f"The {name} has entries that are not finite numbers.", hint="Repeat the calculation that wrote it."
                )
        if self.overlap is not None and self.overlap.spin != "restricted":
            raise DamagedFileError("The overlap depends on spin; overlaps are real and the same for both spins.")
        if self.fermi_energy is not None and not np.isfinite(self.fermi_energy):
            raise DamagedFileError("The Fermi level is not a finite number.", hint="Write null if it is not known.")

    @property
    def stored(self) -> dict[str, BlockSet]:
        """The matrices that are there, by name."""
        named = {"hamiltonian": self.hamiltonian, "overlap": self.overlap, "density": self.density}
        return {name: blocks for name, blocks in named.items() if blocks is not None}

    @property
    def space(self) -> OrbitalSpace:
        """The orbitals that all matrices share."""
        return next(iter(self.stored.values())).space

    @property
    def spin(self) -> Spin:
        """Spin treatment of the Hamiltonian, else of the density matrix, else restricted."""
        for blocks in (self.hamiltonian, self.density):
            if blocks is not None:
                return blocks.spin
        return "restricted"

    @property
    def fermi_energy_hartree(self) -> float | None:
        """Fermi level, hartree."""
        return None if self.fermi_energy is None else self.fermi_energy / self.unit.per_hartree

    def require_hamiltonian(self) -> BlockSet:
        """The Hamiltonian.

        Raises:
            NoHamiltonianError: there is none.
        """
        if self.hamiltonian is None:
            raise NoHamiltonianError(
                f"The source has {' and '.join(self.stored)} only, no Hamiltonian.",
                hint="Overlaps give the pairs of atoms to predict on; they are not a Hamiltonian to learn or to diagonalise.",
            )
        return self.hamiltonian

    def in_unit(self, unit: EnergyUnit) -> Matrices:
        """The same in another unit of energy; the very same numbers if it is the unit already."""
        if unit == self.unit:
            return self
        factor = unit.per_hartree / self.unit.per_hartree
        hamiltonian, fermi = self.hamiltonian, self.fermi_energy
        return replace(
            self,
            hamiltonian=None if hamiltonian is None else hamiltonian.with_values(hamiltonian.values * factor),
            fermi_energy=None if fermi is None else fermi * factor,
            unit=unit,
        )

    @property
    def outline(self) -> Outline:
        """What a reader of the file without its matrices would know."""
        return Outline(self.structure.numbers, self.space, self.spin, self.hamiltonian is not None)

    def in_order(self, order: str) -> Matrices:
        """The same in another program's order of orbitals."""
        made = {name: blocks.in_order(order) for name, blocks in self.stored.items()}
        return replace(self, **made)  # type: ignore[arg-type]
