"""Structure -> what the network reads of it: pairs, known matrices, H0, raw input coefficients. NumPy, float64, CPU.

A ``Preparer`` holds no weights of a network, so worker processes get it whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.blocks.spaces import BlockSpace
from model.blocks.standardise import Encoder
from model.blocks.template import TemplateMap
from model.errors import CheckpointError
from model.integrals.pyscf_crystal import PySCFCrystal
from model.integrals.pyscf_molecule import PySCFMolecule
from model.integrals.source import GivenIntegrals, Integrals, IntegralSource, KnownMatrix
from model.integrals.two_centre import TwoCentre
from model.integrals.two_centre_tables import TwoCentreTables
from model.orbitals.space import OrbitalSpace
from model.pairs.graph import AtomGraph
from model.pairs.pair_list import PairList
from model.reference.interface import Reference, ReferenceResult
from model.reference.none import NoReference
from model.structure import Structure, element_pair


def _two_centre(space: OrbitalSpace, tables: TwoCentreTables | None) -> IntegralSource:
    if tables is None:
        raise CheckpointError("The integral source 'two_centre' needs tables of two-centre integrals; there are none.")
    return TwoCentre(space, tables)


SOURCES: Final[Mapping[str, Callable[[OrbitalSpace, TwoCentreTables | None], IntegralSource]]] = {
    "pyscf_molecule": lambda space, tables: PySCFMolecule(space),
    "pyscf_crystal": lambda space, tables: PySCFCrystal(space),
    "two_centre": _two_centre,
    "given": lambda space, tables: GivenIntegrals(space),
    "none": lambda space, tables: GivenIntegrals(space, "none"),
}
"""Integral sources by their name on the card, made of the orbitals and of the tables that a checkpoint may bring along."""

INPUTS: Final = ("overlap", "reference", "density")
"""Matrices that a network may read: S, H0, and S D S with the density D that H0 comes from."""


@dataclass(frozen=True)
class PairRule:
    """Which pairs of atoms have blocks.

    Attributes:
        cutoffs_angstrom: by :func:`model.structure.element_pair`; None takes every pair of a molecule's atoms.
    """

    cutoffs_angstrom: Mapping[str, float] | None = None

    def table(self, elements: Sequence[int]) -> NDArray[np.float64] | None:
        """Cutoff of each ordered pair of elements, (element pair,), Å; None without cutoffs."""
        if self.cutoffs_angstrom is None:
            return None
        return np.array([self._cutoff(a, b) for a in elements for b in elements])

    def _cutoff(self, a: int, b: int) -> float:
        assert self.cutoffs_angstrom is not None
        return self.cutoffs_angstrom.get(element_pair(a, b), 0.0)

    def pairs(self, structure: Structure) -> PairList:
        """The pair list of a structure."""
        if self.cutoffs_angstrom is None:
            return PairList.complete(structure)
        return PairList.within(structure, self._cutoff)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A structure before the network.

    Attributes:
        structure: what was asked.
        integrals: its known matrices; computed when they are first read.
        reference: H0 and the density it came from; None where the reference is none of such integrals.
        blocks: where matrix entries are among the network's blocks.
        graph: of this structure alone; CPU, float64.
        on_site, pair: raw input coefficients of atoms and listed pairs, (block, matrix, coefficient), float64.
        milliseconds: what it took.
    """

    structure: Structure
    integrals: Integrals
    reference: ReferenceResult[KnownMatrix] | None
    blocks: TemplateMap
    graph: AtomGraph
    on_site: NDArray[np.float64]
    pair: NDArray[np.float64]
    milliseconds: float

    @property
    def cost(self) -> int:
        """Of the network, in blocks: atoms and listed pairs."""
        return self.blocks.n_items


@dataclass(frozen=True, eq=False)
class Preparer:
    """What is done to a structure before the network, for one checkpoint or run.

    Attributes:
        space: orbitals.
        block_space: of the target.
        cutoff_angstrom: longest message edge of the network; 0 if it needs none.
        inputs: which of ``INPUTS`` the network reads, in order.
        source: a key of ``SOURCES``.
        reference: H0.
        pairs: which pairs have blocks.
        tables: of two-centre integrals, for the source ``two_centre``.

    Raises:
        CheckpointError: parts that do not fit each other.
    """

    space: OrbitalSpace
    block_space: BlockSpace
    cutoff_angstrom: float
    inputs: tuple[str, ...] = INPUTS
    source: str = "pyscf_molecule"
    reference: Reference = field(default_factory=NoReference)
    pairs: PairRule = field(default_factory=PairRule)
    tables: TwoCentreTables | None = None

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise CheckpointError(f"Integral source {self.source!r} is not known.", allowed=list(SOURCES))
        unknown = [name for name in self.inputs if name not in INPUTS]
        if unknown:
            raise CheckpointError(f"A network cannot read {unknown[0]!r}.", allowed=list(INPUTS))
        wanted = self.reference.kind != NoReference.kind or {"reference", "density"} & set(self.inputs)
        if wanted and not self.has_reference:
            raise CheckpointError(
                f"The source {self.source!r} has none of the integrals that the reference {self.reference.kind!r} and its "
                f"density are made of: {', '.join(self.reference.sources)}.",
                hint="Use the reference 'none', for crystals also 'two_centre', and no input but the overlap.",
            )
        if "density" in self.inputs and not self.reference.has_density:
            raise CheckpointError(
                f"The reference {self.reference.kind!r} comes from no density, so a network cannot read one.",
                hint="Leave 'density' out of the inputs.",
            )
        if self.tables is not None and self.source != "two_centre":
            raise CheckpointError(f"Tables of two-centre integrals are of no use to the source {self.source!r}.")
        _ = self.integral_source

    @property
    def has_reference(self) -> bool:
        """Whether H0 can be made of the source's integrals."""
        return self.source in self.reference.sources

    @cached_property
    def integral_source(self) -> IntegralSource:
        """The source."""
        return SOURCES[self.source](self.space, self.tables)

    def __call__(self, structure: Structure, given: Mapping[str, BlockSet] | None = None) -> Prepared:
        """Prepare a structure.

        Args:
            structure: of the domain.
            given: matrices that the caller brought, by name, for the source ``given``.

        Raises:
            IntegralError: the source cannot give what the inputs need.
        """
        started = time.perf_counter()
        pairs = self.pairs.pairs(structure)
        integrals = self.integral_source.integrals(structure, pairs, given or {})
        result = self.reference.evaluate(integrals) if self.has_reference else None
        blocks = TemplateMap(self.space, structure.numbers, pairs)
        known = self._known(integrals, result)
        on_site, pair = Encoder(self.block_space).encode(known, blocks)
        graph = AtomGraph.of(structure, pairs, cutoff_angstrom=self.cutoff_angstrom)
        milliseconds = 1e3 * (time.perf_counter() - started)
        return Prepared(structure, integrals, result, blocks, graph, on_site, pair, milliseconds)

    def _known(self, integrals: Integrals, result: ReferenceResult[KnownMatrix] | None) -> Sequence[KnownMatrix]:
        """The matrices named by ``inputs``."""
        found: list[KnownMatrix] = []
        for name in self.inputs:
            if name == "overlap":
                found.append(integrals.overlap)
                continue
            assert result is not None
            if name == "reference":
                found.append(result.hamiltonian)
            else:  # the density as it stands in the basis that H lives in
                assert result.projected_density is not None
                found.append(result.projected_density)
        return found
