"""The one road of a structure through the service: request, structure, model, prediction, arrays, bytes.

A request for one structure, each structure of a batch and each job walk it. Nothing of HTTP is here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, cast

from model.structure import Structure
from service.access.work import charge_work
from service.answers.arrays import GUESS_OUTPUTS, NEEDS_ORBITALS, Result, make_result
from service.answers.bytes import ENCODERS
from service.answers.files import WRITERS, is_dear, write_cube
from service.answers.output_formats import PICTURE_FORMATS, OutputFormat, headers_of, refuse_array_options
from service.checkpoints.choice import Choice, Wanted
from service.checkpoints.projection import Target, in_target, target_of
from service.crystals.cell_size import CellSize
from service.crystals.folders import program_file, refuse_unwritable
from service.crystals.own_overlap import own_integrals, refuse_needless_overlap
from service.crystals.pictures import draw
from service.crystals.plan import Plan, may_be_sparse, plan_crystal, refuse_crystal_options, refuse_without_cell
from service.crystals.results import crystal_result
from service.crystals.sparse_study import make_sparse_study
from service.crystals.study import Study, make_study
from service.errors import ServiceError
from service.evaluation.given import Given, cartesian_count, read_given, refuse_crystals
from service.evaluation.report import evaluation_result
from service.memory.need import need_of, need_of_crystal
from service.observability import logs
from service.observability.metrics import STAGES, warning_kinds
from service.observability.tracing import finished_spans, span
from service.schemas.evaluation import EvaluateOptions
from service.schemas.requests import (
    BandsOptions,
    CommonOptions,
    DosOptions,
    GuessOptions,
    OwnOverlap,
    PredictOptions,
    StructureOptions,
)
from service.schemas.structures import WireStructure
from service.serving.backend import Predicted, Report
from service.serving.cache import content_key, entity_tag, matches, own_key
from service.state import Services
from service.structures.build import SizeLimits, build_structure, option_defaults, read_structure
from service.structures.pool import RawStructure

if TYPE_CHECKING:
    from model.checkpoint.card import Card
    from model.predictor import CrystalPrediction, Prediction

_STEMS: Final[Mapping[type[StructureOptions], str]] = {GuessOptions: "guess", BandsOptions: "bands", DosOptions: "dos"}
DEAR_STUDY: Final = 5e8
"""K-points times orbitals cubed from which on a crystal's eigensolves take a second or so."""
EVALUATED: Final = ("orbital_energies", "hamiltonian", "overlap", "mo_coeff", "density_matrix")
"""What a comparison has in memory, as outputs."""
NOTHING_NEW: Final = "*"
"""As ``known_tags``: only check that there would be an answer."""


