"""A PySCF calculation that starts from the server's guess: ``attach(mf).kernel()``.

PySCF asks a mean-field object for its starting density (``get_init_guess``) when ``kernel()`` is given none. ``attach``
puts one class in front of the object's own class that answers this question: it asks the server, checks the answer,
and otherwise hands the question on, so that the calculation runs as it would have without us. Because it is a class and
not a patched method, whatever PySCF derives from the object (``density_fit()``, ``newton()``, ``as_scanner()``,
``copy()``, ``to_uks()``) stays sound.

The server is asked at every geometry: PySCF goes on from the last one's orbitals where an object has some, so they are
put aside when it is reset to another molecule, and come back only where there is no guess.

The guard (``tracegrad_client.guard``) judges a guess by its Fock matrix. The SCF builds this matrix anyway; the guard
builds it first and hands it on, so that a good guess costs nothing and a bad one exactly one Fock build, after which
the calculation starts from its own guess.
"""

from __future__ import annotations

import time
from typing import Any, Final, TypeVar, cast

import numpy as np
from pyscf import lib

from tracegrad_client.adapters.pyscf.calculation import is_periodic, obstacle, treatment
from tracegrad_client.adapters.pyscf.crystals import CrystalStart
from tracegrad_client.adapters.pyscf.density import judged_density
from tracegrad_client.adapters.pyscf.extrapolation import FIRST_CYCLE, LevelDIIS, may_replace, replacement
from tracegrad_client.adapters.pyscf.orbitals import GuessSource
from tracegrad_client.adapters.pyscf.report import GuessReport, announce
from tracegrad_client.adapters.pyscf.start import Start, State
from tracegrad_client.errors import TraceGradError
from tracegrad_client.guard import DEFAULT_THRESHOLD, PROJECTED_THRESHOLD, Potential, rms_commutator

MeanField = TypeVar("MeanField")


def attach(
    mf: MeanField,
    source: GuessSource,
    *,
    guard: bool = True,
    threshold: float | None = None,
    parents: bool = False,
) -> MeanField:
    """Make ``mf`` start from the server's guess at every geometry, and return it.

    Everything is checked when the SCF asks for its guess, so that ``mf`` may still be changed after this. What does not
    fit, an unreachable server included, is a TraceGradWarning and a line in PySCF's output; the calculation then starts
    as it would have without us. A density given to ``kernel(dm0=...)``, orbitals of the same geometry from an earlier run
    and a matrix in ``mf.init_guess`` go before ours. ``mf.tracegrad`` tells what happened, ``mf.tracegrad_reports`` what
    happened at each geometry; what PySCF derives from ``mf`` (a scanner, an optimiser's own copy) reports there too.

    Args:
        mf: a mean-field object (RKS, UKS, ROKS, GKS and their Hartree-Fock kin) of a molecule, or KRKS or KRHF of a crystal.
        source: what to ask for the guess, a Client as a rule.
        guard: judge the guess by its first Fock matrix and drop a bad one.
        threshold: RMS of the orthogonalised FDS - SDF, hartree, from which on a guess is bad; by default
            ``guard.DEFAULT_THRESHOLD``, in another basis than the model's ``guard.PROJECTED_THRESHOLD``.
        parents: let ions and open shells that the server does not know start from the closed shell's orbitals at their
            geometry. Off by default: cations, anions and triplets took as many cycles as by themselves.
    """
    if threshold is not None and not threshold > 0:
        raise ValueError(f"threshold is {threshold!r}; give a positive number (hartree).")
    if not hasattr(mf, "get_init_guess"):
        raise TypeError(f"A {type(mf).__name__} is no mean-field object; give an RKS or RHF object of PySCF.")
    state = State(source, guard, threshold, parents)
    reason = obstacle(mf, check_molecule=False)
    if reason is not None:
        refused: Any = mf
        refused.tracegrad = GuessReport(False, reason)
        announce(mf, refused.tracegrad)
        return mf
    # A second-order object iterates with the Fock matrices of the object inside it: the hand-over has to meet there.
    for target in _layers(mf):
        if not isinstance(target, TraceGradSCF):
            lib.set_class(target, (TraceGradSCF, target.__class__))
        target._tracegrad_state = state
    return mf


