"""KRKS and KRHF: orbitals at the calculation's own k-points, filled by the calculation's own rule (smearing included)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tracegrad_client.adapters.pyscf.calculation import functional_difference, stated_level
from tracegrad_client.adapters.pyscf.cells import structure_of_cell
from tracegrad_client.adapters.pyscf.orbitals import GuessSource
from tracegrad_client.adapters.pyscf.report import GuessReport
from tracegrad_client.crystal_guess import CrystalGuess

ZERO: Final = 1e-9
"""A component of a k-point along a direction that is not periodic."""


@dataclass(frozen=True, eq=False)
class CrystalStart:
    """A guess, as one calculation takes it.

    Attributes:
        guess: the server's answer.
        density: what the SCF starts from, (k, ao, ao).
        notes: warnings of the server's and of ours.
    """

    guess: CrystalGuess
    density: Any
    notes: tuple[str, ...]
    projected_from: None = None  # a crystal's orbitals are in the calculation's basis, or refused

    @classmethod
    def ask(cls, source: GuessSource, mf: Any, cell: Any) -> CrystalStart:
        """Ask for a guess and make it fit.

        Raises:
            TraceGradError: there is none.
        """
        points = np.asarray(cell.get_scaled_kpts(mf.kpts), dtype=np.float64).reshape(-1, 3)
        points[np.abs(points) < ZERO] = 0.0
        level = stated_level(mf, cell)
        guess = source.crystal_guess(
            structure_of_cell(cell), kpts=points.tolist(), xc=level.get("xc"), basis=level.get("basis")
        )
        orbitals = guess.orbitals_in(np.asarray(mf.get_ovlp(cell)), int(cell.nelectron))
        density = np.asarray(mf.make_rdm1(orbitals, mf.get_occ(guess.mo_energy_kpts, orbitals)))
        notes = tuple(text for text in guess.warnings if not text.startswith(("xc mismatch", "basis mismatch")))
        difference = functional_difference(getattr(mf, "xc", "hf"), guess.xc)
        return cls(guess, density, notes if difference is None else (difference, *notes))

    def report(self, used: bool, judgement: str, rms: float | None, seconds: float) -> GuessReport:
        """The report of this guess after it was judged."""
        model = f"{self.guess.model} {self.guess.version}".strip()
        reason = f"Guess of {model} at {len(self.guess.kpts)} k-points; {judgement}."
        return GuessReport(used, reason, rms, seconds, model, self.notes)

    def learn(self, mf: Any) -> None:
        """Nothing is carried from one geometry of a crystal to the next."""
