"""How labels of crystals are computed: the tables ``label`` of a crystal recipe, one class a program."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

HARTREE_PER_KELVIN: Final = 3.166811563e-6
"""Boltzmann's constant, CODATA 2018."""
Kelvin = Annotated[float, Field(gt=0, le=10000)]


class Table(BaseModel):
    """A table of a crystal recipe: unknown keys are errors, values are checked, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Settings(Table):
    """What all programs' tables have.

    Attributes:
        maximum_cycles: of the SCF, after which a structure is given up.
        smearing_kelvin: temperature of the Fermi-Dirac occupations.
        minutes: wall time after which a structure is given up, where the program is one of its own.
    """

    maximum_cycles: PositiveInt = 80
    smearing_kelvin: Kelvin = 300.0
    minutes: PositiveFloat = 60.0

    @property
    @abstractmethod
    def method(self) -> str:
        """Functional, basis and potential in one line."""

    @property
    @abstractmethod
    def stated_level(self) -> dict[str, str]:
        """What ``level.json`` beside the data says (``training.data.readers.matrix_files``), without the version."""

    @property
    def smearing_hartree(self) -> float:
        """kT of the occupations."""
        return self.smearing_kelvin * HARTREE_PER_KELVIN

    def level(self, k_points: Sequence[int]) -> str:
        """Level in one line."""
        return f"{self.method}, {'x'.join(str(count) for count in k_points)}, {self.smearing_kelvin:g} K"


class Cp2kSettings(Settings):
    """Labels by CP2K: Gaussian and plane waves, pseudopotentials; H(R) and S(R) come in real space.

    Attributes:
        program: names this table.
        command: CP2K's executable, a name on the PATH or a path.
        functional: a short name of CP2K's ``XC_FUNCTIONAL``.
        basis: of CP2K's ``basis_file``; ``pyscf_basis`` is PySCF's name of the same functions.
        potential: of ``potential_file``, without the number of electrons.
        cutoff_rydberg: of the finest grid. 400 was compared with 300, which moves on-site elements by 7 meV.
        relative_cutoff_rydberg: how Gaussians are spread over the coarser grids.
        eps_default: below which products of Gaussians are left out; sets the reach of H.
        eps_scf: largest change of the density matrix at which the SCF ends.
    """

    program: Literal["cp2k"] = "cp2k"
    command: str = "cp2k.psmp"
    functional: Literal["PBE", "LDA", "BLYP"] = "PBE"
    basis: str = "DZVP-MOLOPT-SR-GTH"
    basis_file: str = "BASIS_MOLOPT"
    pyscf_basis: str = "gth-dzvp-molopt-sr"
    potential: str = "GTH-PBE"
    potential_file: str = "GTH_POTENTIALS"
    cutoff_rydberg: Annotated[float, Field(ge=50, le=2000)] = 400.0
    relative_cutoff_rydberg: Annotated[float, Field(ge=10, le=400)] = 40.0
    eps_default: Annotated[float, Field(ge=1e-16, le=1e-6)] = 1e-10
    eps_scf: Annotated[float, Field(ge=1e-12, le=1e-4)] = 1e-6

    @property
    def method(self) -> str:
        return f"{self.functional}/{self.basis}/{self.potential}"

    @property
    def stated_level(self) -> dict[str, str]:
        return {
            "xc": self.functional.lower(),
            "basis": self.pyscf_basis,
            "potentials": self.potential.lower(),
            "program": "CP2K",
        }


class PyscfSettings(Settings):
    """Labels by PySCF in this process: Gaussians and grids (multigrid), pseudopotentials. H(R) comes from the k-mesh.

    Attributes:
        program: names this table.
        functional: PySCF's name.
        basis: PySCF's name of a GTH basis.
        potential: PySCF's name of the pseudopotentials.
        precision: of integrals and grids.
        cutoff_hartree: of the finest grid; PySCF chooses one for ``precision`` where it is not given.
        convergence: change of the energy at which the SCF ends, hartree.
    """

    program: Literal["pyscf"]
    functional: str = "pbe"
    basis: str = "gth-szv-molopt-sr"
    potential: str = "gth-pbe"
    precision: Annotated[float, Field(ge=1e-14, le=1e-3)] = 1e-6
    cutoff_hartree: Annotated[float, Field(gt=1, le=5000)] | None = None
    convergence: Annotated[float, Field(ge=1e-14, le=1e-4)] = 1e-9

    @property
    def method(self) -> str:
        return f"{self.functional}/{self.basis}/{self.potential}"

    @property
    def stated_level(self) -> dict[str, str]:
        return {
            "xc": self.functional,
            "basis": self.basis,
            "potentials": self.potential,
            "program": "PySCF",
        }


class GpawSettings(Settings):
    """Labels by GPAW in LCAO mode: atomic orbitals and PAW, with spin-orbit coupling if wanted. H(R) comes from the k-mesh.

    Attributes:
        program: names this table.
        command: the Python that has GPAW (Debian's), a name on the PATH or a path.
        functional: GPAW's name.
        basis: GPAW's name, such as ``dzp`` or ``szp(dzp)``.
        grid_angstrom: spacing of the real-space grid.
        spin_orbit: add spin-orbit coupling to the converged H; the labels are spinors then.
        convergence: change of the density at which the SCF ends, electrons.
    """

    program: Literal["gpaw"]
    command: str = "/usr/bin/python3"
    functional: str = "PBE"
    basis: str = "dzp"
    grid_angstrom: Annotated[float, Field(ge=0.05, le=0.5)] = 0.2
    spin_orbit: bool = False
    convergence: Annotated[float, Field(ge=1e-12, le=1e-2)] = 1e-5

    @property
    def method(self) -> str:
        coupling = " with spin-orbit coupling" if self.spin_orbit else ""
        return f"{self.functional}/{self.basis}/PAW{coupling}"

    @property
    def stated_level(self) -> dict[str, str]:
        return {"xc": self.functional.lower(), "basis": self.basis, "potentials": "paw", "program": "GPAW"}


AnySettings = Annotated[Cp2kSettings | PyscfSettings | GpawSettings, Field(discriminator="program")]
