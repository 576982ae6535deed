"""Where one SCF starts: the server's answer, made into the density that this calculation expects."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from tracegrad_client.adapters.pyscf.calculation import functional_difference, treatment
from tracegrad_client.adapters.pyscf.density import starting_density
from tracegrad_client.adapters.pyscf.history import ErrorHistory, Lesson, subject_of
from tracegrad_client.adapters.pyscf.orbitals import GuessSource, ask_for_orbitals, in_basis_of
from tracegrad_client.adapters.pyscf.other_basis import orbitals_in_basis
from tracegrad_client.adapters.pyscf.report import GuessReport
from tracegrad_client.guess import Guess

MOST_REPORTS: Final = 10_000
"""Reports that are kept, so that a trajectory of any length does not fill the memory."""

SHIFTED: Final = "xc shifted"
SAID_HERE: Final = ("xc mismatch", "basis mismatch", SHIFTED)
"""How warnings of the server's begin that compare names; here the things themselves are compared, and only that is said."""

NOT_ASKED: Final = GuessReport(False, "The SCF has not asked for a guess yet.")


@dataclass
class State:
    """What an attached object, and everything that PySCF derives from it, has in common.

    Attributes:
        guesses: what is asked.
        guard, threshold: whether and how a guess is judged; None takes the threshold that was measured.
        parents: whether ions and open shells take the closed shell's orbitals.
        reports: what became of each guess; the first stands for none asked yet.
        history: what the model got wrong at the last geometries.
    """

    guesses: GuessSource
    guard: bool
    threshold: float | None
    parents: bool = False
    reports: deque[GuessReport] = field(default_factory=lambda: deque([NOT_ASKED], MOST_REPORTS))
    history: ErrorHistory = field(default_factory=ErrorHistory)

    @property
    def asked(self) -> tuple[GuessReport, ...]:
        """Reports of guesses that were asked for."""
        return tuple(report for report in self.reports if report is not NOT_ASKED)


@dataclass(frozen=True, eq=False)
class Start:
    """A guess, as one calculation takes it.

    Attributes:
        guess: the server's answer.
        density: what the SCF starts from, in the form that its treatment of spin asks for.
        notes: warnings of the server's and of ours.
        parent: the closed shell that was asked for in place of an ion or open shell, or None.
        projected_from: the model's basis, where it is not the calculation's.
        shifted: whether the server shifted it to the calculation's functional.
        learned_from: geometries whose errors were taken into account.
        lesson: what is needed to learn from the converged calculation; None where nothing can be.
    """

    guess: Guess
    density: Any
    notes: tuple[str, ...]
    parent: str | None
    projected_from: str | None
    shifted: bool
    learned_from: int
    lesson: Lesson | None

    @classmethod
    def ask(cls, state: State, mf: Any, mol: Any) -> Start:
        """Ask for a guess and make it fit.

        Raises:
            TraceGradError: there is none.
        """
        kind = treatment(mf)
        assert kind is not None, "obstacle() refuses what has no treatment"
        guess, parent = ask_for_orbitals(state.guesses, mf, mol, parents=state.parents)
        overlap = np.asarray(mol.intor_symmetric("int1e_ovlp"))
        fits = in_basis_of(guess, mol, overlap)
        lesson, learned = None, 0
        if fits:
            orbitals = [guess.mo_coeff]
            if kind != "generalised":
                spins = 2 if kind == "unrestricted" else 1
                lesson = Lesson(state.history, subject_of(guess, mf, mol), overlap, guess.fock(overlap), spins)
                improved = lesson.improved_orbitals(guess.mo_coeff, mol.natm)
                if improved is not None:
                    orbitals, learned = improved, len(state.history)
        else:
            orbitals = [orbitals_in_basis(guess, mol, overlap, max(mol.nelec))[0]]
        notes = tuple(text for text in guess.warnings if not text.startswith(SAID_HERE))
        shifted = any(text.startswith(SHIFTED) for text in guess.warnings)
        difference = None if shifted else functional_difference(getattr(mf, "xc", "hf"), guess.xc)
        if difference is not None:
            notes = (difference, *notes)
        return cls(
            guess,
            starting_density(kind, orbitals, mol.nelec),
            notes,
            parent,
            None if fits else guess.basis,
            shifted,
            learned,
            lesson,
        )

    def report(self, used: bool, judgement: str, rms: float | None, seconds: float) -> GuessReport:
        """The report of this guess after it was judged."""
        model = f"{self.guess.model} {self.guess.version}".strip()
        how = f"Guess of {model}"
        if self.parent is not None:
            how += f", orbitals of the {self.parent}"
        if self.shifted:
            how += f", shifted from {self.guess.xc} to this functional"
        if self.projected_from is not None:
            how += f", projected from {self.projected_from}"
        if self.learned_from:
            geometries = "geometry" if self.learned_from == 1 else f"{self.learned_from} geometries"
            how += f", corrected by the last {geometries}"
        return GuessReport(
            used,
            f"{how}; {judgement}.",
            rms,
            seconds,
            model,
            self.notes,
            self.projected_from,
            self.parent,
            self.learned_from,
        )

    def learn(self, mf: Any) -> None:
        """Keep what the guess missed by, from the converged calculation that started from it."""
        if self.lesson is not None:
            self.lesson.learn(mf)
