"""The one road of a structure through the service: request, structure, model, prediction, arrays, bytes.

A request for one structure, each structure of a batch and each job walk it. Nothing of HTTP is here: routes read what came
and send what comes back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from model.structure import Structure
from service.answers.arrays import GUESS_OUTPUTS, NEEDS_ORBITALS, Result, make_result
from service.answers.bytes import ENCODERS
from service.answers.files import WRITERS
from service.answers.output_formats import OutputFormat, headers_of, refuse_array_options
from service.checkpoints.choice import Choice, Wanted
from service.errors import ServiceError
from service.observability import logs
from service.observability.metrics import STAGES, warning_kinds
from service.observability.tracing import finished_spans, span
from service.schemas.requests import GuessOptions, PredictOptions
from service.schemas.structures import WireStructure
from service.serving.backend import Predicted
from service.serving.cache import content_key, entity_tag, matches
from service.state import Services
from service.structures.build import SizeLimits, build_structure, option_defaults, read_structure
from service.structures.pool import RawStructure

if TYPE_CHECKING:
    from model.checkpoint.card import Card
    from model.predictor import Prediction

NOTHING_NEW: Final = "*"
"""As ``known_tags``: only check that there would be an answer."""


def _ignore(_: str) -> None:
    """No one asked."""


@dataclass(frozen=True)
class Ask:
    """What is asked about one structure.

    Attributes:
        structure: as sent, or as its file was read.
        options: as validated.
        form: format of the answer.
        limits: caps on the structure.
        request_id: X-Request-ID.
        known_tags: an If-None-Match header: tags of answers that the caller has.
        encoded: whether the answer is wanted as bytes, or as arrays to be encoded with others.
        patient: wait for a place in the model's queue instead of being refused.
        on_stage: told the name of each stage when it begins, from any thread.
        started: ``time.perf_counter()`` of the request's begin.
    """

    structure: WireStructure | RawStructure
    options: PredictOptions | GuessOptions
    form: OutputFormat
    limits: SizeLimits
    request_id: str
    known_tags: str | None = None
    encoded: bool = True
    patient: bool = False
    on_stage: Callable[[str], None] = _ignore
    started: float = field(default_factory=time.perf_counter)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the arrays to send."""
        if isinstance(self.options, PredictOptions):
            return self.options.outputs
        return (*GUESS_OUTPUTS, *(name for name in self.options.outputs if name not in GUESS_OUTPUTS))


@dataclass(frozen=True)
class Answered:
    """What goes back.

    Attributes:
        content: bytes in the asked format, or arrays where these were asked for; None if the caller has the answer.
        tag: ETag of the answer.
        headers: that it has whoever gets it: file name and warnings.
    """

    content: bytes | Result | None
    tag: str
    headers: Mapping[str, str] = field(default_factory=dict)


async def answer(services: Services, ask: Ask) -> Answered:
    """Answer one structure.

    Raises:
        ServiceError, ModelError: with a code of the error table.
    """
    options = ask.options
    refuse_array_options(options, ask.form)
    services.registry.expect(options.model)
    ask.on_stage("parse")
    began = time.perf_counter()
    with span("parse"):
        raw = await read_structure(ask.structure, services.parsers, ask.limits)
    parse_ms = 1e3 * (time.perf_counter() - began)
    structure, assumed = build_structure(raw, options, ask.limits)
    with services.registry.leased(structure, Wanted(options.model, options.xc, options.basis)) as choice:
        model = choice.model
        logs.note(model=model.name)
        services.metrics.stage(model.name, "parse", parse_ms / 1e3)
        ask.limits.check_orbitals(model.predictor.count_orbitals(structure))
        card = model.predictor.card
        defaults = [*assumed, *option_defaults(options, model.name)]
        orbitals = bool(NEEDS_ORBITALS.intersection(ask.outputs))
        key = content_key(card.weights_sha256, structure, orbitals=orbitals)
        shown = (ask.form.name, ask.outputs, options.ao_order, options.energy_unit, choice.warnings, defaults)
        tag = entity_tag(key, shown)
        if matches(ask.known_tags, tag):
            return Answered(None, tag)
        predicted = await _predict(services, ask, choice, structure, key, orbitals)
        stages = {} if predicted.cached else predicted.prediction.timings_ms
        about = {
            "device": model.predictor.device,
            "request_id": ask.request_id,
            "batch_size": predicted.batch_size,
            "cached": predicted.cached,
            "timings_ms": {
                "parse": parse_ms,
                "queue": predicted.queue_ms,
                **{name: stages.get(name, 0.0) for name in ("integrals", "forward", "eigensolve")},
                "total": 1e3 * (time.perf_counter() - ask.started),
            },
        }
        ask.on_stage("serialise")
        began = time.perf_counter()
        with span("serialise"):
            content = await services.encode(_written, ask, predicted.prediction, card, about, choice.warnings, defaults)
        services.metrics.stage(model.name, "serialise", time.perf_counter() - began)
    stem = "guess" if isinstance(options, GuessOptions) else "prediction"
    warnings = (*predicted.prediction.warnings, *choice.warnings)
    return Answered(content, tag, headers_of(ask.form, stem, warnings))


async def _predict(
    services: Services, ask: Ask, choice: Choice, structure: Structure, key: str, orbitals: bool
) -> Predicted:
    """The prediction, from the cache or from the model."""
    name, metrics = choice.model.name, services.metrics
    known = services.cache.get(key)
    metrics.cache(known is not None)
    if known is not None:
        return Predicted(known, cached=True)
    try:
        predicted = await choice.model.backend.predict(
            structure, orbitals=orbitals, patient=ask.patient, on_stage=ask.on_stage
        )
    except ServiceError:
        raise  # the queue's word, not the model's
    except Exception:
        metrics.prediction_failed(name)
        raise
    prediction = predicted.prediction
    services.cache.put(key, prediction)
    metrics.prediction(name, prediction.in_domain, warning_kinds(prediction, choice.differences))
    stages = {**prediction.timings_ms, "queue": predicted.queue_ms}
    for stage in STAGES:
        if stage in stages:
            metrics.stage(name, stage, stages[stage] / 1e3)
    finished_spans([(stage, stages[stage] / 1e3) for stage in ("integrals", "queue", "forward", "eigensolve")])
    return predicted


def _written(
    ask: Ask,
    prediction: Prediction,
    card: Card,
    about: Mapping[str, Any],
    warnings: tuple[str, ...],
    defaults: list[str],
) -> bytes | Result:
    """The answer in its format; runs in the encoding thread."""
    if not ask.form.holds_arrays:
        return WRITERS[ask.form.name](prediction, card)
    result = make_result(prediction, card, ask.options, ask.outputs, about, warnings, defaults)
    return ENCODERS[ask.form.name](result) if ask.encoded else result
