"""H0: a cheap, exactly covariant reference Hamiltonian; the network predicts what is left (docs/decisions/0001-reference.md).

``FittedReference`` is a linear model of the converged Fock matrix, fitted by least squares on block error plus
first-order density error (``training.fit.reference``). It needs no integration grid and no four-centre integral, so it
is covariant to rounding and costs a small fraction of one SCF cycle. Its terms, all per element:

step 1 (atoms)
    g   Coulomb potentials of atom-centred spherical Gaussian charges (three-centre integrals): the screened nucleus
    o   overlap, scaled by the two atoms' elements
    p   separable projectors  sum_A S[:, Aa] S[Ab, :]  over shells a, b of equal l: short-range exchange and repulsion

step 2 (response), from the density D1 that step 1's Hamiltonian gives
    q   the same Gaussians times the atom's Löwdin charge: charge transfer
    r   overlap scaled by the two atoms' charges
    x   S D1 S, scaled by the two atoms' elements: exchange
    y   sum_A S[:, Aa] D1[Aa, Ab] S[Ab, :]: on-site exchange

H1 = core + g + o + p;  H0 = core + g' + o' + p' + q + r + x + y, with step 1's terms fitted anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from model.electronic.overlap import OverlapFactor
from model.orbitals.space import OrbitalSpace

Matrix = NDArray[np.float64]


class Surroundings(Protocol):
    """What the reference needs to know of a molecule; ``integrals.pyscf_molecule.MoleculeIntegrals`` is one."""

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Atomic numbers, (atom,)."""
        ...

    @property
    def overlap(self) -> Matrix:
        """S, (ao, ao)."""
        ...

    @property
    def factor(self) -> OverlapFactor:
        """S, diagonalised."""
        ...

    @property
    def core(self) -> Matrix:
        """Kinetic energy plus nuclear attraction, (ao, ao), hartree."""
        ...

    @property
    def n_occupied(self) -> int:
        """Doubly occupied orbitals."""
        ...

    def potentials(
        self, exponents: NDArray[np.float64], contractions: Mapping[int, Matrix]
    ) -> Iterable[tuple[slice, Matrix]]:
        """Coulomb integrals of Gaussian charges: contractions {element: (contraction, exponent)} -> chunks
        (atoms, (atom, contraction, packed lower triangle)); see ``integrals.pyscf_molecule.gaussian_potentials``."""
        ...


@dataclass(frozen=True)
class ReferenceResult:
    """H0 and the density it came from.

    Attributes:
        hamiltonian: H0, (ao, ao), hartree.
        density: D1, the density of step 1, (ao, ao).
    """

    hamiltonian: Matrix
    density: Matrix


def unpack(packed: Matrix) -> Matrix:
    """Symmetric matrices (..., ao, ao) from lower triangles by rows (..., ao (ao + 1) / 2)."""
    n_ao = int((np.sqrt(8 * packed.shape[-1] + 1) - 1) / 2)
    rows, columns = np.tril_indices(n_ao)
    full = np.empty((*packed.shape[:-1], n_ao, n_ao))
    full[..., rows, columns] = packed
    full[..., columns, rows] = packed
    return full


class TermLayout:
    """Which coefficient belongs to which term; names are like ``g/C/3`` and stand in this order in the weights.

    Args:
        basis: elements and shells.
        n_exponents: Gaussians per atom.
    """

    def __init__(self, basis: OrbitalSpace, n_exponents: int) -> None:
        self.basis = basis
        elements = basis.elements
        self.element_pairs = [(a, b) for i, a in enumerate(elements) for b in elements[i:]]
        self.shell_pairs = {
            z: [
                (a, b)
                for a in range(len(basis.shells[z]))
                for b in range(a, len(basis.shells[z]))
                if basis.shells[z][a] == basis.shells[z][b]
            ]
            for z in elements
        }
        self.names: list[tuple[str, int, int]] = []
        for kind in ("g", "o", "p", "q", "r", "x", "y"):
            if kind in "gq":
                self.names += [(kind, z, k) for z in elements for k in range(n_exponents)]
            elif kind in "or":
                self.names += [(kind, z, 0) for z in elements]
            elif kind in "py":
                self.names += [(kind, z, k) for z in elements for k in range(len(self.shell_pairs[z]))]
            else:
                self.names += [(kind, 0, k) for k in range(len(self.element_pairs))]
        self._index = {name: index for index, name in enumerate(self.names)}
        self.n_step1 = sum(kind in "gop" for kind, _, _ in self.names)

    def __len__(self) -> int:
        return len(self.names)

    def index(self, kind: str, element: int, number: int) -> int:
        """Position of one coefficient."""
        return self._index[(kind, element, number)]

    def gaussians(self, kind: str, coefficients: NDArray[np.float64], n_exponents: int) -> dict[int, Matrix]:
        """One contraction per element of the ``g`` or ``q`` terms, {element: (1, exponent)}."""
        return {
            z: np.array([[coefficients[self.index(kind, z, k)] for k in range(n_exponents)]])
            for z in self.basis.elements
        }


