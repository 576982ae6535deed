"""The label of a geometry: converged restricted Kohn-Sham Fock matrix, exact integrals, PySCF's AO order.

exact       F[D] of a plain SCF from minao on the wanted grid, orbital gradient under 1e-6 hartree.
corrected   the same Fock matrix to second order in the grid's error, for half the time: converge on grid 1 to D1; add
            dV = Vxc[D1] on the wanted grid less Vxc[D1] on grid 1 to the core Hamiltonian; converge again.
            What is left is (K - K1)(D - D1), K the exchange-correlation kernels: 6e-7 hartree at most where it was
            measured. E = E1[D] + Exc[D1] - Exc1[D1] + tr dV (D - D1).

SCF cycles from minao are counted at PySCF's default thresholds, in the very run that makes the label: for "corrected"
that is a run on grid 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from pyscf import dft

from model.integrals.pyscf_molecule import build_mole
from model.structure import Structure
from training.generate.recipe import LabelConfig

Matrix = NDArray[np.float64]

DEFAULT_CONV_TOL: Final = 1e-9
DEFAULT_CONV_TOL_GRAD: Final = float(np.sqrt(DEFAULT_CONV_TOL))
"""PySCF's own thresholds, hartree: what cycles are counted at."""

CONV_TOL: Final = 1e-10
CONV_TOL_GRAD: Final = 1e-6
"""Thresholds of a label, hartree."""

START_GRID_LEVEL: Final = 1
MAX_CYCLES: Final = 100
CACHE_BYTES: Final = 2**30


class LabelError(Exception):
    """A geometry that has no label worth keeping; says why."""


@dataclass(frozen=True)
class Label:
    """What is stored of a geometry.

    Attributes:
        fock: (ao, ao), hartree.
        energy: hartree.
        cycles_minao: SCF cycles from minao at PySCF's default thresholds.
        gap: HOMO-LUMO gap of the Fock matrix, hartree.
        gradient: norm of the orbital gradient 2 C_v^T F C_o, hartree.
    """

    fock: Matrix
    energy: float
    cycles_minao: int
    gap: float
    gradient: float


class CachedNumInt(dft.numint.NumInt):  # type: ignore[misc]  # PySCF is untyped
    """Integrator that keeps the AO values on one grid between SCF cycles (they are a third of a cycle)."""

    def __init__(self) -> None:
        super().__init__()
        self._blocks: dict[tuple[int, int], list[tuple[Any, ...]]] = {}

    def block_loop(
        self, mol: Any, grids: Any, nao: int | None = None, deriv: int = 0, *args: Any, **kwargs: Any
    ) -> Iterator[tuple[Any, ...]]:
        """As PySCF's; the second pass over the same grid reads from memory, if a first one fits there."""
        if grids.coords is None:
            grids.build(with_non0tab=True)
        components = (deriv + 1) * (deriv + 2) * (deriv + 3) // 6
        key = (id(grids), deriv)
        if key not in self._blocks and 8 * components * len(grids.weights) * mol.nao > CACHE_BYTES:
            yield from super().block_loop(mol, grids, nao, deriv, *args, **kwargs)
            return
        if key not in self._blocks:
            # PySCF reuses its buffers, so a kept block must be a copy; order "K" keeps the layout its kernels expect
            self._blocks[key] = [
                tuple(None if part is None else np.array(part, order="K") for part in block)
                for block in super().block_loop(mol, grids, nao, deriv, *args, **kwargs)
            ]
        yield from self._blocks[key]


def make_label(structure: Structure, config: LabelConfig) -> Label:
    """Label a geometry.

    Raises:
        LabelError: an open shell, not converged, or the gap is too small.
    """
    if structure.multiplicity != 1:
        raise LabelError(
            f"multiplicity {structure.multiplicity}: labels are made with restricted Kohn-Sham, of closed shells only"
        )
    mole = build_mole(structure, config.basis)
    made = _exact(mole, config) if config.method == "exact" else _corrected(mole, config)
    if made.gap < config.minimum_gap:
        raise LabelError(f"the gap is {made.gap:.4f} hartree, under {config.minimum_gap}")
    return made


