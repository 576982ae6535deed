"""A guess that was saved is the guess that was had, and nothing else is taken for one."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyscf import dft, gto

from tracegrad_client import Client, Guess, GuessMismatchError, InvalidAnswerError, InvalidInputError
from tracegrad_client.adapters.pyscf import other_basis
from tracegrad_client.structure import ao_labels

WATER = ([8, 1, 1], [[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]])


def assert_same(one: Guess, other: Guess) -> None:
    for field in fields(Guess):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b, err_msg=field.name)
        else:
            assert a == b, field.name


@pytest.mark.parametrize("suffix", ["npz", "json"])
def test_what_was_saved_is_loaded_to_the_last_digit(live: Client, tmp_path: Path, suffix: str) -> None:
    guess = live.guess(WATER, xc="pbe")
    assert guess.warnings
    path = tmp_path / f"guess.{suffix}"
    guess.save(path)
    assert_same(Guess.load(path), guess)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_document_is_json_and_back(live: Client) -> None:
    guess = live.guess(WATER)
    assert_same(Guess.from_dict(json.loads(json.dumps(guess.as_dict()))), guess)


@pytest.mark.parametrize("form", ["npz", "json", "safetensors"])
def test_what_the_server_writes_is_loaded_too(live: Client, tmp_path: Path, form: str) -> None:
    xyz = b"3\n\nO 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n"
    path = tmp_path / f"guess.{form}"
    path.write_bytes(live.guess_file("water.xyz", xyz, format_out=form).body)
    expected = live.guess(WATER)
    loaded = Guess.load(path)
    np.testing.assert_allclose(loaded.density_matrix, expected.density_matrix, atol=1e-9)
    assert (loaded.n_electrons, loaded.sha256) == (10, expected.sha256)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (tmp_path.joinpath("sprung").touch, ())

    np.savez(tmp_path / "trap.npz", density_matrix=np.array([Trap()], dtype=object), meta=np.zeros(2, dtype=np.uint8))
    np.savez(tmp_path / "whole.npz", meta=np.array(Trap(), dtype=object))
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Trap()))
    for name in ("trap.npz", "whole.npz", "bare.npz"):
        with pytest.raises(InvalidAnswerError, match="npz"):
            Guess.load(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_holds_something_else_is_refused(live: Client, tmp_path: Path) -> None:
    guess = live.guess(WATER)
    with pytest.raises(ValueError, match=r"\.npz, \.json"):
        guess.save(tmp_path / "guess.chk")
    with pytest.raises(ValueError, match="safetensors"):
        Guess.load(tmp_path / "guess.chk")
    document = guess.as_dict()
    for change, said in (
        ({"schema": "other"}, "tracegrad-guess"),
        ({"schema_version": 2}, "version"),
        ({"results": None}, "results"),
        ({"results": {**document["results"], "density_matrix": [[0.0]]}}, "density_matrix"),
        ({"meta": {**document["meta"], "energy_unit": "eV"}}, "hartree"),
        ({"meta": {**document["meta"], "n_electrons": None}}, "electrons"),
    ):
        with pytest.raises(InvalidAnswerError, match=said):
            Guess.from_dict({**document, **change})
    buffer = io.BytesIO()
    np.savez(buffer, fock=np.eye(2))
    (tmp_path / "other.npz").write_bytes(buffer.getvalue())
    with pytest.raises(InvalidAnswerError):
        Guess.load(tmp_path / "other.npz")


def test_representations_are_short_and_say_what_matters(live: Client) -> None:
    guess, energies = live.guess(WATER), live.orbital_energies(WATER, unit="eV")
    assert len(repr(guess)) < 160
    assert "b3lyp/def2-svp, 10 electrons in 24 orbitals, gap 0." in repr(guess)
    assert repr(energies).startswith("OrbitalEnergies(default, 24 orbitals, homo -")
    assert repr(energies).endswith(" eV)")
    assert guess.gap == pytest.approx(energies.gap / 27.211386245988, abs=1e-6)


@pytest.mark.parametrize("basis", ["cc-pvdz", "def2-tzvp", "6-31g*", "sto-3g"])
def test_a_projected_guess_is_a_density_in_the_moles_own_basis(live: Client, basis: str) -> None:
    mol = gto.M(atom=list(zip(*WATER, strict=True)), basis=basis, cart=basis == "6-31g*", verbose=0)
    guess = live.guess(mol, project=True)
    overlap = mol.intor_symmetric("int1e_ovlp")
    density = guess.density_matrix
    np.testing.assert_allclose(density @ overlap @ density, 2 * density, atol=1e-8)
    assert np.trace(density @ overlap) == pytest.approx(10, abs=1e-8)
    assert (guess.basis, guess.projected_from) == (basis, "def2-svp")
    assert guess.ao_labels == ao_labels(mol)
    assert "projected from def2-svp" in repr(guess)
    orbitals = guess.mo_coeff
    np.testing.assert_allclose(orbitals.T @ overlap @ orbitals, np.eye(mol.nao), atol=1e-8)
    assert guess.gap > 0
    if basis == "cc-pvdz":
        mf = dft.RKS(mol, xc="b3lyp")
        energy = mf.energy_tot(dm=density)
        assert energy - mf.kernel() < 4e-4  # hartree; of projected orbitals 1.3e-3, and minao's is 0.9 above
        with pytest.raises(GuessMismatchError):
            live.guess(mol)


def test_without_atomic_potentials_the_occupied_orbitals_are_projected(live: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr(other_basis, "POTENTIALS", "none that this PySCF knows")
    mol = gto.M(atom=list(zip(*WATER, strict=True)), basis="cc-pvdz", verbose=0)
    own, guess = live.guess(WATER), live.guess(mol, project=True)
    assert guess.mo_coeff.shape == (mol.nao, 5)
    np.testing.assert_allclose(guess.mo_energy, own.mo_energy[:5])
    assert (guess.lumo, guess.gap) == (None, None)
    overlap = mol.intor_symmetric("int1e_ovlp")
    assert np.trace(guess.density_matrix @ overlap) == pytest.approx(10, abs=1e-8)


def test_projection_is_for_moles_and_leaves_the_models_basis_alone(live: Client) -> None:
    mol = gto.M(atom=list(zip(*WATER, strict=True)), basis="def2-svp", verbose=0)
    guess = live.guess(mol, project=True)
    assert guess.projected_from is None
    np.testing.assert_allclose(guess.density_matrix, live.guess(mol).density_matrix, atol=1e-9)
    with pytest.raises(InvalidInputError, match="Mole"):
        live.guess(WATER, project=True)
    with pytest.raises(InvalidInputError, match="charge 1"):
        live.guess(mol, project=True, charge=1)
    with pytest.raises(InvalidInputError, match="effective core"):
        live.guess(gto.M(atom="I 0 0 0; H 0 0 1.6", basis="def2-svp", ecp="def2-svp", verbose=0), project=True)
