"""Laws of the client: what it returns is PySCF's own numbers, for every way to name a molecule, or a refusal."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from pyscf import dft, gto

from tracegrad_client import Client, GuessMismatchError, InvalidAnswerError, InvalidInputError
from tracegrad_client.ask import Ask
from tracegrad_client.structure import as_molecule

EV = 27.211386245988  # CODATA 2018
NUMBERS = [8, 1, 1]
POSITIONS = [[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]]


@pytest.fixture
def client(server: Any) -> Client:
    return Client(server.url, timeout=30)


@pytest.fixture
def reference(water: Any) -> Any:
    mf = dft.RKS(water, xc="b3lyp")
    mf.kernel()
    return mf


def test_the_density_starts_a_calculation_at_its_end(client: Client, water: Any, reference: Any) -> None:
    mf = dft.RKS(water, xc="b3lyp")
    dm: Any = client.density_matrix(water)
    np.testing.assert_allclose(dm.mo_coeff * dm.mo_occ @ dm.mo_coeff.T, np.asarray(dm), atol=1e-10)
    assert abs(mf.kernel(dm0=dm) - reference.e_tot) < 1e-8
    assert mf.cycles < reference.cycles


def test_a_guess_is_the_converged_calculation(client: Client, water: Any, reference: Any) -> None:
    guess = client.guess(water)
    np.testing.assert_allclose(guess.density_matrix, reference.make_rdm1(), atol=1e-4)
    np.testing.assert_allclose(guess.mo_energy, reference.mo_energy, atol=1e-4)
    np.testing.assert_array_equal(guess.mo_occ, reference.mo_occ)
    assert (guess.model, guess.version, guess.xc, guess.basis, guess.in_domain) == (
        "oracle", "1", "b3lyp", "def2-svp", True,
    )  # fmt: skip
    with pytest.raises(AttributeError):
        guess.model = "other"  # type: ignore[misc]


def test_every_way_to_name_a_molecule_sends_the_same(water: Any) -> None:
    coordinates = water.atom_coords().tolist()  # bohr
    in_bohr = gto.M(atom=list(zip("OHH", coordinates, strict=True)), unit="Bohr", basis="def2-svp", verbose=0)
    for molecule in (water, in_bohr, Atoms(numbers=NUMBERS, positions=POSITIONS), (NUMBERS, POSITIONS)):
        sent = as_molecule(molecule)
        assert sent.numbers.tolist() == NUMBERS
        np.testing.assert_allclose(sent.positions_angstrom, POSITIONS, atol=1e-12)
        assert (sent.charge, sent.multiplicity) == (0, 1)


def test_charge_and_spin_come_from_the_mole_and_may_not_contradict_it() -> None:
    mol = gto.M(atom="O 0 0 0; H 0 0 0.97", charge=-1, basis="def2-svp", verbose=0)
    sent = as_molecule(mol)
    assert (sent.charge, sent.multiplicity) == (-1, 1)
    with pytest.raises(InvalidInputError, match="charge 0"):
        as_molecule(mol, charge=0)
    ask = Ask(charge=2, multiplicity=3)
    body = ask.body(ask.molecule((NUMBERS, POSITIONS)))
    assert (body["charge"], body["multiplicity"]) == (2, 3)


@pytest.mark.parametrize(
    ("info", "sent"),
    [
        ({}, (0, 1)),
        ({"charge": -1}, (-1, 2)),  # of water; where nothing says the multiplicity, the lowest that fits
        ({"total_charge": np.int64(2), "spin_multiplicity": 3}, (2, 3)),
        ({"multiplicity": 2.0}, (0, 2)),
    ],
)
def test_charge_and_spin_that_atoms_state_are_sent(info: dict[str, Any], sent: tuple[int, int]) -> None:
    atoms = Atoms(numbers=NUMBERS, positions=POSITIONS, info=info)
    molecule = as_molecule(atoms)
    assert (molecule.charge, molecule.multiplicity) == sent


def test_what_atoms_state_may_not_be_contradicted_nor_be_half_an_electron() -> None:
    anion = Atoms(numbers=NUMBERS, positions=POSITIONS, info={"charge": -1})
    with pytest.raises(InvalidInputError, match="charge 0 was asked for, but the molecule itself says -1"):
        as_molecule(anion, charge=0)
    assert as_molecule(anion, charge=-1).charge == -1
    with pytest.raises(InvalidInputError, match="no whole number"):
        as_molecule(Atoms(numbers=NUMBERS, positions=POSITIONS, info={"charge": 0.5}))


def test_a_multiplicity_of_zero_is_not_taken_for_none() -> None:
    assert as_molecule((NUMBERS, POSITIONS), multiplicity=0).multiplicity == 0  # the server refuses it, by name


def test_a_crystal_goes_out_with_its_cell() -> None:
    sent = as_molecule(Atoms("HF", positions=[[0, 0, 0], [0, 0, 0.9]], cell=[3, 4, 5], pbc=True)).structure()
    assert sent["cell"] == [[3, 0, 0], [0, 4, 0], [0, 0, 5]]
    assert sent["pbc"] == [True, True, True]


def test_what_is_stated_is_sent_and_nothing_else(client: Client, server: Any) -> None:
    molecule = (NUMBERS, POSITIONS)
    client.guess(molecule, xc="b3lyp", basis="def2-svp", charge=0)
    client.hamiltonian(molecule)
    stated, silent = (json.loads(seen.body) for seen in server.seen)
    assert (stated["xc"], stated["basis"], stated["charge"], stated["multiplicity"]) == ("b3lyp", "def2-svp", 0, 1)
    assert "xc" not in silent
    assert "basis" not in silent
    with pytest.raises(TypeError, match="chrage"):
        client.guess(molecule, chrage=1)  # type: ignore[call-arg]
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    "molecule",
    [
        "water",
        (NUMBERS, POSITIONS[:2]),
        ([], []),
        ([8.5, 1, 1], POSITIONS),
        ([0, 1, 1], POSITIONS),
        (NUMBERS, [[0, 0, float("nan")], *POSITIONS[1:]]),
        (["O", "H", "H"], POSITIONS),
        gto.M(atom="He 0 0 0", basis="def2-svp", cart=True, verbose=0),
        gto.M(atom="I 0 0 0", spin=1, basis="def2-svp", ecp="def2-svp", verbose=0),
        gto.M(atom="He 0 0 0; ghost-He 0 0 2", basis="def2-svp", verbose=0),
    ],
)
def test_what_cannot_be_sent_is_refused_here(client: Client, server: Any, molecule: Any) -> None:
    with pytest.raises(InvalidInputError):
        client.guess(molecule)
    assert not server.seen


@pytest.mark.parametrize("basis", ["cc-pvdz", "6-31g**", "def2-tzvp", "sto-3g"])
def test_a_guess_in_another_basis_never_reaches_the_caller(client: Client, water: Any, basis: str) -> None:
    other = gto.M(atom=water.atom, unit="Angstrom", basis=basis, verbose=0)
    with pytest.raises(GuessMismatchError, match="def2-svp"):
        client.density_matrix(other)


def test_a_basis_that_differs_in_one_exponent_is_found_out(client: Client, water: Any) -> None:
    shells = gto.basis.load("def2-svp", "O")
    shells[1][1][0] *= 1.01
    other = gto.M(atom=water.atom, basis={"O": shells, "H": "def2-svp"}, verbose=0)
    with pytest.raises(GuessMismatchError, match="same names"):
        client.guess(other)


def test_the_hamiltonian_is_the_fock_matrix(client: Client, water: Any, reference: Any) -> None:
    hamiltonian, overlap = client.hamiltonian(water)
    np.testing.assert_allclose(hamiltonian, reference.get_fock(), atol=1e-4)
    np.testing.assert_allclose(overlap, reference.get_ovlp(), atol=1e-12)
    with pytest.raises(GuessMismatchError):
        client.hamiltonian(gto.M(atom=water.atom, basis="sto-3g", verbose=0))


def test_orbital_energies_in_both_units(client: Client, reference: Any) -> None:
    atoms = Atoms(numbers=NUMBERS, positions=POSITIONS)
    hartree, ev = (client.orbital_energies(atoms, unit=unit) for unit in ("hartree", "eV"))
    np.testing.assert_allclose(hartree.energies, reference.mo_energy, atol=1e-4)
    np.testing.assert_allclose(ev.energies, hartree.energies * EV, rtol=1e-12)
    assert hartree.homo == pytest.approx(reference.mo_energy[4], abs=1e-4)
    assert hartree.lumo == pytest.approx(reference.mo_energy[5], abs=1e-4)
    assert ev.gap == pytest.approx((reference.mo_energy[5] - reference.mo_energy[4]) * EV, abs=1e-2)
    with pytest.raises(ValueError, match="'kcal'"):
        client.orbital_energies(atoms, unit="kcal")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b'{"meta": 1}',
        b'{"results": {"orbital_energies": [1, "a"], "occupations": [2, 0]}}',
        b'{"results": {"orbital_energies": [1, 2], "occupations": [2]}}',
        b'{"results": {"orbital_energies": [NaN], "occupations": [2]}}',
        b'{"meta": {"energy_unit": "eV"}, "results": {"orbital_energies": [1], "occupations": [2]}}',
    ],
)
def test_energies_that_are_none_are_refused(client: Client, server: Any, body: bytes) -> None:
    server.fault = lambda _: (200, {"Content-Type": "application/json"}, body)
    with pytest.raises(InvalidAnswerError):
        client.orbital_energies((NUMBERS, POSITIONS))


def test_models_lists_the_cards(client: Client, server: Any) -> None:
    assert [card["name"] for card in client.models()] == ["oracle"]
    server.fault = lambda _: (200, {"Content-Type": "application/json"}, b'{"models": {}}')
    with pytest.raises(InvalidAnswerError):
        client.models()


def test_copies_of_a_client_are_clients(client: Client) -> None:
    for twin in (copy.copy(client), copy.deepcopy(client), pickle.loads(pickle.dumps(client))):
        assert twin.models() == client.models()
    with client as same:
        assert same is client


def test_importing_the_client_loads_none_of_the_heavy_packages() -> None:
    heavy = ("torch", "pyscf", "fastapi", "pydantic", "h5py", "scipy", "ase", "e3nn", "model", "service")
    code = f"import sys, tracegrad_client, tracegrad_client.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_url_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEGRAD_URL", "http://127.0.0.1:8123")
    monkeypatch.setenv("TRACEGRAD_API_KEY", "secret")
    assert Client().base_url == "http://127.0.0.1:8123"
    assert Client().__getstate__()["api_key"] == "secret"
    assert Client("http://127.0.0.1:9").__getstate__()["api_key"] is None  # another server's business
    monkeypatch.delenv("TRACEGRAD_URL")
    assert Client().base_url == "http://127.0.0.1:8000"
