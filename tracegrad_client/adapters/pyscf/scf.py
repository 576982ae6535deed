"""A PySCF calculation that starts from the server's guess: ``attach(mf).kernel()``.

PySCF asks a mean-field object for its starting density (``get_init_guess``) when ``kernel()`` is given none. ``attach``
puts one class in front of the object's own class that answers this question: it asks the server, checks the answer,
and otherwise hands the question on, so that the calculation runs as it would have without us. Because it is a class and
not a patched method, whatever PySCF derives from the object (``density_fit()``, ``newton()``, ``as_scanner()``,
``copy()``, ``to_uks()``) stays sound.

The guard (``tracegrad_client.guard``) judges a guess by its Fock matrix. The SCF builds this matrix anyway; the guard
builds it first and hands it on, so that a good guess costs nothing and a bad one exactly one Fock build, after which
the calculation starts from its own guess.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, Unpack, cast

import numpy as np
from numpy.typing import NDArray
from pyscf import lib

from tracegrad_client.adapters.pyscf.calculation import functional_difference, obstacle, stated_level
from tracegrad_client.adapters.pyscf.report import GuessReport, announce
from tracegrad_client.ask import Options
from tracegrad_client.errors import TraceGradError
from tracegrad_client.guard import DEFAULT_THRESHOLD, Potential, rms_commutator
from tracegrad_client.guess import Guess

MeanField = TypeVar("MeanField")


class GuessSource(Protocol):
    """What guesses come from: a :class:`tracegrad_client.Client`, or anything with this method."""

    def guess(self, molecule: Any, /, **options: Unpack[Options]) -> Guess:
        """The starting point for a PySCF Mole; raises TraceGradError where there is none."""


@dataclass(frozen=True)
class _Source:
    """Where the guess comes from and how it is judged."""

    guesses: GuessSource
    guard: bool
    threshold: float


def attach(
    mf: MeanField, source: GuessSource, *, guard: bool = True, threshold: float = DEFAULT_THRESHOLD
) -> MeanField:
    """Make ``mf`` start from the server's guess, and return it.

    Everything is checked when the SCF asks for its guess, so that ``mf`` may still be changed after this. What does not
    fit, an unreachable server included, is a TraceGradWarning and a line in PySCF's output; the calculation then starts
    from its own guess. A density given to ``kernel(dm0=...)``, orbitals from an earlier run and a matrix in
    ``mf.init_guess`` go before ours. ``mf.tracegrad`` tells what happened.

    Args:
        mf: a restricted closed-shell mean-field object (RKS or RHF) of a molecule.
        source: what to ask for the guess, a Client as a rule.
        guard: judge the guess by its first Fock matrix and drop a bad one.
        threshold: RMS of the orthogonalised FDS - SDF, hartree, from which on a guess is bad.
    """
    if not threshold > 0:
        raise ValueError(f"threshold is {threshold!r}; give a positive number (hartree).")
    if not hasattr(mf, "get_init_guess"):
        raise TypeError(f"A {type(mf).__name__} is no mean-field object; give an RKS or RHF object of PySCF.")
    reason = obstacle(mf, check_molecule=False)
    if reason is not None:
        announce(mf, GuessReport(False, reason))
        return mf
    # A second-order object iterates with the Fock matrices of the object inside it: the hand-over has to meet there.
    for target in _layers(mf):
        if not isinstance(target, TraceGradSCF):
            lib.set_class(target, (TraceGradSCF, target.__class__))
        target._tracegrad_source = _Source(source, guard, threshold)
        target.tracegrad = GuessReport(False, "The SCF has not asked for a guess yet.")
    return mf


def detach(mf: MeanField) -> MeanField:
    """Undo :func:`attach`: ``mf`` itself, with its own class and its own guess again."""
    for target in _layers(mf):
        if isinstance(target, TraceGradSCF):
            target.__class__ = lib.drop_class(target.__class__, TraceGradSCF)
            for name in ("_tracegrad_source", "_tracegrad_fock", "tracegrad"):
                target.__dict__.pop(name, None)
    return mf


class TraceGradSCF:
    """The class that :func:`attach` puts in front of a mean-field object's own; of no use alone."""

    __name_mixin__ = "TraceGrad"
    _keys: Final = {"tracegrad"}

    mol: Any
    init_guess: Any
    tracegrad: GuessReport
    _tracegrad_source: _Source
    _tracegrad_fock: Potential | None = None

    def get_init_guess(self, mol: Any = None, key: Any = "minao", **kwargs: Any) -> Any:
        """The starting density: the server's where it serves, otherwise what PySCF makes of ``key``."""
        own = cast(Any, super()).get_init_guess
        if key is not self.init_guess and (not isinstance(key, str) or key != self.init_guess):
            return own(mol, key, **kwargs)  # another guess was asked for by name
        if not isinstance(key, str):
            announce(self, GuessReport(False, "mf.init_guess is a density matrix, which goes before ours."))
            return own(mol, key, **kwargs)
        started = time.perf_counter()
        try:
            report, dm = self._tracegrad_guess(self.mol if mol is None else mol, started)
        except Exception as error:  # whatever went wrong, the calculation must run as it would have without us
            self._tracegrad_fock = None
            told = str(error) if isinstance(error, TraceGradError) else f"{type(error).__name__}: {error}"
            report, dm = GuessReport(False, told, seconds=time.perf_counter() - started), None
        announce(self, report)
        return own(mol, key, **kwargs) if dm is None else dm

    def get_veff(self, mol: Any = None, dm: Any = None, *args: Any, **kwargs: Any) -> Any:
        """PySCF's own potential; for the density that the guard has just judged, the one it built."""
        own = cast(Any, super()).get_veff
        fock, self._tracegrad_fock = self._tracegrad_fock, None
        if fock is None or args or kwargs or not fock.serves(self, mol, dm):
            return own(mol, dm, *args, **kwargs)
        if fock.veff is None:  # the guard's call: keep a copy, since layers above may add to the array in place
            veff = own(mol, dm)
            fock.veff = lib.tag_array(np.array(veff), **getattr(veff, "__dict__", {}))
            return veff
        return fock.veff

    def build(self, mol: Any = None) -> Any:
        """PySCF's own, which begins every run; a potential that was left over from before is dropped."""
        _layers(self)[-1]._tracegrad_fock = None
        return cast(Any, super()).build(mol)

    def reset(self, mol: Any = None) -> Any:
        """PySCF's own; a potential of the former geometry is dropped with everything else."""
        self._tracegrad_fock = None
        return cast(Any, super()).reset(mol)

    def to_gpu(self) -> Any:
        """PySCF's own, of the object without this class (a GPU object knows nothing of it)."""
        return detach(cast(Any, self).copy()).to_gpu()

    def __reduce_ex__(self, protocol: Any) -> Any:
        # A class made at run time cannot be found by name when a pickle is read; its parts can.
        bases = type(self).__bases__
        if bases[0] is not TraceGradSCF:
            return super().__reduce_ex__(protocol)
        return _restore, (bases[1],), cast(Any, self).__getstate__()

    def _tracegrad_guess(self, mol: Any, started: float) -> tuple[GuessReport, NDArray[np.float64] | None]:
        """The report, and the density to start from, or None where it is not to be used."""
        source = self._tracegrad_source
        reason = obstacle(self, mol)
        if reason is not None:
            return GuessReport(False, reason), None
        xc = getattr(self, "xc", "hf")
        guess = source.guesses.guess(mol, **stated_level(self, mol))
        # The server compares names of functionals; here their components are compared, and only this is said.
        notes = tuple(text for text in guess.warnings if not text.startswith("xc mismatch"))
        difference = functional_difference(xc, guess.xc)
        if difference is not None:
            notes = (difference, *notes)
        model = f"{guess.model} {guess.version}".strip()
        dm = tagged_density(guess)
        asked = time.perf_counter() - started
        if not source.guard:
            return GuessReport(True, f"Guess of {model}, not judged.", None, asked, model, notes), dm
        rms = self._tracegrad_judge(mol, dm)
        if rms < source.threshold:
            reason = f"Guess of {model}; RMS of FDS - SDF is {rms:.1e} hartree."
            return GuessReport(True, reason, rms, asked, model, notes), dm
        self._tracegrad_discard()
        reason = (
            f"The guess of {model} is too far off: RMS of FDS - SDF is {rms:.1e} hartree, useful is less than "
            f"{source.threshold:.1e}."
        )
        return GuessReport(False, reason, rms, time.perf_counter() - started, model, notes), None

    def _tracegrad_judge(self, mol: Any, dm: NDArray[np.float64]) -> float:
        """RMS of the orthogonalised commutator, hartree; leaves the potential where ``get_veff`` finds it."""
        mf = cast(Any, self)
        worker = _layers(mf)[-1]
        fock = Potential(dm, worker.mol, getattr(worker, "xc", None))
        worker._tracegrad_fock = fock
        veff = worker.get_veff(mol, dm)
        s = worker.get_ovlp(mol)
        f = mf.get_fock(worker.get_hcore(mol), s, veff, dm)
        rms = rms_commutator(f, np.asarray(dm), s)
        worker._tracegrad_fock = fock if fock.veff is not None else None
        return rms

    def _tracegrad_discard(self) -> None:
        """Forget everything that the rejected density left behind."""
        worker: Any = _layers(self)[-1]
        worker._tracegrad_fock = None
        # With this option PySCF drops grid points where the *first* density is small: not to be the rejected one.
        if getattr(worker, "small_rho_cutoff", 0) > 0:
            worker.grids.reset()
            worker.nlcgrids.reset()


def _layers(mf: Any) -> list[Any]:
    inner = getattr(mf, "_scf", None)
    return [mf] if inner is None else [mf, inner]


def _restore(base: type) -> Any:
    return lib.set_class(object.__new__(base), (TraceGradSCF, base))


def tagged_density(guess: Guess) -> NDArray[np.float64]:
    """The density matrix with ``mo_coeff`` and ``mo_occ`` attached, as PySCF does with its own densities."""
    tagged: NDArray[np.float64] = lib.tag_array(guess.density_matrix, mo_coeff=guess.mo_coeff, mo_occ=guess.mo_occ)
    return tagged