def check_label(structure: Structure, label: Label, config: LabelConfig) -> float:
    """Recompute a label with stock PySCF.

    Returns:
        largest difference of a Fock element, hartree.

    Raises:
        LabelError: it is over the tolerance.
    """
    stock = _exact(build_mole(structure, config.basis), config)
    difference = float(np.abs(stock.fock - label.fock).max())
    if not difference <= config.check_tolerance:
        raise LabelError(
            f"stock PySCF gives a Fock matrix that differs by {difference:.1e} hartree, over {config.check_tolerance}"
        )
    return difference


class _CycleCounter:
    """SCF callback: the first cycle that meets PySCF's default thresholds."""

    def __init__(self) -> None:
        self.cycles: int | None = None

    def __call__(self, state: dict[str, Any]) -> None:
        settled = abs(state["e_tot"] - state["last_hf_e"]) < DEFAULT_CONV_TOL
        if self.cycles is None and settled and state["norm_gorb"] < DEFAULT_CONV_TOL_GRAD:
            self.cycles = int(state["cycle"]) + 1


def _solver(mole: Any, config: LabelConfig, grid_level: int) -> Any:
    mf = dft.RKS(mole, xc=config.xc)
    mf.grids.level = grid_level
    mf.max_cycle = MAX_CYCLES
    mf.chkfile = None  # no temporary files
    mf.conv_check = False  # keep the density whose gradient was tested, not one diagonalisation later
    mf.verbose = 0
    return mf


def _exact(mole: Any, config: LabelConfig) -> Label:
    mf = _solver(mole, config, config.grid_level)
    counter = _CycleCounter()
    mf.callback = counter
    mf.conv_tol, mf.conv_tol_grad = CONV_TOL, CONV_TOL_GRAD
    energy = mf.kernel()
    return _result(mf, mf.get_hcore(), energy, counter.cycles)


def _corrected(mole: Any, config: LabelConfig) -> Label:
    mf = _solver(mole, config, min(START_GRID_LEVEL, config.grid_level))
    mf._numint = CachedNumInt()
    counter = _CycleCounter()
    mf.callback = counter
    mf.conv_tol, mf.conv_tol_grad = DEFAULT_CONV_TOL, DEFAULT_CONV_TOL_GRAD
    mf.kernel()
    if not mf.converged:
        raise LabelError(f"the SCF did not converge in {MAX_CYCLES} cycles")
    start = mf.make_rdm1()
    grid = dft.gen_grid.Grids(mole)
    grid.level = config.grid_level
    _, exc, vxc = dft.numint.NumInt().nr_rks(mole, grid, config.xc, start)
    _, start_exc, start_vxc = mf._numint.nr_rks(mole, mf.grids, config.xc, start)
    correction = vxc - start_vxc
    hamiltonian = mf.get_hcore() + correction
    mf.get_hcore = lambda *_: hamiltonian
    mf.callback = None
    mf.conv_tol, mf.conv_tol_grad = CONV_TOL, CONV_TOL_GRAD
    energy = mf.kernel(dm0=start)
    constant = exc - start_exc - float(np.einsum("ij,ji", correction, start))
    return _result(mf, hamiltonian, energy + constant, counter.cycles)


def _result(mf: Any, hamiltonian: Matrix, energy: float, cycles: int | None) -> Label:
    if not mf.converged or cycles is None:
        raise LabelError(f"the SCF did not converge in {MAX_CYCLES} cycles")
    fock = hamiltonian + np.asarray(mf.get_veff(mf.mol, mf.make_rdm1()))
    fock = 0.5 * (fock + fock.T)
    gradient = float(np.linalg.norm(mf.get_grad(mf.mo_coeff, mf.mo_occ, fock)))
    energies = scipy.linalg.eigh(fock, mf.get_ovlp(), eigvals_only=True)
    n_occupied = mf.mol.nelectron // 2
    gap = float(energies[n_occupied] - energies[n_occupied - 1])
    return Label(fock, float(energy), cycles, gap, gradient)
