"""What the clients ask of a server, each question once: :class:`tracegrad_client.Client` carries a talk out, and
:class:`tracegrad_client.AsyncClient` awaits it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tracegrad_client import matrices
from tracegrad_client.ask import Ask, Options
from tracegrad_client.energies import EnergyUnit, OrbitalEnergies, check_unit, read_energies
from tracegrad_client.errors import InvalidAnswerError, InvalidInputError
from tracegrad_client.evaluation import Evaluation, evaluate
from tracegrad_client.exchange import Answer, Request, Talk
from tracegrad_client.guess import Guess, guess_for, parse_guess
from tracegrad_client.structure import Molecule, Sent, is_mole
from tracegrad_client.wire import MEDIA_TYPE, Tensors, read_safetensors

SAFETENSORS: Final = {"format_out": "safetensors"}
Projection = Callable[[Guess, Any], Guess]


def tensors(path: str, body: Mapping[str, Any]) -> Talk[Tensors]:
    """Arrays of any route."""
    answer = yield Request("POST", path, accept=MEDIA_TYPE, payload=body, params=SAFETENSORS)
    return read_safetensors(answer.body)


def guess(ask: Ask, molecule: Any) -> Talk[Guess]:
    """The starting point of an SCF."""
    started = time.perf_counter()
    sent = ask.sent(molecule)
    answer = yield from tensors("/v1/initial-guess", ask.body(sent))
    return guess_for(molecule, answer, sent, time.perf_counter() - started)


def projected_guess(ask: Ask, mol: Any, atoms_of: Callable[[Any], Molecule], project: Projection) -> Talk[Guess]:
    """The same in the basis of a Mole, whatever the model's is.

    Args:
        ask: with what is stated.
        mol: a PySCF Mole.
        atoms_of: gives what is sent for it.
        project: puts the answer into its basis.
    """
    if not is_mole(mol):
        raise InvalidInputError(
            f"project=True is for a PySCF Mole, which says the basis; a {type(mol).__name__} came.",
            hint="Leave it out: the guess is then in the model's own basis.",
        )
    started = time.perf_counter()
    sent = atoms_of(mol)
    for name in ("charge", "multiplicity"):
        if getattr(ask, name) not in (None, getattr(sent, name)):
            said = f"{name} {getattr(ask, name)} was asked for, but the Mole says {getattr(sent, name)}."
            raise InvalidInputError(said)
    answer = yield from tensors("/v1/initial-guess", ask.body(sent))
    found = parse_guess(answer, sent.electrons, time.perf_counter() - started)
    return project(found, mol)


def density_of(guess: Guess) -> NDArray[np.float64]:
    """The density matrix of a guess, (ao, ao); where PySCF is loaded with ``mo_coeff`` and ``mo_occ`` attached."""
    if "pyscf" not in sys.modules:
        return guess.density_matrix
    from tracegrad_client.adapters.pyscf.density import tagged_density

    return tagged_density(guess)


def hamiltonian(ask: Ask, molecule: Any) -> Talk[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """H and S."""
    answer = yield from tensors("/v1/predict", ask.body(ask.sent(molecule), outputs=matrices.OUTPUTS))
    return matrices.read_matrices(answer, molecule)


def orbital_energies(ask: Ask, molecule: Any, unit: EnergyUnit) -> Talk[OrbitalEnergies]:
    """Energies with occupations."""
    check_unit(unit)
    body = ask.body(ask.sent(molecule), outputs=["orbital_energies"])
    return read_energies((yield Request("POST", "/v1/predict", payload=body)), unit)


def models() -> Talk[list[dict[str, Any]]]:
    """The cards of the loaded checkpoints."""
    cards = (yield Request("GET", "/v1/models")).json().get("models")
    if not isinstance(cards, list) or not all(isinstance(card, dict) for card in cards):
        raise InvalidAnswerError("The list of models is not a list of cards.")
    return cards


def qcschema(ask: Ask, molecule: Any, version: int) -> Talk[dict[str, Any]]:
    """A guess as an AtomicResult."""
    names = {2: "qcschema", 1: "qcschema-v1"}
    if version not in names:
        raise ValueError(f"version is {version!r}; QCSchema has 1 and 2.")
    body = ask.body(ask.sent(molecule))
    answer = yield Request(
        "POST", "/v1/initial-guess", accept="*/*", payload=body, params={"format_out": names[version]}
    )
    return answer.json()


def evaluation_of(
    model: str | None,
    calculation: Any,
    fock: Any,
    overlap: Any,
    *,
    ao_order: str,
    energy_unit: EnergyUnit,
    options: Options,
) -> Talk[Evaluation]:
    """A comparison with the caller's matrix, or with that of a PySCF calculation that has run."""
    if fock is None and hasattr(calculation, "get_fock") and hasattr(calculation, "mol"):
        from tracegrad_client.adapters.pyscf.converged import converged

        calculation, fock, overlap, level = converged(calculation)
        options = {**level, **options}
    if fock is None:
        raise InvalidInputError(
            "There is no Fock matrix to compare with.", hint="Give a PySCF calculation that has run, or fock=..."
        )
    ask = Ask(model, **options)
    return (yield from evaluate(ask, calculation, fock, overlap, ao_order=ao_order, energy_unit=energy_unit))


def submit(ask: Ask, molecule: Any) -> Talk[tuple[str, Sent]]:
    """The id of a new job, and what was sent."""
    sent = ask.sent(molecule)
    body = ask.body(sent, kind="initial-guess")
    document = (yield Request("POST", "/v1/jobs", payload=body, params=SAFETENSORS)).json()
    return str(document.get("id")), sent


def send_file(
    path: str,
    name: str,
    content: bytes,
    options: Mapping[str, str] | None,
    model: str | None,
    *,
    format_out: str | None = None,
) -> Talk[Answer]:
    """A structure file as it is, and the answer as the server wrote it.

    Args:
        path: of the route.
        name, content: of the file.
        options: form fields.
        model: name of a model, where ``options`` has none.
        format_out: of the answer; None for JSON.
    """
    form = dict(options or {})
    if model is not None:
        form.setdefault("model", model)
    return (
        yield Request(
            "POST",
            path,
            accept="application/json" if format_out is None else "*/*",
            params={} if format_out is None else {"format_out": format_out},
            files={"file": (name, content)},
            form=form,
        )
    )


def submit_file(
    name: str, content: bytes, options: Mapping[str, str] | None, model: str | None, format_out: str
) -> Talk[str]:
    """The id of a new job about a structure file."""
    form = {**(options or {}), "kind": "initial-guess"}
    answer = yield from send_file("/v1/jobs", name, content, form, model, format_out=format_out)
    return str(answer.json().get("id"))


def energies_of_file(
    name: str, content: bytes, options: Mapping[str, str] | None, model: str | None, unit: EnergyUnit
) -> Talk[OrbitalEnergies]:
    """Orbital energies of the molecule in a structure file."""
    check_unit(unit)
    return read_energies((yield from send_file("/v1/predict", name, content, options, model)), unit)