@dataclass(frozen=True, eq=False)
class FittedReference:
    """The model: exponents and coefficients.

    Attributes:
        basis: the AO basis.
        exponents: of the Gaussian charges, (exponent,), 1/bohr^2.
        step1: coefficients of step 1's terms, (term of step 1,).
        step2: coefficients of all terms, (term,).
    """

    basis: OrbitalSpace
    exponents: NDArray[np.float64]
    step1: NDArray[np.float64]
    step2: NDArray[np.float64]

    def evaluate(self, molecule: Surroundings) -> ReferenceResult:
        """H0 and D1 of a molecule."""
        layout = TermLayout(self.basis, len(self.exponents))
        size = len(self.exponents)
        first = layout.gaussians("g", self.step1, size)
        again = layout.gaussians("g", self.step2, size)
        charge = layout.gaussians("q", self.step2, size)
        elements = {int(z) for z in molecule.numbers}
        # one pass over the three-centre integrals serves all three potentials; charges are known only after step 1, so
        # the third is kept per atom
        size = len(molecule.overlap) * (len(molecule.overlap) + 1) // 2
        atoms, again_atoms, per_atom = np.zeros(size), np.zeros(size), np.zeros((len(molecule.numbers), size))
        contractions = {z: np.concatenate([first[z], again[z], charge[z]]) for z in elements}
        for where, chunk in molecule.potentials(self.exponents, contractions):
            atoms += chunk[:, 0].sum(axis=0)
            again_atoms += chunk[:, 1].sum(axis=0)
            per_atom[where] = chunk[:, 2]
        shells = ShellIndex(self.basis, molecule.numbers)
        step1 = molecule.core + unpack(atoms)
        step1 += _cheap_terms(layout, shells, molecule.overlap, None, self.step1, ("o", "p"))
        density, charges = response_density(step1, molecule, shells)
        step2 = molecule.core + unpack(again_atoms + charges @ per_atom)
        step2 += _cheap_terms(layout, shells, molecule.overlap, None, self.step2, ("o", "p"))
        step2 += _cheap_terms(layout, shells, molecule.overlap, (density, charges), self.step2, ("r", "x", "y"))
        return ReferenceResult(0.5 * (step2 + step2.T), density)


@dataclass(frozen=True)
class NoReference:
    """H0 = 0: the network learns F itself, as the papers' networks do. Its density is zero as well."""

    exponents: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def evaluate(self, molecule: Surroundings) -> ReferenceResult:
        """Two zero matrices, (ao, ao)."""
        return ReferenceResult(np.zeros_like(molecule.overlap), np.zeros_like(molecule.overlap))


Reference = FittedReference | NoReference
"""What may stand for H0; a card names it ``fitted`` or ``none``."""


class ShellIndex:
    """AO ranges of atoms and shells of one molecule, in PySCF order."""

    def __init__(self, basis: OrbitalSpace, numbers: Sequence[int] | NDArray[np.int64]) -> None:
        self.numbers = [int(z) for z in numbers]
        self.offsets = basis.atom_offsets(self.numbers)
        self.shell_slices = []
        for atom, z in enumerate(self.numbers):
            ends = int(self.offsets[atom]) + np.cumsum([2 * ang + 1 for ang in basis.shells[z]])
            self.shell_slices.append(
                [slice(int(end) - 2 * ang - 1, int(end)) for end, ang in zip(ends, basis.shells[z], strict=True)]
            )
        self.atom_of_ao = np.repeat(np.arange(len(self.numbers)), np.diff(self.offsets))
        self.number_of_ao = np.array(self.numbers)[self.atom_of_ao]


def response_density(hamiltonian: Matrix, molecule: Surroundings, shells: ShellIndex) -> tuple[Matrix, Matrix]:
    """Density of a Hamiltonian's occupied orbitals and the atoms' Löwdin charges (electrons less nuclear charge)."""
    inverse = molecule.factor.inverse_root(1e-10)
    _, rotated = scipy.linalg.eigh(inverse @ hamiltonian @ inverse)
    occupied = rotated[:, : molecule.n_occupied]
    coefficients = inverse @ occupied
    populations = 2.0 * np.square(occupied).sum(axis=1)
    charges = np.asarray(np.add.reduceat(populations, shells.offsets[:-1]) - molecule.numbers, dtype=np.float64)
    return 2.0 * coefficients @ coefficients.T, charges


