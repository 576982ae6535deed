"""Many molecules in few requests: ``/v1/predict/batch`` in parts, each molecule its guess or its error.

Molecules of one charge and multiplicity share requests. What a server leaves out of a full batch (the matrices of one
request are limited, and so is its time) is sent again by itself, as long as every round brings answers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from tracegrad_client.ask import Ask
from tracegrad_client.errors import GuessMismatchError, InvalidAnswerError, TraceGradError
from tracegrad_client.exchange import Request, Talk, problem_exception
from tracegrad_client.guess import Guess, parse_guess
from tracegrad_client.structure import Sent, is_mole
from tracegrad_client.wire import MEDIA_TYPE, Tensors, read_safetensors

STRUCTURES_PER_REQUEST: Final = 32
OUTPUTS: Final = ("orbital_energies", "mo_coeff", "density_matrix")
LEFT_OUT: Final = frozenset({"too_many_orbitals", "deadline_exceeded", "queue_full"})
"""Codes of items that a request of their own may answer."""

Outcome: TypeAlias = Guess | TraceGradError


def guesses(molecules: Sequence[Any], ask: Ask) -> Talk[list[Outcome]]:
    """Guesses of all molecules, in their order; see :meth:`tracegrad_client.Client.guesses`."""
    outcomes: dict[int, Outcome] = {}
    waiting: dict[tuple[int | None, int | None], list[tuple[int, Sent]]] = {}
    for index, molecule in enumerate(molecules):
        try:
            sent = ask.sent(molecule)
        except TraceGradError as error:
            outcomes[index] = error
        else:
            waiting.setdefault((sent.charge, sent.multiplicity), []).append((index, sent))
    for group in waiting.values():
        yield from _answer_group(group, ask, outcomes)
    for index, molecule in enumerate(molecules):
        guess = outcomes[index]
        if isinstance(guess, Guess) and is_mole(molecule):
            try:
                guess.check_against(molecule)
            except GuessMismatchError as error:
                outcomes[index] = error
    return [outcomes[index] for index in range(len(molecules))]


def _answer_group(group: Sequence[tuple[int, Sent]], ask: Ask, outcomes: dict[int, Outcome]) -> Talk[None]:
    """Fill in the outcomes of molecules that can share a request."""
    queue = list(group)
    while queue:
        part, queue = queue[:STRUCTURES_PER_REQUEST], queue[STRUCTURES_PER_REQUEST:]
        answered = yield from _request([molecule for _, molecule in part], ask)
        progress = any(isinstance(outcome, Guess) for outcome in answered)
        for (index, molecule), outcome in zip(part, answered, strict=True):
            left_out = isinstance(outcome, TraceGradError) and outcome.code in LEFT_OUT
            if left_out and progress:
                queue.append((index, molecule))
            else:
                outcomes[index] = outcome


def _request(molecules: Sequence[Sent], ask: Ask) -> Talk[list[Outcome]]:
    started = time.perf_counter()
    answer = yield Request(
        "POST",
        "/v1/predict/batch",
        accept=MEDIA_TYPE,
        payload=ask.batch_body(molecules, outputs=OUTPUTS),
        params={"format_out": "safetensors"},
    )
    tensors = read_safetensors(answer.body)
    items = tensors.meta.get("items")
    if not isinstance(items, list) or [_index(item) for item in items] != list(range(len(molecules))):
        raise InvalidAnswerError(
            f"The answer does not have one item for each of the {len(molecules)} structures, in their order."
        )
    seconds = (time.perf_counter() - started) / len(molecules)
    return [_outcome(item, tensors, molecule, seconds) for item, molecule in zip(items, molecules, strict=True)]


def _index(item: object) -> object:
    return item.get("index") if isinstance(item, dict) else None


def _outcome(item: Mapping[str, Any], tensors: Tensors, molecule: Sent, seconds: float) -> Outcome:
    prefix = f"{item['index']}."
    problem, answer = item.get("problem"), item.get("answer")
    if isinstance(problem, dict):
        status = problem.get("status")
        return problem_exception(status if isinstance(status, int) else 500, problem)
    if not isinstance(answer, dict):
        return InvalidAnswerError(f"Item {item['index']} has neither an answer nor a problem.")
    own = {name.removeprefix(prefix): array for name, array in tensors.arrays.items() if name.startswith(prefix)}
    try:
        return parse_guess(Tensors(own, answer), molecule.electrons, seconds)
    except InvalidAnswerError as error:
        return error
