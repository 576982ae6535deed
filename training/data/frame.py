"""What every reader hands out: a ``Frame`` (one labelled geometry), a ``Level``, and frames by index.

A ``FrameSource`` is an open file. It never holds more than one frame: indices are drawn first, frames are read one at a
time, in any order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model.structure import Structure


class DatasetError(Exception):
    """A data file that is missing, damaged or not in the format; says what to do next."""


@dataclass(frozen=True)
class Frame:
    """One labelled geometry.

    Attributes:
        molecule: its molecule's name in the file.
        index: which geometry of the molecule.
        structure: atoms in Å.
        fock: converged Fock matrix, (ao, ao), hartree, PySCF order.
        energy: total energy, hartree; None if the format has none.
        cycles_minao: SCF cycles from minao at PySCF's default thresholds; None if the format has none.
        smiles: of the molecule; empty if the format has none.
        split: name of its split.
    """

    molecule: str
    index: int
    structure: Structure
    fock: NDArray[np.float64]
    energy: float | None
    cycles_minao: int | None
    smiles: str
    split: str

    @property
    def heavy_atoms(self) -> int:
        return int((self.structure.numbers > 1).sum())


@dataclass(frozen=True)
class Level:
    """Level of theory of a file.

    Attributes:
        xc: functional, as today's PySCF (>= 2.3) names it.
        basis: PySCF's name.
        pyscf: version of the program that made the labels; "unknown" if nobody says.
        charge, multiplicity: of every molecule in it.
        program: that made the labels.
    """

    xc: str
    basis: str
    pyscf: str
    charge: int
    multiplicity: int
    program: str = "PySCF"


class FrameSource(ABC):
    """An open data file; a context manager. Pickled, it takes its path along and opens the file again.

    Attributes:
        path: the file or folder.
        level: level of theory.
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