def _cheap_terms(
    layout: TermLayout,
    shells: ShellIndex,
    overlap: Matrix,
    response: tuple[Matrix, Matrix] | None,
    coefficients: NDArray[np.float64],
    kinds: Sequence[str],
) -> Matrix:
    """Sum of the terms that need no further integrals, contracted on the fly."""
    total = np.zeros_like(overlap)
    elements = sorted(set(shells.numbers))
    if "o" in kinds:
        scale = np.array([coefficients[layout.index("o", z, 0)] for z in shells.number_of_ao])
        total += overlap * (0.5 * (scale[:, None] + scale[None, :]))
    if "p" in kinds:
        projector = np.zeros_like(overlap)
        for atom, z in enumerate(shells.numbers):
            for number, (a, b) in enumerate(layout.shell_pairs[z]):
                _add_shell_pair(projector, shells.shell_slices[atom], a, b, coefficients[layout.index("p", z, number)])
        total += overlap @ projector @ overlap
    if response is None:
        return total
    density, charges = response
    if "r" in kinds:
        scale = np.array([coefficients[layout.index("r", z, 0)] for z in shells.number_of_ao])
        scale = scale * charges[shells.atom_of_ao]
        total += overlap * (0.5 * (scale[:, None] + scale[None, :]))
    if "x" in kinds:
        table = np.zeros((max(elements) + 1, max(elements) + 1))
        for number, (a, b) in enumerate(layout.element_pairs):
            if a in elements and b in elements:
                table[a, b] = table[b, a] = coefficients[layout.index("x", 0, number)]
        total += (overlap @ density @ overlap) * table[np.ix_(shells.number_of_ao, shells.number_of_ao)]
    if "y" in kinds:
        onsite = np.zeros_like(overlap)
        for atom, z in enumerate(shells.numbers):
            for number, (a, b) in enumerate(layout.shell_pairs[z]):
                rows, columns = shells.shell_slices[atom][a], shells.shell_slices[atom][b]
                value = 0.5 * coefficients[layout.index("y", z, number)]
                onsite[rows, columns] += value * density[rows, columns]
                onsite[columns, rows] += value * density[columns, rows]
        total += overlap @ onsite @ overlap
    return total


def _add_shell_pair(matrix: Matrix, slices: Sequence[slice], a: int, b: int, value: float) -> None:
    """Add value/2 (1_ab + 1_ba) between two shells of equal l of one atom."""
    identity = 0.5 * value * np.eye(slices[a].stop - slices[a].start)
    matrix[slices[a], slices[b]] += identity
    matrix[slices[b], slices[a]] += identity


def term_matrices(
    layout: TermLayout,
    molecule: Surroundings,
    exponents: NDArray[np.float64],
    response: tuple[Matrix, Matrix] | None,
) -> Matrix:
    """Every term as its own matrix, for the fit: (term of step 1 or all terms, ao, ao).

    Args:
        exponents: of the Gaussian charges, (exponent,), 1/bohr^2.
        response: density and charges of step 1; None for step 1's terms only.
    """
    n_exponents = len(exponents)
    shells = ShellIndex(layout.basis, molecule.numbers)
    names = layout.names if response is not None else layout.names[: layout.n_step1]
    n_ao = len(molecule.overlap)
    terms = np.zeros((len(names), n_ao, n_ao))
    elements = sorted(set(shells.numbers))
    chunks = [chunk for _, chunk in molecule.potentials(exponents, {z: np.eye(n_exponents) for z in elements})]
    potentials = unpack(np.concatenate(chunks))
    for z in elements:
        atoms = np.flatnonzero(np.array(shells.numbers) == z)
        start = layout.index("g", z, 0)
        terms[start : start + n_exponents] = potentials[atoms].sum(axis=0)
        if response is not None:
            start = layout.index("q", z, 0)
            terms[start : start + n_exponents] = np.tensordot(response[1][atoms], potentials[atoms], axes=1)
    for index, (kind, z, number) in enumerate(names):
        if kind in "gq" or (kind != "x" and z not in elements):
            continue
        if kind == "x" and not {*layout.element_pairs[number]} <= {*elements}:
            continue
        unit = np.zeros(len(layout))
        unit[index] = 1.0
        terms[index] = _cheap_terms(layout, shells, molecule.overlap, response, unit, (kind,))
    return terms
