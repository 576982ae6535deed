"""What a request asks for, computed: structure and options in, arrays or a file out. Nothing of HTTP.

    accept (parse, check) -> compute (cache, or the model's engine) -> result (arrays) or render (bytes)

The structure routes, the batch route and jobs all go through here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from model.structure import Structure
from service.answers.arrays import GUESS_OUTPUTS, NEEDS_ORBITALS, Result, make_result
from service.answers.bytes import encode_json, encode_npz, encode_safetensors
from service.answers.files import WRITERS
from service.checkpoints.registry import LoadedModel
from service.comparison import check_basis, xc_warnings
from service.errors import ServiceError
from service.http.negotiation import OutputFormat
from service.observability import logs
from service.observability.metrics import STAGES, Metrics, warning_kinds
from service.observability.tracing import finished_spans
from service.schemas.requests import GuessOptions, PredictOptions
from service.serving.cache import content_key, entity_tag
from service.state import Services
from service.structures.build import SizeLimits, build_structure, check_orbital_count, option_defaults
from service.structures.pool import RawStructure

if TYPE_CHECKING:
    from model.predictor import Prediction

_ENCODERS: Final = {"json": encode_json, "npz": encode_npz, "safetensors": encode_safetensors}


@dataclass(frozen=True)
class Plan:
    """A request's options against a model: known before any structure is read.

    Attributes:
        options: as validated.
        chosen: format of the answer.
        loaded: the model.
        outputs: names of the arrays to send.
        warnings: that need no prediction.
    """

    options: PredictOptions | GuessOptions
    chosen: OutputFormat
    loaded: LoadedModel
    outputs: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def needs_orbitals(self) -> bool:
        """Whether an eigensolve is needed."""
        return bool(NEEDS_ORBITALS.intersection(self.outputs))


@dataclass(frozen=True)
class Accepted:
    """A structure that the model can take.

    Attributes:
        plan: what to do with it.
        structure: checked against the model and the limits.
        n_orbitals: its number of AOs.
        defaults_applied: what was assumed.
        key: of its content and the model's weights.
        parse_ms: milliseconds that reading took.
        started: ``time.perf_counter()`` of the request's begin.
    """

    plan: Plan
    structure: Structure
    n_orbitals: int
    defaults_applied: tuple[str, ...]
    key: str
    parse_ms: float
    started: float

    @property
    def entity_tag(self) -> str:
        """ETag of the answer."""
        plan = self.plan
        options = plan.options
        return entity_tag(
            self.key,
            (
                plan.chosen.name,
                plan.outputs,
                options.ao_order,
                options.energy_unit,
                plan.warnings,
                self.defaults_applied,
            ),
        )


@dataclass(frozen=True)
class Computed:
    """A prediction and how it came about.

    Attributes:
        prediction: the model's answer.
        timings_ms: the entries of ``Timings``.
        batch_size: structures in the forward pass.
        cached: whether it was there already.
    """

    prediction: Prediction
    timings_ms: Mapping[str, float]
    batch_size: int
    cached: bool


def make_plan(services: Services, options: PredictOptions | GuessOptions, chosen: OutputFormat) -> Plan:
    """Look the model up and decide what to send.

    Raises:
        ServiceError: ``unknown_model``, ``unsupported_basis``, or ``invalid_request`` for an option that the format lacks.
    """
    loaded = services.registry.get(options.model)
    if isinstance(options, PredictOptions):
        return Plan(options, chosen, loaded, options.outputs, ())
    card = loaded.predictor.card
    check_basis(options.basis, card.basis.name)
    if not chosen.holds_arrays:
        _refuse_array_options(options, chosen)
    outputs = (*GUESS_OUTPUTS, *(name for name in options.outputs if name not in GUESS_OUTPUTS))
    return Plan(options, chosen, loaded, outputs, tuple(xc_warnings(options.xc, card.xc)))


def accept(plan: Plan, raw: RawStructure, limits: SizeLimits, *, parse_ms: float, started: float) -> Accepted:
    """Check a structure against the limits and the model.

    Raises:
        ServiceError, ModelError: what is wrong with it.
    """
    submission = build_structure(raw, plan.options, limits)
    predictor = plan.loaded.predictor
    predictor.check(submission.structure)
    n_orbitals = predictor.count_orbitals(submission.structure)
    check_orbital_count(n_orbitals, limits)
    return Accepted(
        plan=plan,
        structure=submission.structure,
        n_orbitals=n_orbitals,
        defaults_applied=(*submission.defaults_applied, *option_defaults(plan.options, plan.loaded.name)),
        key=content_key(predictor.card.weights_sha256, submission.structure, orbitals=plan.needs_orbitals),
        parse_ms=parse_ms,
        started=started,
    )


async def compute(
    services: Services,
    accepted: Accepted,
    *,
    patient: bool = False,
    on_stage: Callable[[str], None] | None = None,
) -> Computed:
    """The prediction, from the cache or from the model.

    Args:
        services: cache.
        accepted: what to predict.
        patient: wait for a place in the model's queue instead of being refused.
        on_stage: see ``Engine.predict``.

    Raises:
        ServiceError, ModelError: see ``Engine.predict``.
    """
    plan = accepted.plan
    prediction = services.cache.get(accepted.key)
    cached = prediction is not None
    queue_ms, batch_size = 0.0, 1
    stages: Mapping[str, float] = {}
    services.metrics.cache(cached)
    logs.note(model=plan.loaded.name)
    if prediction is None:
        try:
            answer = await plan.loaded.engine.predict(
                accepted.structure, orbitals=plan.needs_orbitals, patient=patient, on_stage=on_stage
            )
        except ServiceError:
            raise  # the queue's word, not the model's
        except Exception:
            services.metrics.prediction_failed(plan.loaded.name)
            raise
        prediction, queue_ms, batch_size = answer.prediction, answer.queue_ms, answer.batch_size
        stages = prediction.timings_ms
        _observe(services.metrics, plan, prediction, queue_ms)
        services.cache.put(accepted.key, prediction)
    timings = {
        "parse": accepted.parse_ms,
        "queue": queue_ms,
        **{name: stages.get(name, 0.0) for name in ("integrals", "forward", "eigensolve")},
        "total": 1000.0 * (time.perf_counter() - accepted.started),
    }
    return Computed(prediction, timings, batch_size, cached)


def _observe(metrics: Metrics, plan: Plan, prediction: Prediction, queue_ms: float) -> None:
    """Durations, spans and the count of a prediction that has just come from its model."""
    name, stages = plan.loaded.name, prediction.timings_ms
    metrics.prediction(name, prediction.in_domain, warning_kinds(prediction, functional=bool(plan.warnings)))
    for stage in STAGES:
        if stage in stages:
            metrics.stage(name, stage, stages[stage] / 1e3)
    in_order = {**stages, "queue": queue_ms}
    finished_spans([(stage, in_order[stage] / 1e3) for stage in ("integrals", "queue", "forward", "eigensolve")])


def result(accepted: Accepted, computed: Computed, request_id: str) -> Result:
    """The answer's arrays and meta data."""
    plan = accepted.plan
    predictor = plan.loaded.predictor
    return make_result(
        computed.prediction,
        predictor.card,
        plan.options,
        plan.outputs,
        device=predictor.device,
        request_id=request_id,
        timings_ms=computed.timings_ms,
        batch_size=computed.batch_size,
        cached=computed.cached,
        warnings=plan.warnings,
        defaults_applied=accepted.defaults_applied,
    )


async def render(services: Services, accepted: Accepted, computed: Computed, request_id: str) -> bytes:
    """The answer as bytes, in the chosen format."""
    plan = accepted.plan
    if not plan.chosen.holds_arrays:
        card = plan.loaded.predictor.card
        return await services.encode(WRITERS[plan.chosen.name], computed.prediction, card)
    return await services.encode(
        lambda: _ENCODERS[plan.chosen.name](result(accepted, computed, request_id)),
    )


def all_warnings(accepted: Accepted, computed: Computed) -> Sequence[str]:
    """Warnings of the model and of the plan."""
    return [*computed.prediction.warnings, *accepted.plan.warnings]


def _refuse_array_options(options: GuessOptions, chosen: OutputFormat) -> None:
    """A file format has its own order, unit and contents: say so rather than ignore what was asked for."""
    asked: Mapping[str, bool] = {
        "ao_order": options.ao_order != "pyscf",
        "energy_unit": options.energy_unit != "hartree",
        "outputs": bool(options.outputs),
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise ServiceError(
                "invalid_request",
                f"The format {chosen.name} has its own contents, AO order and units; {name} does not apply.",
                field=name,
                hint=f"Leave out {name}, or ask for json, npz or safetensors.",
            )
