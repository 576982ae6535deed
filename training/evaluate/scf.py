"""SCF runs from PySCF's guesses and from ours, counted honestly: cycles, Fock builds, CPU seconds, energy.

PySCF's RKS with its default thresholds; Fock builds are counted at ``get_veff``, not assumed. Where the converged Fock
matrix is known, every cycle's distance from it is kept too: the published error-level ratio is read off that log, for
any checkpoint, without another run.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyscf
from numpy.typing import NDArray
from pyscf import dft

from model.integrals.pyscf_molecule import build_mole
from model.units import MICROHARTREE_PER_HARTREE
from training.atomic import write_json
from training.data.sources import Frame

Matrix = NDArray[np.float64]

GUESSES: Final = ("minao", "1e", "atom")
"""PySCF's guesses to compare with; minao, its default, is always among them."""


@dataclass(frozen=True)
class ScfRun:
    """One SCF.

    Attributes:
        cycles: as PySCF counts them, from 1.
        fock_builds: calls of ``get_veff``.
        seconds: CPU, guess included if PySCF made it.
        energy: hartree.
        fock_errors: mean |F - F_ref| after each cycle, µEh, without DIIS; empty if it was not kept.
    """

    cycles: int
    fock_builds: int
    seconds: float
    energy: float
    converged: bool
    fock_errors: tuple[float, ...] = ()

    @property
    def published_cycles(self) -> int:
        """Cycles as QH9 counts them, from 0."""
        return self.cycles - 1

    def cycles_to(self, error_level: float) -> int | None:
        """The first cycle, counted from 0, after which the Fock matrix is closer to the converged one than this.

        Args:
            error_level: µEh.

        Returns:
            None if no cycle came that close.
        """
        return next((cycle for cycle, error in enumerate(self.fock_errors) if error < error_level), None)


@dataclass(frozen=True)
class ScfComparison:
    """The same molecule from minao, from the predicted density and, if asked for, from other guesses.

    Attributes:
        guess_seconds: CPU seconds of the prediction.
        error_level: mean |dH| of the prediction, µEh.
        others: PySCF's name of a guess -> its run.
    """

    molecule: str
    index: int
    minao: ScfRun
    guess: ScfRun
    guess_seconds: float
    error_level: float = 0.0
    others: Mapping[str, ScfRun] = field(default_factory=dict)

    def baseline(self, name: str) -> ScfRun:
        """The run from one of ``GUESSES``."""
        return self.minao if name == "minao" else self.others[name]


def comparison_of(stored: Mapping[str, Any]) -> ScfComparison:
    """Inverse of ``dataclasses.asdict``, after JSON."""

    def run(values: Mapping[str, Any]) -> ScfRun:
        return ScfRun(**{**values, "fock_errors": tuple(values["fock_errors"])})

    others = {name: run(values) for name, values in stored["others"].items()}
    sides = {"minao": run(stored["minao"]), "guess": run(stored["guess"]), "others": others}
    return ScfComparison(**{**stored, **sides})


def run_scf(mole: Any, xc: str, density: Matrix | None, *, guess: str = "minao", fock: Matrix | None = None) -> ScfRun:
    """RKS at PySCF's defaults.

    Args:
        mole: PySCF's molecule.
        density: to start from, (ao, ao); None for ``guess``, made inside the measured time.
        fock: the converged matrix, (ao, ao), hartree; every cycle's distance from it is kept.
    """
    mf = dft.RKS(mole, xc=xc)
    mf.verbose = 0
    mf.init_guess = guess
    builds = 0
    log: list[float] = []
    original: Callable[..., Any] = mf.get_veff

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal builds
        builds += 1
        return original(*args, **kwargs)

    def watch(scope: Mapping[str, Any]) -> None:
        log.append(float(MICROHARTREE_PER_HARTREE * np.abs(scope["fock"] - fock).mean()))

    mf.get_veff = counted
    if fock is not None:
        mf.callback = watch
    started = time.process_time()
    energy = mf.kernel(dm0=density)
    seconds = time.process_time() - started
    return ScfRun(int(mf.cycles), builds, seconds, float(energy), bool(mf.converged), tuple(log))


@dataclass(frozen=True, eq=False)
class ScfTask:
    """One molecule to run.

    Attributes:
        density: predicted, (ao, ao).
        seconds: what the prediction cost, CPU.
        error_level: mean |dH| of the prediction, µEh.
        known: runs that need not be repeated.
    """

    frame: Frame
    density: Matrix
    seconds: float
    error_level: float
    known: Mapping[str, ScfRun]


def compare_scf(task: ScfTask, xc: str, basis: str, guesses: Sequence[str] = ("minao",)) -> ScfComparison:
    """Run a molecule from every guess that is not known yet, and from the predicted density."""
    frame = task.frame
    mole = build_mole(frame.structure, basis)
    runs = {
        name: task.known[name] if name in task.known else run_scf(mole, xc, None, guess=name, fock=frame.fock)
        for name in guesses
    }
    return ScfComparison(
        molecule=frame.molecule,
        index=frame.index,
        minao=runs.pop("minao"),
        guess=run_scf(mole, xc, task.density, fock=frame.fock),
        guess_seconds=task.seconds,
        error_level=task.error_level,
        others=runs,
    )


class Baselines:
    """Runs from PySCF's guesses on disk: they do not depend on the checkpoint, and take most of an evaluation's time.

    Files from before the log of Fock errors are read as they are; their runs have an empty log.

    Args:
        path: JSON file; None keeps nothing.
        level: what the runs depend on besides the structure: functional and basis.
    """

    def __init__(self, path: Path | None, level: str) -> None:
        self.path = path
        self.level = level
        stored = json.loads(path.read_text()) if path is not None and path.is_file() else {}
        self.runs = {
            key: ScfRun(**(value | {"fock_errors": tuple(value.get("fock_errors", ()))}))
            for key, value in stored.items()
        }

    def key(self, frame: Frame, guess: str = "minao") -> str:
        """Hash of the structure, the level, PySCF's version and the guess."""
        digest = hashlib.sha256(f"{self.level} pyscf {pyscf.__version__}".encode())
        digest.update(frame.structure.numbers.tobytes() + frame.structure.positions_angstrom.tobytes())
        state = (frame.structure.charge, frame.structure.multiplicity)
        if state != (0, 1):  # the keys of the first files are of neutral singlets
            digest.update(str(state).encode())
        if guess != "minao":  # the keys of the first files name no guess
            digest.update(guess.encode())
        return digest.hexdigest()[:24]

    def get(self, frame: Frame, guess: str = "minao") -> ScfRun | None:
        """The stored run, if there is one."""
        return self.runs.get(self.key(frame, guess))

    def known(self, frame: Frame, guesses: Sequence[str]) -> dict[str, ScfRun]:
        """The stored runs among some guesses."""
        found = {name: self.get(frame, name) for name in guesses}
        return {name: run for name, run in found.items() if run is not None}

    def put(self, frame: Frame, run: ScfRun, guess: str = "minao") -> None:
        """Store a run, on disk too."""
        self.runs[self.key(frame, guess)] = run
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {key: asdict(value) for key, value in self.runs.items()})
