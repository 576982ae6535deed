"""Level of theory: what a Hamiltonian is the Hamiltonian of, and in what two levels differ.

Data files, runs, checkpoints and requests all name one; only here is said when two of them mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

SpinTreatment = Literal["restricted", "unrestricted", "spinor"]
SPIN_TREATMENTS: Final[tuple[str, ...]] = get_args(SpinTreatment)

LevelField = Literal["xc", "basis", "spin", "potentials"]
"""What makes two levels differ. The program does not: the same functional in the same basis is the same operator."""

UNKNOWN: Final = "unknown"

SAME_FUNCTIONAL: Final[Mapping[str, str]] = {
    "b3lypg": "b3lyp",
    "hyb_gga_xc_b3lyp": "b3lyp",
    "402": "b3lyp",
    "hyb_gga_xc_b3lyp5": "b3lyp5",
    "475": "b3lyp5",
    "pbe,pbe": "pbe",
    "gga_x_pbe,gga_c_pbe": "pbe",
    "pbeh": "pbe0",
    "pbe1pbe": "pbe0",
    "hyb_gga_xc_pbeh": "pbe0",
    "b88,lyp": "blyp",
}
"""Spellings of one functional in today's PySCF (2.3 and later), where b3lyp is the VWN-RPA flavour."""

FUNCTIONAL_NOTES: Final[Mapping[str, str]] = {
    "b3lyp": "B3LYP with VWN-RPA correlation (libxc 402), as PySCF >= 2.3 and Gaussian define it; not b3lyp5 (VWN5), "
    "which QH9 used",
    "b3lyp5": "B3LYP with VWN5 correlation (libxc 475), as ORCA, Turbomole and PySCF < 2.3 define it; QH9-Stable and "
    "QH9-Dynamic-300k call it b3lyp",
}
"""Which variant is meant by a name that programs use for several."""


@dataclass(frozen=True)
class Level:
    """A level of theory.

    Attributes:
        xc: functional as today's PySCF (2.3 and later) names it: b3lyp is the VWN-RPA flavour, b3lyp5 the VWN5 one.
        basis: name of the basis in the program's own library.
        spin: whether alpha and beta share their orbitals, have their own, or mix (spin-orbit coupling, non-collinear).
        potentials: name of the set of pseudopotentials; None for all electrons.
        program: that made the labels.
        program_version: of it; "unknown" if nobody says.
    """

    xc: str
    basis: str
    spin: SpinTreatment = "restricted"
    potentials: str | None = None
    program: str = "PySCF"
    program_version: str = UNKNOWN

    def differences(self, other: Level) -> tuple[LevelField, ...]:
        """The fields in which two levels differ, the most important first; empty if they mean the same."""
        potentials = [None if level.potentials is None else fold_basis(level.potentials) for level in (self, other)]
        differ: dict[LevelField, bool] = {
            "xc": not same_functional(self.xc, other.xc),
            "basis": not same_basis(self.basis, other.basis),
            "spin": self.spin != other.spin,
            "potentials": potentials[0] != potentials[1],
        }
        return tuple(field for field, found in differ.items() if found)

    def same_as(self, other: Level) -> bool:
        """Whether matrices of both levels are matrices of the same operator in the same functions."""
        return not self.differences(other)

    def describe_differences(self, other: Level, *, own: str, others: str) -> str:
        """Words for an error or a warning; empty if both mean the same.

        Args:
            other: the level to compare with.
            own: what this level is of, such as "the run".
            others: what the other one is of, such as "the file".

        Returns:
            such as "xc is b3lyp in the run and b3lyp5 in the file".
        """
        return "; ".join(
            f"{field} is {getattr(self, field) or 'none'} in {own} and {getattr(other, field) or 'none'} in {others}"
            for field in self.differences(other)
        )

    @property
    def note(self) -> str:
        """Which variant of the functional this is, for people."""
        return FUNCTIONAL_NOTES.get(fold_functional(self.xc), f"as {self.program} {self.program_version} defines it")

    def __str__(self) -> str:
        """``b3lyp/def2-svp``, and what else is not the usual."""
        spin = "" if self.spin == "restricted" else f", {self.spin}"
        return f"{self.xc}/{self.basis}{spin}" + ("" if self.potentials is None else f", {self.potentials}")


def fold_functional(name: str) -> str:
    """One spelling of a functional's name; case, blanks and dashes do not count."""
    key = "".join(name.lower().split()).replace("-", "_")
    return SAME_FUNCTIONAL.get(key, key)


def fold_basis(name: str) -> str:
    """One spelling of a basis name, as PySCF reads it: case, dashes, underscores and blanks do not count."""
    return "".join(name.lower().replace("-", "").replace("_", "").split())


def same_functional(one: str, other: str) -> bool:
    """Whether two names mean the same functional."""
    return fold_functional(one) == fold_functional(other)


def same_basis(one: str, other: str) -> bool:
    """Whether two names mean the same basis."""
    return fold_basis(one) == fold_basis(other)
