"""Predictor: the one door for callers. Structures in, Hamiltonians, orbitals and initial guesses out.

    structure -> integrals and H0 (CPU, float64) -> network (device, float32) -> H = H0 + damped dH (float64)
              -> task: matrix | guess

A batch runs through the network at once; everything else is per structure. What a crystal's checkpoint gives are blocks
H(R); bands and Fermi levels are made of them in ``model.electronic``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.blocks.matrices import cut_matrix, dense_matrix
from model.checkpoint import store
from model.checkpoint.card import Card
from model.checkpoint.expectation import Expected
from model.checkpoint.golden import verify_golden
from model.electronic.dependence import damp_correction
from model.electronic.guess import INTRUDER_WARNING, SANITY_WARNING, GuessChecks, InitialGuess, check_guess, make_guess
from model.electronic.kinetic_damping import KineticDamping
from model.electronic.solve import Orbitals, solve
from model.errors import UnsupportedPeriodicityError
from model.exported import package
from model.integrals.pyscf_crystal import CrystalIntegrals
from model.integrals.pyscf_molecule import MoleculeIntegrals
from model.integrals.source import Integrals
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.preparation import Prepared
from model.structure import Structure


@dataclass(frozen=True, eq=False)
class Prediction:
    """What is known of one molecule. Matrices are (ao, ao), hartree, in the order of ``space``.

    Attributes:
        structure: what was asked.
        space: the orbitals.
        hamiltonian: predicted Kohn-Sham matrix, symmetric; it and ``reference`` are empty in another basis (``projection``).
        reference: H0, its part without the network.
        overlap: S.
        ao_labels: "0 O 1s" ..., (ao,).
        atom_offsets: first AO of each atom and, last, the number of AOs.
        orbitals: eigenpairs and occupations, protected from intruders as the guess is; None if not asked for.
        guess: density matrix and orbitals; None if not asked for.
        checks: sanity of the guess; None if not asked for.
        in_domain: False if the structure is larger than anything the checkpoint was tested on, if its distances are those of
            no molecule (a wrong unit, a drawing), or if there is an intruder.
        warnings: for people, empty if all is well.
        timings_ms: "integrals", "forward" (the whole batch's) and "eigensolve".
        expected: error of the guess; None out of the domain, and where the checkpoint's errors were not measured.
    """

    structure: Structure
    space: OrbitalSpace
    hamiltonian: NDArray[np.float64]
    reference: NDArray[np.float64]
    overlap: NDArray[np.float64]
    ao_labels: tuple[str, ...]
    atom_offsets: tuple[int, ...]
    orbitals: Orbitals | None
    guess: InitialGuess | None
    checks: GuessChecks | None
    in_domain: bool
    warnings: tuple[str, ...]
    timings_ms: Mapping[str, float]
    expected: Expected | None = None

    @property
    def blocks(self) -> BlockSet:
        """The Hamiltonian as blocks; all R are 0."""
        return cut_matrix(self.space, self.structure.numbers, PairList.complete(self.structure), self.hamiltonian)

    def block(self, row: int, column: int) -> NDArray[np.float64]:
        """Block of two atoms, (ao of ``row``, ao of ``column``)."""
        offsets = self.atom_offsets
        return self.hamiltonian[offsets[row] : offsets[row + 1], offsets[column] : offsets[column + 1]]


@dataclass(frozen=True, eq=False)
class CrystalPrediction:
    """What is known of one crystal.

    Attributes:
        structure: what was asked.
        hamiltonian: H(R), hermitian, hartree, in the card's gauge: only differences of energies mean anything.
        integrals: its known matrices, computed when they are first read; S(R) where the checkpoint's source has it.
        in_domain: False if the training set has no such distances or neighbourhoods.
        warnings: for people, empty if all is well.
        timings_ms: "integrals" and "forward" (the whole batch's).
        kinetic_damping: delta of :attr:`damping`; 0 for none.
    """

    structure: Structure
    hamiltonian: BlockSet
    integrals: Integrals
    in_domain: bool
    warnings: tuple[str, ...]
    timings_ms: Mapping[str, float]
    kinetic_damping: float = 0.0

    @cached_property
    def damping(self) -> KineticDamping | None:
        """What levels and densities of this H(R) are to be solved with; None for H(R) as it is."""
        if not self.kinetic_damping:
            return None
        assert isinstance(self.integrals, CrystalIntegrals)  # the card has seen to it
        return KineticDamping(self.integrals.kinetic, self.kinetic_damping)


class Predictor:
    """A checkpoint, ready to predict.

    :meth:`predict` is three steps that a server runs in different threads: all may run in several at once, though on a GPU
    several forward passes gain nothing.

    Args:
        checkpoint: as loaded.
        folder: where it came from.
        device: torch device of the network.
    """

    def __init__(self, checkpoint: store.Checkpoint, folder: Path, device: str) -> None:
        self.checkpoint = checkpoint
        self.model = checkpoint.model
        self.folder = folder
        self.device = device
        self.space = self.model.space

    @property
    def card(self) -> Card:
        """What the checkpoint is."""
        return self.checkpoint.card

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        verify_golden: bool = True,
        compiled: Path | None = None,
    ) -> Predictor:
        """Load a checkpoint folder and prove that it still gives its stored answers.

        Args:
            folder: with card.json, weights.safetensors, golden.json.
            device: "cpu", "cuda", "cuda:1" ...
            dtype: float32, or float64 for tests of symmetry.
            verify_golden: predict the golden molecules and compare.
            compiled: folder of packages (``model.exported``); one that belongs to the network runs in its place.

        Raises:
            CheckpointError: a folder that must not be served.
        """
        predictor = cls(store.load(Path(folder), device=device, dtype=dtype), Path(folder), device)
        predictor.model.preparer.integral_source.verify(predictor.space)
        if compiled is not None:
            predictor.model.exported = package.find(predictor.model, compiled)
        if verify_golden:
            predictor.verify_golden()
        return predictor

    def verify_golden(self) -> None:
        """Compare with the stored answers; a package that misses them is left, and the network itself compared.

        Raises:
            CheckpointError: a deviation above ``golden.GOLDEN_TOLERANCE_HARTREE``.
        """
        package.or_without(self.model, lambda: verify_golden(self, self.checkpoint.golden))

    def check(self, structure: Structure) -> None:
        """Refuse a structure outside the checkpoint's domain of elements, charge, spin and periodicity.

        Raises:
            DomainError: one of its leaves.
        """
        self.card.check(structure)

    def count_orbitals(self, structure: Structure) -> int:
        """Number of AOs, without any integral."""
        return self.space.count_orbitals(structure.numbers)

    def count_blocks(self, structure: Structure) -> int:
        """Number of blocks (atoms and pairs) that the network will compute, from the pairs alone; see ``Prepared.cost``."""
        pairs = self.model.preparer.pairs.pairs(structure)
        return len(structure) + len(pairs.once(structure.numbers))

    def predict(self, structures: Sequence[Structure], *, orbitals: bool = True) -> list[Prediction]:
        """Predict a batch.

        Args:
            structures: at least one; each must pass :meth:`check`.
            orbitals: also diagonalise, and make and check the guess.

        Raises:
            ModelError: one of its leaves; the first structure to blame decides.
        """
        prepared, blocks, ms = self._passed(structures, [{}] * len(structures))
        pairs = zip(prepared, blocks, strict=True)
        return [self.finish(item, own, orbitals=orbitals, forward_ms=ms) for item, own in pairs]

    def predict_crystals(
        self, structures: Sequence[Structure], given: Sequence[Mapping[str, BlockSet]] | None = None
    ) -> list[CrystalPrediction]:
        """Predict H(R) of a batch of crystals.

        Args:
            structures: at least one; each must pass :meth:`check`.
            given: matrices that came with each structure, by name, for a checkpoint whose integrals are ``given``.

        Raises:
            ModelError: one of its leaves; the first structure to blame decides.
        """
        brought = [{}] * len(structures) if given is None else given
        prepared, blocks, ms = self._passed(structures, brought)
        return [self.finish_crystal(item, own, forward_ms=ms) for item, own in zip(prepared, blocks, strict=True)]

    def _passed(
        self, structures: Sequence[Structure], given: Sequence[Mapping[str, BlockSet]]
    ) -> tuple[list[Prepared], list[NDArray[np.float64]], float]:
        """Structures checked and prepared, the network's blocks of each, and the milliseconds of the pass."""
        for structure in structures:
            self.check(structure)
        prepared = [self.prepare(structure, known) for structure, known in zip(structures, given, strict=True)]
        started = time.perf_counter()
        blocks = self.forward(prepared)
        return prepared, blocks, 1e3 * (time.perf_counter() - started)

    def prepare(self, structure: Structure, given: Mapping[str, BlockSet] | None = None) -> Prepared:
        """Integrals, H0 and what the network reads, on the CPU; the structure has passed :meth:`check`."""
        return self.model.prepare(structure, given)

    def forward(self, prepared: Sequence[Prepared]) -> list[NDArray[np.float64]]:
        """The network's blocks of each structure, for :meth:`finish`; one batch."""
        return self.model.run(prepared)

    def finish(self, item: Prepared, blocks: NDArray[np.float64], *, orbitals: bool, forward_ms: float) -> Prediction:
        """Correction where basis functions nearly depend damped, then orbitals, guess, checks and warnings, on the CPU.

        Raises:
            NumericalError: blocks that are not finite, or an eigensolver that failed.
        """
        started = time.perf_counter()
        integrals = item.integrals
        if not isinstance(integrals, MoleculeIntegrals):
            raise UnsupportedPeriodicityError("Orbitals and guesses are made of molecules.", field="pbc")
        overlap = integrals.factor
        correction = dense_matrix(self.model.collect(item, blocks))
        assert item.reference is not None
        h0 = item.reference.hamiltonian
        assert isinstance(h0, np.ndarray)
        damping = self.card.reference.overlap_damping
        if damping:
            correction = damp_correction(correction, overlap, damping)
        hamiltonian = h0 + correction
        in_domain = not (warnings := list(self.card.domain_warnings(item.structure)))
        guess = checks = solved = expected = None
        if orbitals:
            solved = solve(hamiltonian, overlap, item.structure.n_electrons)
            guess = make_guess(solved, h0)
            solved = guess.orbitals
            if guess.has_intruder:
                in_domain = False  # of 136 molecules in a wrong unit all have one, of 68 right ones none
                warnings.append(INTRUDER_WARNING)
            if in_domain and self.checkpoint.expectation is not None:
                expected = self.checkpoint.expectation.of(item, hamiltonian, guess)
            checks = check_guess(guess, overlap)
            if not checks.ok:
                warnings.append(SANITY_WARNING)
        solve_ms = 1e3 * (time.perf_counter() - started)
        return Prediction(
            structure=item.structure,
            space=self.space,
            hamiltonian=hamiltonian,
            reference=h0,
            overlap=overlap.matrix,
            ao_labels=integrals.labels,
            atom_offsets=tuple(int(o) for o in self.space.atom_offsets(item.structure.numbers)),
            orbitals=solved,
            guess=guess,
            checks=checks,
            in_domain=in_domain,
            warnings=tuple(warnings),
            timings_ms={"integrals": item.milliseconds, "forward": forward_ms, "eigensolve": solve_ms},
            expected=expected,
        )

    def finish_crystal(self, item: Prepared, blocks: NDArray[np.float64], *, forward_ms: float) -> CrystalPrediction:
        """H(R) from H0, if there is one, and the network's blocks.

        Raises:
            NumericalError: blocks that are not finite.
        """
        domain = self.card.domain_warnings(item.structure, item.blocks.pairs)
        hamiltonian = self.model.collect(item, blocks)
        if item.reference is not None:
            assert isinstance(item.reference.hamiltonian, BlockSet)
            hamiltonian = hamiltonian.plus_shared(item.reference.hamiltonian)
        return CrystalPrediction(
            structure=item.structure,
            hamiltonian=hamiltonian,
            integrals=item.integrals,
            in_domain=not domain,
            warnings=(*domain, *item.integrals.warnings),
            timings_ms={"integrals": item.milliseconds, "forward": forward_ms},
            kinetic_damping=self.card.kinetic_damping,
        )
