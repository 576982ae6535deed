"""``client.evaluate``: PySCF's calculations convert by themselves, and what does not fit is told as what it is."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyscf import dft, gto

from tracegrad_client import AsyncClient, Client, Evaluation, InvalidInputError, TraceGradWarning, UnsupportedError
from tracegrad_client.adapters.pyscf.converged import of_chkfile

WATER = [("O", (0.0, 0.0, 0.119)), ("H", (0.0, 0.763, -0.477)), ("H", (0.0, -0.763, -0.477))]


def run(kind: Any = dft.RKS, **options: Any) -> Any:
    mf = kind(gto.M(atom=WATER, basis="def2-svp", verbose=0, **options), xc="b3lyp")
    mf.conv_tol = 1e-10
    mf.kernel()
    return mf


@pytest.fixture(scope="module")
def mf() -> Any:
    return run()


def test_a_calculation_says_everything_itself(live: Client, mf: Any) -> None:
    found = live.evaluate(mf)
    assert isinstance(found, Evaluation)
    h, _ = live.hamiltonian(mf.mol)
    assert found.errors["hamiltonian"] == pytest.approx(np.abs(h - mf.get_fock()).mean(), rel=1e-3)
    np.testing.assert_allclose(found.orbital_energies_given, mf.mo_energy, atol=1e-5)
    assert found.given["gap"] == pytest.approx(mf.mo_energy[5] - mf.mo_energy[4], abs=1e-5)
    assert found.predicted["gap"] == pytest.approx(live.orbital_energies(mf.mol).gap, abs=1e-5)
    assert found.overlap_error < 1e-6
    # the default model knows water: far better than H0, and a guess that is nearly converged
    assert found.reference_errors is not None
    assert found.errors["hamiltonian"] < found.reference_errors["hamiltonian"] / 5
    assert found.errors["density_exact_per_electron"] < 0.01
    assert not found.intruder
    assert found.warnings == ()
    assert len(repr(found)) < 160
    assert json.loads(json.dumps(found.as_dict()))["errors"] == found.errors
    lines = found.table().splitlines()
    assert lines[0] == "default, b3lyp/def2-svp"
    assert f"{found.errors['hamiltonian']:.6f}" in lines[2]


@pytest.mark.parametrize("kind", [dft.UKS, dft.ROKS])
def test_every_closed_shell_is_one(live: Client, mf: Any, kind: Any) -> None:
    found = live.evaluate(run(kind))
    assert found.errors == pytest.approx(live.evaluate(mf).errors, rel=2e-2, abs=2e-5)


def test_a_chkfile_says_as_much(live: Client, mf: Any) -> None:
    mol, fock, overlap, level = of_chkfile(mf.chkfile)
    found = live.evaluate(mol, fock=fock, overlap=overlap, **level)
    assert found.errors == pytest.approx(live.evaluate(mf).errors, rel=1e-2, abs=1e-5)
    with pytest.raises(InvalidInputError, match="no chkfile"):
        of_chkfile(__file__)


def test_arrays_are_taken_with_their_unit_and_by_the_other_client(live: Client, mf: Any) -> None:
    atoms = (mf.mol.atom_charges(), mf.mol.atom_coords(unit="Angstrom"))
    fock, overlap = mf.get_fock() * 27.211386245988, mf.get_ovlp()

    async def asked() -> Evaluation:
        async with AsyncClient(live.base_url) as client:
            return await client.evaluate(atoms, fock, overlap, energy_unit="eV")

    expected, found = live.evaluate(mf), asyncio.run(asked())
    assert found.errors["gap"] == pytest.approx(expected.errors["gap"] * 27.211386245988, abs=1e-6)
    assert found.errors["subspace"] == pytest.approx(expected.errors["subspace"], rel=1e-4)


def test_what_does_not_fit_is_told_as_what_it_is(live: Client, mf: Any) -> None:
    fock, overlap = mf.get_fock(), mf.get_ovlp()
    mixed = np.random.default_rng(1).permutation(len(fock))
    with pytest.raises(UnsupportedError, match="rotated"):
        live.evaluate(mf.mol, fock[np.ix_(mixed, mixed)], overlap[np.ix_(mixed, mixed)])
    with pytest.raises(UnsupportedError, match="ao_order"):
        live.evaluate(mf.mol, fock, overlap, ao_order="alphabetical")
    with pytest.raises(UnsupportedError, match="energy_unit"):
        live.evaluate(mf.mol, fock * 27.2114, overlap)
    for wrong in (np.ones(3), np.ones((2, 3)), "fock", np.full((2, 2), 1j)):
        with pytest.raises(InvalidInputError, match="fock"):
            live.evaluate(mf.mol, wrong)
    with pytest.raises(InvalidInputError, match="no Fock"):
        live.evaluate(mf.mol)


def test_a_calculation_that_is_none_is_refused_here(live: Client, tmp_path: Path) -> None:
    mol = gto.M(atom=WATER, basis="def2-svp", verbose=0)
    with pytest.raises(InvalidInputError, match="not run"):
        live.evaluate(mol.RKS())
    with pytest.raises(InvalidInputError, match="GKS"):
        live.evaluate(mol.GKS())
    short = mol.RKS(xc="b3lyp")
    short.max_cycle = 1
    short.kernel()
    with pytest.warns(TraceGradWarning, match="not converged"):
        live.evaluate(short)
    with pytest.raises(InvalidInputError, match="Cartesian"):
        live.evaluate(run(cart=True))
    with pytest.raises(InvalidInputError, match="closed shells"):
        live.evaluate(run(dft.UKS, spin=2))
