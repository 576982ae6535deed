"""SCF runs from minao and from a guess, counted honestly: cycles, Fock builds, CPU seconds, energy.

PySCF's RKS with its default thresholds; Fock builds are counted at ``get_veff``, not assumed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyscf
from numpy.typing import NDArray
from pyscf import dft

from model.electronic.molecule import build_mole
from training.datasets import Frame

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class ScfRun:
    """One SCF: cycles, Fock builds, seconds and energy (hartree)."""

    cycles: int
    fock_builds: int
    seconds: float
    energy: float
    converged: bool


@dataclass(frozen=True)
class ScfComparison:
    """The same molecule from minao and from the guess."""

    molecule: str
    index: int
    minao: ScfRun
    guess: ScfRun
    guess_seconds: float


def run_scf(frame_mole: Any, xc: str, density: Matrix | None) -> ScfRun:
    """RKS at PySCF's defaults, from minao (None) or from a density; Fock builds are counted at ``get_veff``."""
    mf = dft.RKS(frame_mole, xc=xc)
    mf.verbose = 0
    builds = 0
    original: Callable[..., Any] = mf.get_veff

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal builds
        builds += 1
        return original(*args, **kwargs)

    mf.get_veff = counted
    started = time.process_time()
    energy = mf.kernel(dm0=density)
    return ScfRun(int(mf.cycles), builds, time.process_time() - started, float(energy), bool(mf.converged))


def compare_scf(item: tuple[Frame, Matrix, float, ScfRun | None], xc: str, basis: str) -> ScfComparison:
    """Run both; an item is (frame, guess density, seconds that the guess cost, minao's run if it is known)."""
    frame, density, seconds, known = item
    mole = build_mole(frame.structure, basis)
    minao = run_scf(mole, xc, None) if known is None else known
    return ScfComparison(frame.molecule, frame.index, minao, run_scf(mole, xc, density), seconds)


class Baselines:
    """Runs from minao on disk: they do not depend on the checkpoint, and take most of an evaluation's time.

    Args:
        path: JSON file; None keeps nothing.
        level: what the runs depend on besides the structure: functional and basis.
    """

    def __init__(self, path: Path | None, level: str) -> None:
        self.path = path
        self.level = level
        stored = json.loads(path.read_text()) if path is not None and path.is_file() else {}
        self.runs = {key: ScfRun(**value) for key, value in stored.items()}

    def key(self, frame: Frame) -> str:
        """Hash of the structure, the level and PySCF's version."""
        digest = hashlib.sha256(f"{self.level} pyscf {pyscf.__version__}".encode())
        digest.update(frame.structure.numbers.tobytes() + frame.structure.positions_angstrom.tobytes())
        return digest.hexdigest()[:24]

    def get(self, frame: Frame) -> ScfRun | None:
        """The stored run, if there is one."""
        return self.runs.get(self.key(frame))

    def put(self, frame: Frame, run: ScfRun) -> None:
        """Store a run, on disk too."""
        self.runs[self.key(frame)] = run
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_suffix(".part")
            temporary.write_text(json.dumps({key: asdict(value) for key, value in self.runs.items()}))
            temporary.replace(self.path)
