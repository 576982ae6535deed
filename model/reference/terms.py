"""The terms of the fitted reference (``model.reference.fitted``): one class a term, evaluated one way.

A term is linear in its coefficients. It is made for *sets* of them, (set, coefficient), and contracts each set to a matrix:
(set, ao, ao). H0 is one set; the fit, which wants every coefficient's own matrix, is the identity.

    letter  coefficients of    matrix
    g       element, Gaussian  sum_A (mu nu | g_A): Coulomb potentials of spherical charges on the atoms
    o       element            S_ij (c_i + c_j) / 2
    p       element, shells    sum_A S[:, Aa] S[Ab, :] over shells a, b of equal l
    q       element, Gaussian  as g, times the atom's charge
    r       element            as o, times the atom's charge
    x       element pair       (S D S)_ij
    y       element, shells    sum_A S[:, Aa] D[Aa, Ab] S[Ab, :]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations_with_replacement, pairwise
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from model.orbitals.space import OrbitalSpace
from model.reference.interface import Matrix
from model.reference.potentials import Potentials, Rows


@dataclass(frozen=True, eq=False)
class Response:
    """What step 1's Hamiltonian makes of a molecule.

    Attributes:
        density: D1, (ao, ao).
        charges: Löwdin charges, electrons less nuclear charge, (atom,).
    """

    density: Matrix
    charges: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ingredients:
    """What terms are made of, for one molecule.

    Attributes:
        numbers: atomic numbers, (atom,).
        offsets: first AO of each atom and, last, the number of AOs, (atom + 1,).
        overlap: S, (ao, ao).
        potentials: of the Gaussians of ``g`` and ``q``.
        response: None until step 1 is done.
    """

    numbers: NDArray[np.int64]
    offsets: NDArray[np.int64]
    overlap: Matrix
    potentials: Potentials
    response: Response | None = None

    @property
    def answer(self) -> Response:
        """The response, for the terms of step 2."""
        assert self.response is not None, "a term of step 2 was asked for before step 1"
        return self.response

    @cached_property
    def projected_density(self) -> Matrix:
        """S D S of the response, (ao, ao)."""
        return np.asarray(self.overlap @ self.answer.density @ self.overlap)

    @property
    def own_orbitals(self) -> list[slice]:
        """Each atom's orbitals."""
        return [slice(int(first), int(end)) for first, end in pairwise(self.offsets)]

    def to_orbitals(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of atoms, (..., atom), at each of their orbitals, (..., ao)."""
        return np.repeat(values, np.diff(self.offsets), axis=-1)


@dataclass(frozen=True, eq=False)
class Term(ABC):
    """A term with sets of coefficients.

    Attributes:
        letter: first part of its coefficients' names.
        step: 1 needs no density, 2 the response.
        space: elements and shells.
        coefficients: (set, coefficient), in the order of :meth:`places`.
    """

    letter: ClassVar[str]
    step: ClassVar[int]
    space: OrbitalSpace
    coefficients: Matrix

    @classmethod
    @abstractmethod
    def places(cls, space: OrbitalSpace, n_exponents: int) -> list[tuple[int, int]]:
        """Atomic number (0 for pairs of elements) and running number of each coefficient."""

    @abstractmethod
    def contract(self, molecule: Ingredients) -> Matrix:
        """The matrices of a molecule, (set, ao, ao), hartree."""

    def of_elements(self) -> NDArray[np.float64]:
        """Coefficients of a term with one, or equally many, an element: (set, element, number)."""
        return self.coefficients.reshape(len(self.coefficients), len(self.space.elements), -1)

    def of_atoms(self, molecule: Ingredients) -> NDArray[np.float64]:
        """Coefficients of a term with one an element, (set, atom)."""
        return self.of_elements()[:, _element_index(self.space, molecule.numbers), 0]


class _Gaussians(Term):
    """Spherical Gaussian charges on the atoms. The integrals are contracted with the sets as they are made, because all of
    them are too many to keep: :meth:`rows` goes into ``Potentials``."""

    @classmethod
    def places(cls, space: OrbitalSpace, n_exponents: int) -> list[tuple[int, int]]:
        return [(z, k) for z in space.elements for k in range(n_exponents)]

    def rows(self) -> Rows:
        """Charge distributions of each element, {element: (set, exponent)}."""
        return {z: self.of_elements()[:, index] for index, z in enumerate(self.space.elements)}


class ScreenedNucleus(_Gaussians):
    """g: the same charges on every atom of an element."""

    letter: ClassVar[str] = "g"
    step: ClassVar[int] = 1

    def contract(self, molecule: Ingredients) -> Matrix:
        return molecule.potentials.of_equal_atoms()


class ChargeTransfer(_Gaussians):
    """q: charges in proportion to the atom's own."""

    letter: ClassVar[str] = "q"
    step: ClassVar[int] = 2

    def contract(self, molecule: Ingredients) -> Matrix:
        return molecule.potentials.of_charged_atoms(molecule.answer.charges)


class ScaledOverlap(Term):
    """o: overlap times the mean of the two atoms' coefficients."""

    letter: ClassVar[str] = "o"
    step: ClassVar[int] = 1

    @classmethod
    def places(cls, space: OrbitalSpace, n_exponents: int) -> list[tuple[int, int]]:
        return [(z, 0) for z in space.elements]

    def contract(self, molecule: Ingredients) -> Matrix:
        return _mean_times_overlap(molecule, self.of_atoms(molecule))


class ChargedOverlap(ScaledOverlap):
    """r: the same, each atom's coefficient times its charge."""

    letter: ClassVar[str] = "r"
    step: ClassVar[int] = 2

    def contract(self, molecule: Ingredients) -> Matrix:
        return _mean_times_overlap(molecule, self.of_atoms(molecule) * molecule.answer.charges)


class Projector(Term):
    """p: separable projectors over pairs of shells of equal l of each atom: short-range exchange and repulsion."""

    letter: ClassVar[str] = "p"
    step: ClassVar[int] = 1

    @classmethod
    def places(cls, space: OrbitalSpace, n_exponents: int) -> list[tuple[int, int]]:
        return [(z, k) for z in space.elements for k in range(len(_shell_pairs(space.shells_of(z))))]

    def contract(self, molecule: Ingredients) -> Matrix:
        of_element = self._on_site("same m")
        return _between_overlaps(molecule, [of_element[z] for z in molecule.numbers.tolist()])

    def _on_site(self, entries: str) -> dict[int, Matrix]:
        """Each element's block, (set, ao, ao), of the coefficients on the entries of its pairs of shells."""
        of_element, start = {}, 0
        for z in self.space.elements:
            patterns = _pair_patterns(self.space.shells_of(z), entries)
            of_element[z] = np.tensordot(self.coefficients[:, start : start + len(patterns)], patterns, axes=1)
            start += len(patterns)
        return of_element


class OnSiteExchange(Projector):
    """y: the projectors' entries weighted by the density's own."""

    letter: ClassVar[str] = "y"
    step: ClassVar[int] = 2

    def contract(self, molecule: Ingredients) -> Matrix:
        of_element, density = self._on_site("all"), molecule.answer.density
        own = zip(molecule.numbers.tolist(), molecule.own_orbitals, strict=True)
        return _between_overlaps(molecule, [of_element[z] * density[place, place] for z, place in own])


class Exchange(Term):
    """x: S D S scaled by the two atoms' elements."""

    letter: ClassVar[str] = "x"
    step: ClassVar[int] = 2

    @classmethod
    def places(cls, space: OrbitalSpace, n_exponents: int) -> list[tuple[int, int]]:
        return [(0, k) for k in range(len(_element_pairs(space)))]

    def contract(self, molecule: Ingredients) -> Matrix:
        table = np.zeros((len(self.space.elements),) * 2, dtype=np.int64)
        for number, (a, b) in enumerate(_element_pairs(self.space)):
            table[a, b] = table[b, a] = number
        element = np.repeat(_element_index(self.space, molecule.numbers), np.diff(molecule.offsets))
        scale = self.coefficients[:, table[np.ix_(element, element)]]
        return scale * molecule.projected_density


TERMS: Final[tuple[type[Term], ...]] = (
    ScreenedNucleus, ScaledOverlap, Projector, ChargeTransfer, ChargedOverlap, Exchange, OnSiteExchange,
)  # fmt: skip
"""In the order of the stored coefficients; step 1's come first."""


class TermLayout:
    """Which coefficient belongs to which term; names are like ``g/6/3`` and stand in this order in the weights.

    Args:
        space: elements and shells.
        n_exponents: Gaussians an atom.
    """

    def __init__(self, space: OrbitalSpace, n_exponents: int) -> None:
        self.space = space
        self.names: list[str] = []
        self._places: list[tuple[type[Term], slice]] = []
        for term in TERMS:
            start = len(self.names)
            self.names += [f"{term.letter}/{z}/{number}" for z, number in term.places(space, n_exponents)]
            self._places.append((term, slice(start, len(self.names))))
        self.n_step1 = max(place.stop for term, place in self._places if term.step == 1)

    def __len__(self) -> int:
        return len(self.names)

    def step1(self, coefficients: Matrix) -> list[Term]:
        """Step 1's terms with sets of their coefficients, (set, coefficient of step 1)."""
        return [term(self.space, coefficients[:, place]) for term, place in self._places if term.step == 1]

    def step2(self, coefficients: Matrix) -> list[Term]:
        """The response terms with sets of their coefficients, (set, coefficient after those of step 1)."""
        shifted = [(t, slice(p.start - self.n_step1, p.stop - self.n_step1)) for t, p in self._places if t.step == 2]
        return [term(self.space, coefficients[:, place]) for term, place in shifted]

    def alone(self, step: int) -> list[Term]:
        """A step's terms, each with the identity: every coefficient's own matrix, in the order of the coefficients."""
        return [term(self.space, np.eye(place.stop - place.start)) for term, place in self._places if term.step == step]


def rows_of(terms: list[Term]) -> Mapping[int, Matrix]:
    """The Gaussian charges of the one term among these that has some, {element: (set, exponent)}."""
    return next(term.rows() for term in terms if isinstance(term, _Gaussians))


def _element_index(space: OrbitalSpace, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.searchsorted(np.array(space.elements), numbers)


def _element_pairs(space: OrbitalSpace) -> list[tuple[int, int]]:
    """Indices of elements, a <= b."""
    return list(combinations_with_replacement(range(len(space.elements)), 2))


def _shell_pairs(shells: tuple[int, ...]) -> list[tuple[int, int]]:
    """Pairs of shells of equal l, a <= b."""
    return [(a, b) for a, b in combinations_with_replacement(range(len(shells)), 2) if shells[a] == shells[b]]


@lru_cache(maxsize=256)
def _pair_patterns(shells: tuple[int, ...], entries: str) -> Matrix:
    """(1_ab + 1_ba) / 2 of each pair of shells, over "all" entries of the two or those of the "same m": (pair, ao, ao)."""
    ends = np.cumsum([2 * ang + 1 for ang in shells])
    pairs = _shell_pairs(shells)
    patterns = np.zeros((len(pairs), int(ends[-1]), int(ends[-1])))
    for pattern, (a, b) in zip(patterns, pairs, strict=True):
        size = 2 * shells[a] + 1
        rows, columns = slice(ends[a] - size, ends[a]), slice(ends[b] - size, ends[b])
        half = 0.5 * (np.eye(size) if entries == "same m" else np.ones((size, size)))
        pattern[rows, columns] += half
        pattern[columns, rows] += half
    patterns.setflags(write=False)
    return patterns


def _mean_times_overlap(molecule: Ingredients, of_atoms: NDArray[np.float64]) -> Matrix:
    scale = 0.5 * molecule.to_orbitals(of_atoms)
    return molecule.overlap * (scale[:, :, None] + scale[:, None, :])


def _between_overlaps(molecule: Ingredients, on_site: Sequence[Matrix]) -> Matrix:
    """S B S with B made of the atoms' blocks, each (set, ao, ao)."""
    half = np.empty((len(on_site[0]), *molecule.overlap.shape))
    for place, block in zip(molecule.own_orbitals, on_site, strict=True):
        half[:, :, place] = molecule.overlap[:, place] @ block
    return half @ molecule.overlap
