"""Source ``pyscf_crystal``: S(R) and T(R) of Gaussian functions in a crystal, from PySCF's two-centre integrals of cells.

The functions are those of PySCF's library (GTH bases among them); pseudopotentials play no part in either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import gto
from pyscf.pbc.gto import pseudo

from model.blocks.block_set import BlockSet
from model.errors import UnsupportedElementError
from model.integrals.pyscf_molecule import typed_mole, verify_basis
from model.integrals.source import Integrals, orbital_labels
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import SYMBOLS, Structure


class PySCFCrystal:
    """The source.

    Args:
        space: its name is PySCF's name of the basis.
    """

    name = "pyscf_crystal"

    def __init__(self, space: OrbitalSpace) -> None:
        self.space = space

    def integrals(self, structure: Structure, pairs: PairList, given: Mapping[str, BlockSet]) -> Integrals:
        return CrystalIntegrals(structure, pairs, self.space)

    def verify(self, space: OrbitalSpace) -> None:
        verify_basis(space)


class CrystalIntegrals:
    """S(R) and T(R) on the wanted pairs."""

    warnings = ()

    def __init__(self, structure: Structure, pairs: PairList, space: OrbitalSpace) -> None:
        self.structure, self.pairs, self._space = structure, pairs, space

    @property
    def labels(self) -> tuple[str, ...]:
        return orbital_labels(self.structure, self._space)

    @cached_property
    def overlap(self) -> BlockSet:
        """S(R)."""
        return self._blocks("int1e_ovlp")

    @cached_property
    def kinetic(self) -> BlockSet:
        """T(R), the kinetic energy, hartree."""
        return self._blocks("int1e_kin")

    def _blocks(self, operator: str) -> BlockSet:
        """One call of PySCF for each lattice vector R."""
        structure, pairs = self.structure, self.pairs
        result = BlockSet.zeros(self._space, structure.numbers, pairs)
        values, offsets = result.values, result.atom_offsets
        cell = np.zeros((3, 3)) if structure.cell_angstrom is None else structure.cell_angstrom
        home = _atoms(structure, np.zeros(3), self._space.name)
        shifts, which = np.unique(pairs.shift, axis=0, return_inverse=True)
        crosses = [
            gto.intor_cross(operator, home, _atoms(structure, shift @ cell, self._space.name)) for shift in shifts
        ]
        for pair in range(len(pairs)):
            i, j = int(pairs.first[pair]), int(pairs.second[pair])
            block = crosses[int(which.ravel()[pair])][offsets[i] : offsets[i + 1], offsets[j] : offsets[j + 1]]
            values[0, result.starts[pair] : result.starts[pair + 1]] = block.ravel()
        return result


def valence_electrons(potentials: str, elements: Sequence[int]) -> dict[int, int]:
    """Electrons that a set of PySCF's pseudopotentials leaves to the basis, by atomic number.

    Raises:
        UnsupportedElementError: the set is not PySCF's, or has nothing for an element.
    """
    found = {}
    for number in elements:
        try:
            found[int(number)] = int(sum(pseudo.load(potentials, SYMBOLS[int(number)])[0]))
        except (KeyError, RuntimeError, OSError) as error:
            raise UnsupportedElementError(
                f"PySCF has no pseudopotential {potentials[:40]!r} for {SYMBOLS[int(number)]}.", field="numbers"
            ) from error
    return found


def _atoms(structure: Structure, moved_angstrom: NDArray[np.float64], basis: str) -> Any:
    return typed_mole(structure.numbers, structure.positions_angstrom + moved_angstrom, basis)
