"""Many molecules at once and jobs, against the service itself: each molecule its own guess, or its own error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule as ase_molecule
from local_server import local_server
from pyscf import gto

from tracegrad_client import (
    Client,
    Guess,
    GuessJob,
    GuessMismatchError,
    InvalidAnswerError,
    InvalidInputError,
    NotFoundError,
    RequestTimeoutError,
    UnsupportedError,
    batch,
)
from tracegrad_client.ask import Options

SAME = 2e-5
"""Batched and single predictions, hartree and electrons."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The service, with room for matrices of six waters in a batch."""
    folder: Path = tmp_path_factory.mktemp("jobs")
    settings = {"TRACEGRAD_JOBS_FOLDER": str(folder), "TRACEGRAD_MAX_ORBITALS": "30", "OMP_NUM_THREADS": "1"}
    with local_server(environment=settings) as url, Client(url) as client:
        yield client


def waters(count: int) -> list[Atoms]:
    made = []
    for seed in range(count):
        atoms = ase_molecule("H2O")
        atoms.rattle(0.05, seed=seed)
        made.append(atoms)
    return made


def assert_same(one: Any, other: Any) -> None:
    assert isinstance(one, Guess)
    assert isinstance(other, Guess)
    np.testing.assert_allclose(one.density_matrix, other.density_matrix, atol=SAME)
    np.testing.assert_allclose(one.mo_energy, other.mo_energy, atol=SAME)
    assert (one.model, one.sha256, one.xc, one.ao_labels) == (other.model, other.sha256, other.xc, other.ao_labels)


def test_each_guess_is_that_of_its_own_molecule(service: Client) -> None:
    molecules = waters(3)
    assert len({atoms.positions.tobytes() for atoms in molecules}) == 3
    found = service.guesses(molecules)
    for atoms, guess in zip(molecules, found, strict=True):
        assert_same(guess, service.guess(atoms))


def test_an_error_takes_nothing_from_the_others(service: Client) -> None:
    good = waters(1)[0]
    elsewhere = gto.M(atom="O 0 0 0.119; H 0 0.763 -0.477; H 0 -0.763 -0.477", basis="cc-pvdz", verbose=0)
    found = service.guesses([good, ase_molecule("SiH4"), "no molecule", elsewhere, good])
    kinds = [type(outcome) for outcome in found]
    assert kinds == [Guess, UnsupportedError, InvalidInputError, GuessMismatchError, Guess]
    assert found[1].code == "unsupported_element"  # type: ignore[union-attr]
    assert_same(found[0], found[4])


def test_charges_are_not_mixed_up(service: Client) -> None:
    """An anion between two neutral molecules: the model is not made for it, and only it is refused."""
    hydroxide = gto.M(atom="O 0 0 0; H 0 0 0.97", charge=-1, basis="def2-svp", verbose=0)
    found = service.guesses([waters(1)[0], hydroxide, waters(1)[0]])
    assert isinstance(found[1], UnsupportedError)
    assert found[1].code == "unsupported_charge"
    assert_same(found[0], found[2])


