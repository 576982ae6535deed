"""Laws of an attached calculation in k: the same energy as without us, never a failure of ours, and an honest record."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pyscf.pbc import dft, gto, scf
from pyscf.pbc.scf.addons import smearing_
from pyscf.scf.diis import CDIIS, EDIIS

from tracegrad_client import Client, CrystalGuess, Guess, GuessMismatchError, InvalidAnswerError, TraceGradWarning
from tracegrad_client.adapters.pyscf import TraceGradSCF, attach, detach, extrapolation, structure_of_cell
from tracegrad_client.adapters.pyscf.extrapolation import LEAST_DIFFERENCE_HARTREE, LevelDIIS
from tracegrad_client.crystal_guess import read_crystal_guess
from tracegrad_client.wire import Tensors

ENERGY_TOLERANCE = 1e-7
SMEARING_HARTREE = 1e-2


def cell_of(stretch: float = 0.0, basis: str = "gth-szv") -> Any:
    """A chain of hydrogen molecules, off the axis."""
    atoms = [("H", (0.0, 0.1, 0.0)), ("H1", (0.8 + stretch, 0.3, 0.2))]
    lattice = np.diag([2.4, 4.0, 4.0])
    return gto.M(a=lattice, atom=atoms, basis=basis, pseudo="gth-lda", unit="Angstrom", ke_cutoff=25, verbose=0)


def krks(cell: Any = None) -> Any:
    cell = cell or cell_of()
    mf = dft.KRKS(cell, cell.make_kpts([3, 1, 1]), xc="lda,vwn")
    mf.conv_tol = 1e-9
    return mf


class Oracle:
    """Gives the converged orbitals of one calculation, mixed up by ``noise``, and keeps what it was asked."""

    def __init__(self, mf: Any, noise: float = 0.0) -> None:
        self.mf, self.noise, self.asked = mf, noise, []  # type: ignore[var-annotated]

    def guess(self, molecule: Any, /, **_: Any) -> Guess:
        raise AssertionError("a crystal came")

    def crystal_guess(
        self, crystal: Any, *, kpts: Sequence[Sequence[float]], xc: str | None, basis: str | None
    ) -> CrystalGuess:
        self.asked.append((crystal, np.array(kpts), xc, basis))
        mf, rng = self.mf, np.random.default_rng(3)
        c = np.array(mf.mo_coeff, dtype=np.complex128)
        n = c.shape[2]
        turned = np.stack([np.linalg.qr(np.eye(n) + self.noise * rng.normal(size=(n, n)))[0] for _ in c])
        c = c @ turned
        occupations = np.array(mf.mo_occ)
        density = (c * occupations[:, None, :]) @ c.conj().swapaxes(1, 2)
        energies = np.array(mf.mo_energy)
        told = ("lda,vwn", "gth-szv", "oracle", "1")
        return CrystalGuess(np.array(kpts), density, c, occupations, energies, 0.0, *told, 2, True)


@pytest.fixture(scope="module")
def own() -> Any:
    mf = krks()
    mf.kernel()
    assert mf.converged
    return mf


def test_a_perfect_guess_leaves_nothing_to_do(own: Any) -> None:
    oracle = Oracle(own)
    ours = attach(krks(), oracle)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TraceGradWarning)
        energy = ours.kernel()
    assert energy == pytest.approx(own.e_tot, abs=ENERGY_TOLERANCE)
    assert ours.converged
    assert ours.cycles <= 3 < own.cycles
    report = ours.tracegrad
    assert report.used
    assert report.rms_commutator < 1e-4
    assert "oracle 1 at 3 k-points" in report.reason
    ((crystal, kpts, xc, basis),) = oracle.asked
    assert (xc, basis) == ("lda,vwn", "gth-szv")
    assert crystal.numbers.tolist() == [1, 1]
    assert np.allclose(crystal.cell_angstrom, np.diag([2.4, 4.0, 4.0]), atol=1e-9)
    assert np.allclose(crystal.positions_angstrom[1], (0.8, 0.3, 0.2), atol=1e-9)
    assert np.allclose(kpts[:, 0] % 1.0, [0, 1 / 3, 2 / 3])


def test_a_bad_guess_is_left_and_the_calculation_is_as_without_us(own: Any) -> None:
    ours = attach(krks(), Oracle(own, noise=3.0))
    with pytest.warns(TraceGradWarning, match="too far off"):
        energy = ours.kernel()
    assert energy == pytest.approx(own.e_tot, abs=1e-10)
    assert ours.cycles == own.cycles
    assert not ours.tracegrad.used


@pytest.fixture
def extrapolated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often Fock matrices were extrapolated by ours; emptied by the test."""
    found: list[int] = []
    update = LevelDIIS.update

    def noted(self: LevelDIIS, *args: Any, **kwargs: Any) -> Any:
        found.append(len(found))
        return update(self, *args, **kwargs)

    monkeypatch.setattr(LevelDIIS, "update", noted)
    return found