def _ignore(stage: str, done: int = 0, of: int = 0, /) -> None:
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
        on_stage: told the name of each stage when it begins, and of k-points that are solved, from any thread.
        started: ``time.perf_counter()`` of the request's begin.
    """

    structure: WireStructure | RawStructure
    options: StructureOptions
    form: OutputFormat
    limits: SizeLimits
    request_id: str
    known_tags: str | None = None
    encoded: bool = True
    patient: bool = False
    on_stage: Report = _ignore
    started: float = field(default_factory=time.perf_counter)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the arrays to send, for a molecule."""
        if isinstance(self.options, EvaluateOptions):
            return EVALUATED
        assert isinstance(self.options, PredictOptions | GuessOptions)
        if isinstance(self.options, PredictOptions):
            return self.options.outputs
        return (*GUESS_OUTPUTS, *(name for name in self.options.outputs if name not in GUESS_OUTPUTS))

    @property
    def stem(self) -> str:
        """Of the offered file name."""
        return next((stem for kind, stem in _STEMS.items() if isinstance(self.options, kind)), "prediction")


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
    built = build_structure(raw, options, ask.limits)
    structure = built.structure
    refuse_without_cell(options, structure)
    if isinstance(options, EvaluateOptions):
        refuse_crystals(structure)
    with services.registry.leased(structure, Wanted(options.model, options.xc, options.basis)) as choice:
        model = choice.model
        logs.note(model=model.name)
        services.metrics.stage(model.name, "parse", parse_ms / 1e3)
        n_orbitals = model.predictor.count_orbitals(structure)
        card = model.predictor.card
        plan = given = None
        target, choice = await target_of(options, ask.form, structure, choice)
        if structure.is_periodic:
            refuse_unwritable(card, ask.form.name)
            if getattr(options, "overlap", None) is not None:
                refuse_needless_overlap(card)
            ask.limits.check_orbitals(n_orbitals, sparse=may_be_sparse(options))  # before the pairs are counted
            blocks = await asyncio.to_thread(model.predictor.count_blocks, structure)
            size = CellSize.of(structure, n_orbitals, blocks, card.spin, damped=card.kinetic_damping > 0)
            plan = await asyncio.to_thread(plan_crystal, options, ask.form, structure, size, ask.limits)
            need = need_of_crystal(model.predictor, structure, size, blocks, ask.form, plan)
        else:
            n_largest = max(n_orbitals, target.count_orbitals(structure))
            ask.limits.check_orbitals(n_largest)
            refuse_crystal_options(options, ask.form)
            need = await asyncio.to_thread(need_of, model.predictor, structure, n_largest, ask.form, ask.outputs)
            if isinstance(options, EvaluateOptions):
                n_cartesian = cartesian_count(model.predictor.space, structure)
                given = await asyncio.to_thread(read_given, options.fock, n_orbitals, n_cartesian, card.basis.name)
        outputs = ask.outputs if plan is None else plan.outputs
        services.memory.check(need)
        charge_work(n_orbitals)
        defaults = [*built.defaults, *option_defaults(options, model.name, () if plan is None else plan.defaults)]
        orbitals = plan is None and bool(NEEDS_ORBITALS.intersection(outputs))
        key = content_key(card.weights_sha256, structure, orbitals=orbitals)
        shown = options.model_dump(exclude={"structure", "structures", "fock"})
        if given is not None:
            shown["fock"] = given.digest
        tag = entity_tag(key, (ask.form.name, outputs, shown, (*built.notes, *choice.warnings), defaults))
        if matches(ask.known_tags, tag):
            return Answered(None, tag)
        async with services.memory.hold(need, patient=ask.patient):
            predicted = await _predict(services, ask, choice, structure, key, orbitals, n_orbitals)
            study = None if plan is None else await _study(services, ask, choice, predicted, plan)
            about = {
                "device": model.predictor.device,
                "request_id": ask.request_id,
                "batch_size": predicted.batch_size,
                "cached": predicted.cached,
                "timings_ms": {
                    "parse": parse_ms,
                    "queue": predicted.queue_ms,
                    **_timings(predicted, study),
                    "total": 1e3 * (time.perf_counter() - ask.started),
                },
            }
            ask.on_stage("serialise")
            began = time.perf_counter()
            known = _Known(card, plan, outputs, about, (*built.notes, *choice.warnings), defaults, given, target)
            with span("serialise"):
                if ask.form.holds_arrays and given is None:
                    content = await services.encode(_written, ask, predicted.prediction, study, known)
                else:
                    dear = plan is None and is_dear(ask.form.name, cast("Prediction", predicted.prediction))
                    content = await services.export(_written, ask, predicted.prediction, study, known, dear=dear)
            services.metrics.stage(model.name, "serialise", time.perf_counter() - began)
    warnings = (*predicted.prediction.warnings, *(() if study is None else study.warnings), *known.warnings)
    return Answered(content, tag, headers_of(ask.form, ask.stem, warnings))


async def _predict(
    services: Services, ask: Ask, choice: Choice, structure: Structure, key: str, orbitals: bool, n_orbitals: int
) -> Predicted:
    """The prediction, from the cache or from the model."""
    name, metrics = choice.model.name, services.metrics
    known = services.cache.get(own_key(key))
    metrics.cache(known is not None)
    if known is not None:
        return Predicted(known, cached=True)
    try:
        predicted = await choice.model.backend.predict(
            structure,
            orbitals=orbitals,
            patient=ask.patient,
            on_stage=ask.on_stage,
            n_orbitals=n_orbitals,
            time_left_s=None if ask.patient else services.time_left_s(ask.started),
        )
    except ServiceError:
        raise  # the queue's word, not the model's
    except Exception:
        metrics.prediction_failed(name)
        raise
    prediction = predicted.prediction
    services.cache.put(own_key(key), prediction)
    metrics.prediction(name, prediction.in_domain, warning_kinds(prediction, choice.differences))
    stages = {**prediction.timings_ms, "queue": predicted.queue_ms}
    for stage in STAGES:
        if stage in stages:
            metrics.stage(name, stage, stages[stage] / 1e3)
    order = ("integrals", "queue", "forward", "eigensolve")
    finished_spans([(stage, stages[stage] / 1e3) for stage in order if stage in stages])
    return predicted