def detach(mf: MeanField) -> MeanField:
    """Undo :func:`attach`: ``mf`` itself, with its own class and its own guess again."""
    for target in _layers(mf):
        if isinstance(target, TraceGradSCF):
            target.__class__ = lib.drop_class(target.__class__, TraceGradSCF)
            for name in (
                "_tracegrad_state",
                "_tracegrad_fock",
                "_tracegrad_last",
                "_tracegrad_start",
                "_tracegrad_diis",
            ):
                target.__dict__.pop(name, None)
    return mf


class TraceGradSCF:
    """The class that :func:`attach` puts in front of a mean-field object's own; of no use alone."""

    __name_mixin__ = "TraceGrad"
    _keys: Final = {"tracegrad", "tracegrad_reports"}

    mol: Any
    init_guess: Any
    mo_coeff: Any
    _tracegrad_state: State
    _tracegrad_fock: Potential | None = None
    _tracegrad_last: Any = None  # the last geometry's density, where PySCF would have gone on from it
    _tracegrad_start: Start | CrystalStart | None = None  # what the running SCF started from
    _tracegrad_diis: LevelDIIS | None = None  # of the running SCF, if it is a crystal's

    @property
    def tracegrad(self) -> GuessReport:
        """What became of the last guess."""
        return self._tracegrad_state.reports[-1]

    @property
    def tracegrad_reports(self) -> tuple[GuessReport, ...]:
        """What became of each guess that was asked for, one a geometry, the last at the end."""
        return self._tracegrad_state.asked

    def get_init_guess(self, mol: Any = None, key: Any = "minao", **kwargs: Any) -> Any:
        """The starting density: the server's where it serves, otherwise what PySCF makes of ``key``."""
        own = cast(Any, super()).get_init_guess
        if key is not self.init_guess and (not isinstance(key, str) or key != self.init_guess):
            return own(mol, key, **kwargs)  # another guess was asked for by name
        if not isinstance(key, str):
            self._tracegrad_tell(GuessReport(False, "mf.init_guess is a density matrix, which goes before ours."))
            return own(mol, key, **kwargs)
        started = time.perf_counter()
        last, self._tracegrad_last, self._tracegrad_start = self._tracegrad_last, None, None
        try:
            report, dm = self._tracegrad_guess(self.mol if mol is None else mol, started)
        except Exception as error:  # whatever went wrong, the calculation must run as it would have without us
            self._tracegrad_fock = None
            told = str(error) if isinstance(error, TraceGradError) else f"{type(error).__name__}: {error}"
            report, dm = GuessReport(False, told, seconds=time.perf_counter() - started), None
        self._tracegrad_tell(report)
        if dm is not None:
            return dm
        return own(mol, key, **kwargs) if last is None else last

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

    def get_fock(
        self,
        h1e: Any = None,
        s1e: Any = None,
        vhf: Any = None,
        dm: Any = None,
        cycle: int = -1,
        diis: Any = None,
        diis_start_cycle: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """PySCF's own; a crystal that has started from the server's density is extrapolated from the first cycle on."""
        if isinstance(self._tracegrad_start, CrystalStart) and may_replace(self, diis):
            if cycle == FIRST_CYCLE or self._tracegrad_diis is None:
                self._tracegrad_diis = replacement(self)
            diis, diis_start_cycle = self._tracegrad_diis, FIRST_CYCLE
        own = cast(Any, super()).get_fock
        return own(h1e, s1e, vhf, dm, cycle, diis, diis_start_cycle, *args, **kwargs)

    def build(self, mol: Any = None) -> Any:
        """PySCF's own, which begins every run; a potential that was left over from before is dropped."""
        _layers(self)[-1]._tracegrad_fock = None
        return cast(Any, super()).build(mol)

    def reset(self, mol: Any = None) -> Any:
        """PySCF's own; the former geometry's potential is dropped, and its orbitals are put aside."""
        self._tracegrad_fock = None
        if mol is not None and obstacle(self, mol) is None:
            if self.mo_coeff is not None:
                # as PySCF's scanner does: another molecule is known by its number of functions
                same = np.array_equal(self.mol.ao_loc_nr(), mol.ao_loc_nr())
                self._tracegrad_last = cast(Any, self).make_rdm1() if same else None
            self.mo_coeff = None
        return cast(Any, super()).reset(mol)

    def to_gpu(self) -> Any:
        """PySCF's own, of the object without this class, which an object on a GPU knows nothing of; this is said."""
        reason = "to_gpu() leaves attach behind; give its kernel the density: dm0=client.density_matrix(mol)."
        self._tracegrad_tell(GuessReport(False, reason))
        return detach(cast(Any, self).copy()).to_gpu()

    def _finalize(self) -> Any:
        """PySCF's own, which ends every run; what the guess missed by is kept for the next geometry."""
        start, self._tracegrad_start, self._tracegrad_diis = self._tracegrad_start, None, None
        if start is not None and cast(Any, self).converged:
            start.learn(self)
        return cast(Any, super())._finalize()

    def __reduce_ex__(self, protocol: Any) -> Any:
        # A class made at run time cannot be found by name when a pickle is read; its parts can.
        bases = type(self).__bases__
        if bases[0] is not TraceGradSCF:
            return super().__reduce_ex__(protocol)
        return _restore, (bases[1],), cast(Any, self).__getstate__()

    def _tracegrad_tell(self, report: GuessReport) -> None:
        self._tracegrad_state.reports.append(report)
        announce(self, report)

    def _tracegrad_guess(self, mol: Any, started: float) -> tuple[GuessReport, Any]:
        """The report, and the density to start from, or None where it is not to be used."""
        state = self._tracegrad_state
        reason = obstacle(self, mol)
        if reason is not None:
            return GuessReport(False, reason), None
        start: Start | CrystalStart
        start = CrystalStart.ask(state.guesses, self, mol) if is_periodic(self) else Start.ask(state, self, mol)
        asked = time.perf_counter() - started
        if not state.guard:
            self._tracegrad_start = start
            return start.report(True, "not judged", None, asked), start.density
        rms = self._tracegrad_judge(mol, start.density)
        threshold = state.threshold
        if threshold is None:
            threshold = DEFAULT_THRESHOLD if start.projected_from is None else PROJECTED_THRESHOLD
        if rms < threshold:
            self._tracegrad_start = start
            return start.report(True, f"RMS of FDS - SDF is {rms:.1e} hartree", rms, asked), start.density
        self._tracegrad_discard()
        reason = f"too far off: RMS of FDS - SDF is {rms:.1e} hartree, useful is less than {threshold:.1e}"
        return start.report(False, reason, rms, time.perf_counter() - started), None

    def _tracegrad_judge(self, mol: Any, dm: Any) -> float:
        """RMS of the orthogonalised commutator, hartree; leaves the potential where ``get_veff`` finds it."""
        mf = cast(Any, self)
        worker = _layers(mf)[-1]
        fock = Potential(dm, worker.mol, getattr(worker, "xc", None))
        worker._tracegrad_fock = fock
        veff = worker.get_veff(mol, dm)
        s = worker.get_ovlp(mol)
        f = mf.get_fock(worker.get_hcore(mol), s, veff, dm)
        kind = treatment(mf)
        assert kind is not None  # obstacle() has refused everything else
        rms = rms_commutator(np.asarray(f), judged_density(kind, dm), s)
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