@pytest.mark.filterwarnings("ignore::tracegrad_client.TraceGradWarning")
def test_a_crystal_that_starts_from_us_is_extrapolated_from_the_first_cycle(own: Any, extrapolated: list[int]) -> None:
    ours = attach(krks(), Oracle(own, noise=0.02))
    assert ours.kernel() == pytest.approx(own.e_tot, abs=ENERGY_TOLERANCE)
    assert len(extrapolated) == ours.cycles
    assert ours.cycles < own.cycles
    extrapolated.clear()
    ours.kernel(dm0=own.make_rdm1())  # a density of the caller's: PySCF's own way
    attach(krks(), Oracle(own, noise=3.0), threshold=1e-3).run()
    assert not extrapolated


@pytest.mark.parametrize(
    "chosen",
    [{"diis": False}, {"DIIS": EDIIS}, {"diis_start_cycle": 2}, {"diis_damp": 0.3}, {"diis": CDIIS()}],
    ids=["none", "another", "later", "damped", "an object"],
)
@pytest.mark.filterwarnings("ignore::tracegrad_client.TraceGradWarning")
def test_who_has_chosen_how_to_extrapolate_keeps_it(own: Any, extrapolated: list[int], chosen: dict[str, Any]) -> None:
    ours = attach(krks(), Oracle(own, noise=0.02))
    for name, value in chosen.items():
        setattr(ours, name, value)
    ours.kernel()
    assert ours.tracegrad.used
    assert not extrapolated


def test_the_error_is_the_commutator_over_the_distance_of_levels(own: Any) -> None:
    """Oracle: to first order the density's change, D_pq = F_pq (f_q - f_p) / (e_q - e_p), of a Fock matrix a little off."""
    overlap, density, fock = own.get_ovlp(), own.make_rdm1(), own.get_fock()
    n = fock.shape[1]
    other = np.random.default_rng(5).normal(size=(n, n))
    wrong = fock + 1e-5 * (other + other.T)
    diis = LevelDIIS(own)
    diis.update(overlap, density, wrong, own)
    stored = np.asarray(diis.get_err_vec(0)).reshape(len(fock), n, n)
    for energies, c, off, error in zip(own.mo_energy, own.mo_coeff, wrong - fock, stored, strict=True):
        full = own.mol.nelectron // 2
        mixed = np.abs(c.conj().T @ off @ c)[full:, :full]
        expected = 2 * mixed / (energies[full:, None] - energies[:full] + LEAST_DIFFERENCE_HARTREE)
        assert np.allclose(np.abs(error[full:, :full]), expected, rtol=1e-2, atol=1e-9)