async def _study(services: Services, ask: Ask, choice: Choice, predicted: Predicted, plan: Plan) -> Study:
    """What the answer needs of a crystal beyond H(R)."""
    ask.on_stage("eigensolve")

    def told(done: int, of: int) -> None:
        ask.on_stage("eigensolve", done, of)

    prediction = predicted.prediction
    card = choice.model.predictor.card
    electrons = choice.model.predictor.space.count_electrons(prediction.structure.numbers, prediction.structure.charge)
    rows = choice.model.predictor.count_orbitals(prediction.structure) * (2 if card.spin == "spinor" else 1)
    solve = make_study if plan.states is None else make_sparse_study
    dear = plan.states is not None or plan.k_points * rows**3 > DEAR_STUDY
    own: OwnOverlap | None = getattr(ask.options, "overlap", None)
    if own is not None:
        space = cast("CrystalPrediction", prediction).hamiltonian.space
        integrals = await asyncio.to_thread(own_integrals, own, prediction.structure, space)
        prediction = replace(cast("CrystalPrediction", prediction), integrals=integrals)
    study = await choice.model.backend.study(solve, prediction, plan, electrons, told, patient=ask.patient, dear=dear)
    services.metrics.stage(card.name, "eigensolve", study.milliseconds / 1e3)
    finished_spans([("eigensolve", study.milliseconds / 1e3)])
    return study


def _timings(predicted: Predicted, study: Study | None) -> dict[str, float]:
    """Milliseconds of the model's own stages; those of an answer from memory took none."""
    stages = {} if predicted.cached else dict(predicted.prediction.timings_ms)
    if study is not None:
        stages["eigensolve"] = study.milliseconds
    return {name: stages.get(name, 0.0) for name in ("integrals", "forward", "eigensolve")}


@dataclass(frozen=True)
class _Known:
    """What is known of an answer beside its numbers; see ``make_result``."""

    card: Card
    plan: Plan | None
    outputs: tuple[str, ...]
    about: Mapping[str, Any]
    warnings: tuple[str, ...]
    defaults: list[str]
    given: Given | None
    target: Target


def _written(
    ask: Ask, prediction: Prediction | CrystalPrediction, study: Study | None, known: _Known
) -> bytes | Result:
    """The answer in its format; runs in the encoding thread."""
    rest = (known.about, known.warnings, known.defaults)
    if study is not None and known.plan is not None:
        crystal = cast("CrystalPrediction", prediction)
        if ask.form in PICTURE_FORMATS:
            return draw(study, known.plan, ask.form.name)
        if not ask.form.holds_arrays:
            said = (*crystal.warnings, *study.warnings, *known.warnings)
            return program_file(crystal, study, known.card, ask.form.name, said)
        result = crystal_result(crystal, study, known.plan, known.card, ask.options, *rest)
    else:
        molecule = in_target(cast("Prediction", prediction), known.target)
        if not ask.form.holds_arrays:
            if isinstance(ask.options, GuessOptions) and ask.form.name == "cube":
                return write_cube(molecule, known.card, ask.options.orbital)
            return WRITERS[ask.form.name](molecule, known.card)
        if known.given is not None:
            options = cast(EvaluateOptions, ask.options)
            return ENCODERS[ask.form.name](evaluation_result(molecule, known.card, options, known.given, *rest))
        result = make_result(molecule, known.card, cast("CommonOptions", ask.options), known.outputs, *rest)
    return ENCODERS[ask.form.name](result) if ask.encoded else result
