"""What every reader hands out: a ``Frame`` (one labelled structure), a ``Level`` of theory, and frames by index.

A ``FrameSource`` is an open file. It never holds more than one frame: indices are drawn first, frames are read one at a
time, in any order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.blocks.gauge import gauge_shift, shifted
from model.blocks.matrices import cut_matrix, dense_matrix
from model.level import Level
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import SYMBOLS, Structure

Gauge = Literal["auto", "overlap", "none"]
"""Which zero of energy labels are given; see ``Frame.in_gauge``."""


class DatasetError(Exception):
    """A data file that is missing, damaged or not in the format; says what to do next."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One labelled geometry, of a molecule or of a crystal.

    Attributes:
        molecule: name in the file of what it is a geometry of; frames of the same name never come into different splits.
        index: which geometry of it.
        structure: atoms in Å, with charge and multiplicity.
        hamiltonian: converged Kohn-Sham matrix, hartree.
        overlap: of the same orbitals; None if the format has none.
        fermi_energy_hartree: None if the format has none.
        energy: total energy, hartree; None if the format has none.
        cycles_minao: SCF cycles from minao at PySCF's default thresholds; None if the format has none.
        smiles: of the molecule; empty if the format has none.
        split: name of its split.

    Raises:
        DatasetError: blocks of other atoms than the structure's.
    """

    molecule: str
    index: int
    structure: Structure
    hamiltonian: BlockSet
    overlap: BlockSet | None = None
    fermi_energy_hartree: float | None = None
    energy: float | None = None
    cycles_minao: int | None = None
    smiles: str = ""
    split: str = ""

    def __post_init__(self) -> None:
        for blocks in (self.hamiltonian, self.overlap):
            if blocks is not None and not np.array_equal(blocks.numbers, self.structure.numbers):
                raise DatasetError(f"{self.molecule}/{self.index}: the blocks are of other atoms than the structure.")

    @property
    def heavy_atoms(self) -> int:
        """Atoms other than hydrogen."""
        return int((self.structure.numbers > 1).sum())

    @property
    def is_molecular(self) -> bool:
        """Whether the label is one real matrix: no lattice, spins paired."""
        return self.hamiltonian.spin == "restricted" and self.hamiltonian.pairs.is_molecular

    @property
    def fock(self) -> NDArray[np.float64]:
        """The matrix of a molecule, (ao, ao), hartree, in the order of ``hamiltonian.space``; assembled anew at each call.

        Raises:
            DatasetError: the label is not one real matrix.
        """
        if not self.is_molecular:
            raise DatasetError(
                f"{self.molecule}/{self.index} is not a closed-shell molecule: its label has {self.hamiltonian.spin} blocks"
                f"{'' if self.hamiltonian.pairs.is_molecular else ' with lattice shifts'}, not one real matrix."
            )
        return dense_matrix(self.hamiltonian)

    def in_space(self, space: OrbitalSpace) -> Frame:
        """The same label in a model's orbitals: turned to its order and signs.

        Raises:
            DatasetError: an element with other shells than the model's, or one that the model does not know.
        """
        own = self.hamiltonian.space
        for number in sorted(set(self.structure.numbers.tolist())):
            theirs = space.shells.get(number, ())
            if tuple(own.shells_of(number)) != tuple(theirs):
                raise DatasetError(
                    f"{self.molecule}/{self.index}: {SYMBOLS[number]} has the shells {tuple(own.shells_of(number))} in the "
                    f"data, {tuple(theirs) or 'none'} in the model ({space.name})."
                )
        if own.order == space.order:
            return self
        overlap = None if self.overlap is None else self.overlap.in_order(space.order)
        return replace(self, hamiltonian=self.hamiltonian.in_order(space.order), overlap=overlap)

    def in_gauge(self, gauge: Gauge) -> Frame:
        """The same label with the zero of energy that a run asks for (``model.blocks.gauge``).

        Args:
            gauge: "overlap": H - mu S, the Fermi energy lower by mu too; "none": as it is; "auto": the former for a
                crystal with an overlap, else the latter.

        Raises:
            DatasetError: "overlap" for a label without one.
        """
        if gauge == "none" or (gauge == "auto" and (self.overlap is None or not self.structure.is_periodic)):
            return self
        if self.overlap is None:
            raise DatasetError(
                f"{self.molecule}/{self.index} has no overlap, which [data] gauge = 'overlap' needs; set it to 'none'."
            )
        shift = gauge_shift(self.hamiltonian, self.overlap)
        fermi = None if self.fermi_energy_hartree is None else self.fermi_energy_hartree - shift
        return replace(self, hamiltonian=shifted(self.hamiltonian, self.overlap, -shift), fermi_energy_hartree=fermi)


def molecular_blocks(space: OrbitalSpace, structure: Structure, matrix: NDArray[np.float64]) -> BlockSet:
    """A molecule's matrix as the blocks of all its pairs.

    Args:
        space: its order is the matrix's.
        structure: a molecule.
        matrix: (ao, ao), or (2, ao, ao) for two spins.
    """
    blocks = cut_matrix(space, structure.numbers, PairList.complete(structure), matrix)
    # the index that cutting has cached is as large as the matrix; frames are held by the thousand
    return blocks.with_values(blocks.values)


class FrameSource(ABC):
    """An open data file; a context manager. Pickled, it takes its path along and opens the file again.

    Attributes:
        path: the file or folder.
        level: level of theory of all its labels.
        schemes: names of its ways to split, the default first.
    """

    path: Path
    level: Level
    schemes: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames."""

    @abstractmethod
    def splits(self, scheme: str) -> Mapping[str, NDArray[np.int64]]:
        """Frame indices of each split, in the split's own order.

        Raises:
            DatasetError: a scheme that is not in ``schemes``, or a file of the wrong size for it.
        """

    @abstractmethod
    def molecules(self) -> NDArray[np.int64]:
        """Number of the molecule that each frame is of, (frame,)."""

    @abstractmethod
    def atom_counts(self) -> NDArray[np.int64]:
        """Number of atoms of each frame, (frame,), without reading the matrices."""

    def charge_states(self, indices: NDArray[np.int64] | None = None) -> frozenset[tuple[int, int]]:
        """(charge, multiplicity) that occur in some frames, or in all, without reading matrices; (0, 1) by default."""
        return frozenset({(0, 1)})

    @abstractmethod
    def frame(self, index: int, split: str) -> Frame:
        """Read one frame.

        Raises:
            DatasetError: damaged data.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the file; may be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def check_scheme(self, scheme: str) -> None:
        """Raise unless ``scheme`` is one of ``schemes``."""
        if scheme not in self.schemes:
            raise DatasetError(f"{self.path} has no split scheme {scheme!r}; allowed are {', '.join(self.schemes)}.")