def test_the_first_steps_are_held_back_by_what_the_density_says(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it keeps the density to first order, a share of it moves it less, and after two cycles it moves as it would."""
    fock, overlap, density = own.get_fock(), own.get_ovlp(), own.make_rdm1()
    other = np.random.default_rng(6).normal(size=fock.shape[1:])
    wrong = fock + 1e-3 * (other + other.T)

    def moved(matrices: Any) -> float:
        energies, orbitals = own.eig(matrices, overlap)
        return float(np.abs(own.make_rdm1(orbitals, own.get_occ(energies, orbitals)) - density).max())

    plain, held = moved(wrong), LevelDIIS(own)
    steps = [moved(held.update(overlap, density, wrong, own)) for _ in range(3)]
    assert steps[0] < 0.9 * plain
    assert steps[2] == pytest.approx(plain, rel=1e-6)
    monkeypatch.setattr(extrapolation, "SCREENING_HARTREE", 1e9)
    assert moved(LevelDIIS(own).update(overlap, density, wrong, own)) < 0.02 * plain


def test_levels_are_filled_by_the_calculation_s_own_rule(own: Any) -> None:
    reference = smearing_(krks(), sigma=SMEARING_HARTREE, method="fermi")
    energy = reference.kernel()
    ours = attach(smearing_(krks(), sigma=SMEARING_HARTREE, method="fermi"), Oracle(reference))
    start = ours.get_init_guess(ours.cell, ours.init_guess)
    assert np.abs(start - reference.make_rdm1()).max() < 1e-6
    assert ours.kernel() == pytest.approx(energy, abs=ENERGY_TOLERANCE)
    assert ours.cycles < reference.cycles


@pytest.mark.parametrize("make", [dft.KUKS, scf.KROHF, dft.RKS])
def test_other_treatments_run_as_they_would_without_us(own: Any, make: Any) -> None:
    with pytest.warns(TraceGradWarning, match="supported are KRKS and KRHF"):
        mf = attach(make(cell_of()), Oracle(own))
    assert not mf.tracegrad.used
    assert not isinstance(mf, TraceGradSCF)


def test_symmetry_of_k_points_is_refused_by_name(own: Any) -> None:
    cell = cell_of()
    cell.space_group_symmetry = True
    cell.build(False, False)
    points = cell.make_kpts([3, 1, 1], time_reversal_symmetry=True)
    with pytest.warns(TraceGradWarning, match="without symmetry of k-points"):
        attach(dft.KRKS(cell, points), Oracle(own))


def test_another_basis_is_found_out_by_its_overlap(own: Any) -> None:
    ours = attach(krks(cell_of(basis="gth-dzv")), Oracle(own))
    with pytest.warns(TraceGradWarning, match="gth-szv"):
        start = ours.get_init_guess(ours.cell, ours.init_guess)
    assert start.shape[1] == ours.cell.nao
    assert not ours.tracegrad.used
    guess = Oracle(own).crystal_guess(None, kpts=[[0, 0, 0]] * 3, xc=None, basis=None)
    overlap = np.array(own.get_ovlp())
    assert np.abs(guess.orbitals_in(overlap, 2) - guess.mo_coeff_kpts).max() < 1e-8
    with pytest.raises(GuessMismatchError, match="not orthonormal"):
        guess.orbitals_in(overlap + 0.1 * np.eye(2), 2)
    with pytest.raises(GuessMismatchError, match="electrons"):
        guess.orbitals_in(overlap, 4)
    with pytest.raises(GuessMismatchError, match="shape"):
        guess.orbitals_in(overlap[:1], 2)


def test_what_a_cutoff_leaves_out_of_high_orbitals_does_not_change_the_density(own: Any) -> None:
    guess = Oracle(own).crystal_guess(None, kpts=[[0, 0, 0]] * 3, xc=None, basis=None)
    overlap, c = np.array(own.get_ovlp()), guess.mo_coeff_kpts
    # S is off by as much as makes the empty orbital's norm 1.1, and its overlap with the occupied one 0.03
    change = np.array([[0.0, 0.03], [0.03, 0.1]])
    inverse = np.linalg.inv(c)
    caller = overlap + inverse.conj().swapaxes(1, 2) @ change @ inverse
    made = guess.orbitals_in(caller, 2)
    assert np.abs(made.conj().swapaxes(1, 2) @ caller @ made - np.eye(2)).max() < 1e-10
    assert np.abs(made[:, :, 0] - c[:, :, 0]).max() < 1e-10
    with pytest.raises(GuessMismatchError, match="not orthonormal"):
        guess.orbitals_in(overlap + inverse.conj().swapaxes(1, 2) @ np.diag([0.02, 0.0]) @ inverse, 2)


def test_the_server_is_asked_at_every_geometry(own: Any) -> None:
    oracle = Oracle(own)
    mf = attach(krks(), oracle)
    mf.kernel()
    moved = cell_of(0.02)
    there = krks(moved)
    there.kernel()
    oracle.mf = there
    mf.reset(moved)
    assert mf.kernel() == pytest.approx(there.e_tot, abs=ENERGY_TOLERANCE)
    assert mf.cycles < there.cycles
    assert [round(float(crystal.positions_angstrom[1, 0]), 6) for crystal, *_ in oracle.asked] == [0.8, 0.82]
    assert len(mf.tracegrad_reports) == 2


def test_a_dead_server_costs_a_warning(own: Any) -> None:
    mf = Client("http://127.0.0.1:9", timeout=2).attach(krks())
    with pytest.warns(TraceGradWarning, match="own guess"):
        energy = mf.kernel()
    assert energy == pytest.approx(own.e_tot, abs=1e-10)
    assert not isinstance(detach(mf), TraceGradSCF)


def test_ghosts_and_molecules_are_no_crystals() -> None:
    atoms = [("H", (0, 0, 0)), ("ghost-H", (0, 0, 1))]
    cell = gto.M(a=np.eye(3) * 4, atom=atoms, basis="gth-szv", pseudo="gth-lda", verbose=0, spin=1)
    with pytest.raises(Exception, match="ghost"):
        structure_of_cell(cell)


def good_answer() -> tuple[dict[str, Any], dict[str, Any]]:
    c = np.zeros((1, 2, 2, 2))
    c[0, :, :, 0] = np.eye(2)
    density = np.zeros((1, 2, 2, 2))
    density[0, 0, 0, 0] = 2.0
    arrays = {
        "kpts": np.zeros((1, 3)),
        "dm_kpts": density,
        "mo_coeff_kpts": c,
        "mo_occ_kpts": np.array([[2.0, 0.0]]),
        "mo_energy_kpts": np.array([[-0.5, 0.5]]),
    }
    about = {"ao_order": "pyscf", "energy_unit": "hartree", "ao_labels": ["0 H s1", "0 H s2"], "n_electrons": 2}
    return arrays, {"meta": about, "results": {"fermi_energy": 0.0}, "checks": {"in_domain": True}, "warnings": ["w"]}


def test_a_sound_answer_is_read() -> None:
    guess = read_crystal_guess(Tensors(*good_answer()), 0.5)
    assert (guess.n_electrons, guess.in_domain, guess.warnings, guess.seconds) == (2, True, ("w",), 0.5)
    assert guess.dm_kpts.dtype == np.complex128
    assert replace(guess, seconds=1.0).fermi_energy == 0.0


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("kpts", None, "kpts"),
        ("mo_coeff_kpts", np.zeros((1, 2, 2)), "mo_coeff_kpts"),
        ("dm_kpts", np.zeros((1, 2, 2, 2)), "not that of its own orbitals"),
        ("dm_kpts", np.full((1, 2, 2, 2), np.nan), "not finite"),
        ("mo_occ_kpts", np.array([[1.0, 0.0]]), "not that of its own"),
        ("mo_energy_kpts", np.zeros((2, 2)), "mo_energy_kpts"),
        ("ao_order", "e3nn", "order"),
        ("n_electrons", 3, "electrons a cell"),
        ("fermi_energy", None, "Fermi"),
    ],
)
def test_an_answer_that_breaks_a_law_is_refused(name: str, value: Any, reason: str) -> None:
    arrays, document = good_answer()
    for place in (arrays, document["meta"], document["results"]):
        if name in place:
            place[name] = value
            if value is None and place is arrays:
                del place[name]
    with pytest.raises(InvalidAnswerError, match=reason):
        read_crystal_guess(Tensors(arrays, document), 0.0)