def test_what_a_full_batch_leaves_out_is_sent_again(service: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    molecules = waters(15)  # six of them fill a request
    sent = []
    request = batch._request

    def counted(part: Any, ask: Any) -> Any:
        sent.append(len(part))
        return request(part, ask)

    monkeypatch.setattr(batch, "_request", counted)
    found = service.guesses(molecules)
    assert sent == [15, 9, 3]
    for index in (0, 7, 14):
        assert_same(found[index], service.guess(molecules[index]))


def test_a_molecule_too_large_for_any_batch_is_told_so(service: Client) -> None:
    found = service.guesses([ase_molecule("C2H6"), waters(1)[0]])
    assert getattr(found[0], "code", "") == "too_many_orbitals"
    assert isinstance(found[1], Guess)


def test_nothing_in_nothing_out(service: Client) -> None:
    assert service.guesses([]) == []


def test_an_answer_with_items_missing_is_refused(server: Any) -> None:
    """The double answers one molecule whatever is asked."""
    body = b'\x15\x00\x00\x00\x00\x00\x00\x00{"__metadata__":{"meta":"{}"}}'
    body = len(body[8:]).to_bytes(8, "little") + body[8:]
    server.fault = lambda seen: (200, {"Content-Type": "application/vnd.safetensors"}, body)
    with pytest.raises(InvalidAnswerError, match="one item for each of the 2"):
        Client(server.url).guesses(waters(2))


def test_a_job_ends_in_the_guess(service: Client) -> None:
    atoms = waters(1)[0]
    mol = gto.M(atom=list(zip("OHH", atoms.positions.tolist(), strict=True)), basis="def2-svp", verbose=0)
    job = service.submit(mol, xc="b3lyp")
    assert_same(job.wait(60), service.guess(mol))
    assert job.state().state == "done"
    assert_same(service.job(job.id, mol).result(), service.guess(mol))
    job.delete()
    with pytest.raises(NotFoundError):
        job.state()


def test_a_job_is_checked_against_the_mole(service: Client) -> None:
    atoms = waters(1)[0]
    mol = gto.M(atom=list(zip("OHH", atoms.positions.tolist(), strict=True)), basis="cc-pvdz", verbose=0)
    with pytest.raises(GuessMismatchError):
        service.submit(mol).wait(60)


def test_what_is_wrong_with_a_molecule_is_said_at_once(service: Client) -> None:
    with pytest.raises(UnsupportedError):
        service.submit(ase_molecule("SiH4"))


def test_waiting_ends_in_time_and_the_job_goes_on(server: Any) -> None:
    status = b'{"id": "abc", "state": "running", "progress": {"stage": "forward", "fraction": 0.4, "position": null}}'
    server.fault = lambda seen: (202 if seen.method == "POST" else 200, {"Content-Type": "application/json"}, status)
    job = Client(server.url).submit(waters(1)[0])
    asked = len(server.seen)
    with pytest.raises(RequestTimeoutError, match="abc"):
        job.wait(0.05)  # less than the first pause, which is cut
    assert len(server.seen) - asked == 2
    assert (job.state().stage, job.state().fraction, job.state().finished) == ("forward", 0.4, False)


@pytest.mark.parametrize("fraction", ["1" + "0" * 400, "-0.1", "1.1", '"half"', "[]"])
def test_progress_that_is_none_is_not_believed(server: Any, fraction: str) -> None:
    progress = f'{{"stage": "forward", "fraction": {fraction}, "position": null}}'
    text = f'{{"id": "abc", "state": "running", "progress": {progress}}}'
    json_type = {"Content-Type": "application/json"}
    server.fault = lambda seen: (202 if seen.method == "POST" else 200, json_type, text.encode())
    with pytest.raises(InvalidAnswerError):
        Client(server.url).submit(waters(1)[0]).state()


@pytest.mark.parametrize("name", ["", "../models", "a b", "None?"])
def test_an_id_that_is_none_goes_nowhere(service: Client, name: str) -> None:
    with pytest.raises(InvalidAnswerError, match="no id"):
        service.job(name, waters(1)[0])
    assert repr(GuessJob(service._transport, "abc", None)) == "GuessJob('abc')"  # type: ignore[arg-type]


def test_every_method_may_state_what_the_calculation_uses(service: Client) -> None:
    water = waters(1)[0]
    stated: Options = {"xc": "b3lyp", "basis": "def2-svp"}
    plain = service.guess(water)
    assert_same(service.guess(water, **stated), plain)
    assert_same(service.guesses([water], **stated)[0], plain)
    assert_same(service.submit(water, **stated).wait(60), plain)
    np.testing.assert_allclose(service.hamiltonian(water, **stated)[1], service.hamiltonian(water)[1])
    np.testing.assert_allclose(service.orbital_energies(water, **stated).energies, plain.mo_energy, atol=SAME)
