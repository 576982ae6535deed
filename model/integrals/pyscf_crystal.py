"""Source ``pyscf_crystal``: S(R) and T(R) of Gaussian functions in a crystal, from PySCF's two-centre integrals of cells.

The functions are those of PySCF's library (GTH bases among them); pseudopotentials play no part in either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
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
        """One call of PySCF for each atom, with its partners alone: time and memory grow with the pairs."""
        structure, pairs = self.structure, self.pairs
        result = BlockSet.zeros(self._space, structure.numbers, pairs)
        cell = np.zeros((3, 3)) if structure.cell_angstrom is None else structure.cell_angstrom
        keys = np.column_stack([pairs.second, pairs.shift]).astype(np.int64)
        images, image_of = np.unique(keys, axis=0, return_inverse=True)
        image_of = image_of.ravel()
        places = structure.positions_angstrom[images[:, 0]] + images[:, 1:] @ cell
        mole = typed_mole(structure.numbers[images[:, 0]], places, self._space.name)
        shells = [mole._bas[first:last] for first, last in mole.aoslice_by_atom()[:, :2]]
        at_home = {int(image[0]): number for number, image in enumerate(images) if not image[1:].any()}
        order = np.argsort(pairs.first, kind="stable")
        ends = np.cumsum(np.bincount(pairs.first, minlength=len(structure)))
        for atom, own in enumerate(np.split(order, ends[:-1])):
            rows, columns = shells[at_home[atom]], np.concatenate([shells[image_of[pair]] for pair in own])
            table = gto.moleintor.getints(
                mole._add_suffix(operator),
                mole._atm,
                np.concatenate([rows, columns]),
                mole._env,
                shls_slice=(0, len(rows), len(rows), len(rows) + len(columns)),
            )
            sizes = np.diff(result.atom_offsets)[pairs.second[own]]
            for pair, block in zip(own, np.split(table, np.cumsum(sizes)[:-1], axis=1), strict=True):
                result.values[0, result.starts[pair] : result.starts[pair + 1]] = block.ravel()
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
