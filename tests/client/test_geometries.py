"""An attached object asks at every geometry, learns from those that converged, and never does worse for it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from pyscf import dft, gto, md
from pyscf.pbc.tools.pyscf_ase import PySCF

from tracegrad_client import Client, TraceGradWarning
from tracegrad_client.adapters.pyscf.history import MOST_GEOMETRIES, ErrorHistory

ENERGY_TOLERANCE = 1e-8


@pytest.fixture
def client(server: Any) -> Client:
    return Client(server.url, timeout=30)


def rks(mol: Any) -> Any:
    mf = dft.RKS(mol, xc="b3lyp")
    mf.grids.level = 1
    return mf


def stretched(mol: Any, factor: float) -> Any:
    return mol.set_geom_(mol.atom_coords() * factor, unit="Bohr", inplace=False)


def cycles_of(scanner: Any, mols: list[Any]) -> tuple[list[int], list[float]]:
    cycles, energies = [], []
    for mol in mols:
        energies.append(float(scanner(mol)))
        cycles.append(int(scanner.cycles))
    return cycles, energies


def test_a_scanner_asks_at_every_geometry_and_reports_each(water: Any, server: Any, client: Client) -> None:
    mols = [stretched(water, factor) for factor in (1.0, 1.03, 1.06)]
    mf = client.attach(rks(water))
    own, expected = cycles_of(rks(water).as_scanner(), mols)
    ours, energies = cycles_of(mf.as_scanner(), mols)
    np.testing.assert_allclose(energies, expected, atol=ENERGY_TOLERANCE)
    assert len(server.seen) == 3
    assert sum(ours) <= sum(own) - 9
    assert [report.used for report in mf.tracegrad_reports] == [True] * 3  # the scanner is PySCF's copy of mf
    assert mf.tracegrad is mf.tracegrad_reports[-1]
    assert [report.learned_from for report in mf.tracegrad_reports] == [0, 1, 2]


def test_a_model_in_error_is_corrected_by_the_geometries_before(water: Any, server: Any, client: Client) -> None:
    server.noise = 0.003  # the same error at every geometry
    mols = [stretched(water, factor) for factor in (1.0, 1.0003, 1.0006)]
    mf = client.attach(rks(water))
    cycles, _ = cycles_of(mf.as_scanner(), mols)
    first, *rest = (report.rms_commutator for report in mf.tracegrad_reports)
    assert max(rest) < 0.05 * first
    assert max(cycles[1:]) <= cycles[0] - 2


def test_reset_and_kernel_is_a_new_geometry_too(water: Any, server: Any, client: Client) -> None:
    mf = client.attach(rks(water))
    mf.kernel()
    moved = stretched(water, 1.03)
    assert abs(mf.reset(moved).kernel() - rks(moved).kernel()) < ENERGY_TOLERANCE
    assert len(server.seen) == 2
    assert mf.tracegrad.used


@pytest.mark.parametrize("fault", ["no answer", "far off"])
def test_without_a_guess_the_last_density_serves_as_it_always_did(
    water: Any, server: Any, client: Client, fault: str
) -> None:
    mols = [stretched(water, factor) for factor in (1.0, 1.01)]
    own = rks(water).as_scanner()
    ours = client.attach(rks(water)).as_scanner()
    ours(mols[0])
    own(mols[0])
    if fault == "no answer":
        server.fault = lambda _: (500, {}, b"")
    else:
        ours._tracegrad_state.history = ErrorHistory()
        server.noise = 0.3
    with pytest.warns(TraceGradWarning, match="own guess"):
        energy = ours(mols[1])
    assert energy == pytest.approx(own(mols[1]), abs=ENERGY_TOLERANCE)
    assert abs(ours.cycles - own.cycles) <= 1  # the two runs' last densities differ by their convergence


def test_another_molecule_is_not_taken_for_a_geometry(water: Any, client: Client) -> None:
    other = gto.M(atom="H 0 0 0; F 0 0 0.95", basis="def2-svp", verbose=0)
    scanner = client.attach(rks(water)).as_scanner()
    scanner(water)
    assert abs(scanner(other) - rks(other).kernel()) < ENERGY_TOLERANCE
    assert scanner.tracegrad.learned_from == 0


def test_unrestricted_scans_learn_for_each_spin(water: Any, client: Client) -> None:
    cation = gto.M(atom=water.atom, basis="def2-svp", charge=1, spin=1, verbose=0)
    mols = [stretched(cation, factor) for factor in (1.0, 1.0005, 1.001)]
    mf = client.attach(dft.UKS(cation, xc="b3lyp"), threshold=1.0, parents=True)
    own, expected = cycles_of(dft.UKS(cation, xc="b3lyp").as_scanner(), mols)
    ours, energies = cycles_of(mf.as_scanner(), mols)
    np.testing.assert_allclose(energies, expected, atol=ENERGY_TOLERANCE)
    assert mf.tracegrad.parent is not None
    assert mf.tracegrad.learned_from == 2
    assert ours[-1] < own[-1]


def test_gradients_dynamics_and_ase_ask_at_every_geometry(water: Any, server: Any, client: Client) -> None:
    mf = client.attach(rks(water))
    scanner = mf.nuc_grad_method().as_scanner()
    for factor in (1.0, 1.02):
        scanner(stretched(water, factor))
    assert len(mf.tracegrad_reports) == 2
    mf = client.attach(rks(water))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        dynamics = md.NVE(mf, dt=10, steps=3)
        dynamics.verbose = 0
        dynamics.kernel()
    assert [report.used for report in mf.tracegrad_reports] == [True] * 3
    from ase import Atoms

    mf = client.attach(rks(water))
    atoms = Atoms(numbers=water.atom_charges(), positions=water.atom_coords(unit="Angstrom"))
    atoms.calc = PySCF(method=mf)
    for _ in range(2):
        atoms.get_forces()
        atoms.positions *= 1.01
    assert [report.used for report in mf.tracegrad_reports] == [True] * 2


def test_an_optimiser_asks_at_every_geometry(water: Any, client: Client) -> None:
    solver = pytest.importorskip("pyscf.geomopt.geometric_solver", reason="geomeTRIC is not installed")
    mf = client.attach(rks(water))
    solver.optimize(mf, maxsteps=3)
    assert len(mf.tracegrad_reports) >= 2
    assert all(report.used for report in mf.tracegrad_reports)


# -- the history by itself ------------------------------------------------------------------------------------------------


def overlaps(n: int) -> list[Any]:
    rng = np.random.default_rng(3)
    step = rng.normal(size=(5, 5)) * 0.003
    return [np.eye(5) + k * (step + step.T) for k in range(n)]


def test_a_known_geometrys_error_comes_back_and_a_far_ones_is_zero() -> None:
    history = ErrorHistory()
    assert history.estimate("a", np.eye(5), 2) is None
    error = np.random.default_rng(0).normal(size=(1, 5, 5))
    history.record("a", np.eye(5), error)
    found = history.estimate("a", np.eye(5), 2)
    assert found is not None
    np.testing.assert_allclose(found, error, rtol=1e-4)
    far = history.estimate("a", np.eye(5) + 3.0, 2)
    assert far is not None
    assert np.abs(far).max() < 1e-12
    assert history.estimate("b", np.eye(5), 2) is None


def test_an_error_that_changes_linearly_is_followed() -> None:
    history, along = ErrorHistory(), overlaps(5)
    slope = np.random.default_rng(1).normal(size=(1, 5, 5))
    for k in range(4):
        history.record("a", along[k], (1.0 + 0.1 * k) * slope)
    found = history.estimate("a", along[4], 2)
    assert found is not None
    assert np.abs(found - 1.4 * slope).max() < 0.03 * np.abs(slope).max()  # the last one's error would miss by 0.1


def test_only_the_last_geometries_of_one_subject_are_kept() -> None:
    history = ErrorHistory()
    for _ in range(MOST_GEOMETRIES + 3):
        history.record("a", np.eye(2), np.zeros((1, 2, 2)))
    assert len(history) == MOST_GEOMETRIES
    history.record("b", np.eye(2), np.zeros((1, 2, 2)))
    assert len(history) == 1
