"""Which of the loaded models answers: the one that is named, else the one whose domain and level of theory fit best.

A model must take the structure: periodic or not, elements, charge, multiplicity. Among those that do, the functional
counts first and the basis next; then the default of this kind of system, and then who has the default's functional. Of
several at one level of theory the one of the fewest elements answers: it learned nothing else. What differs from what was
asked is a warning. A model whose card promises no exact symmetry answers where it is named, and only there: two orientations
of one structure would get two answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from model.errors import (
    DomainError,
    UnsupportedChargeError,
    UnsupportedElementError,
    UnsupportedMultiplicityError,
    UnsupportedPeriodicityError,
)
from model.level import LevelField, same_functional
from model.structure import SYMBOLS, Structure
from service.checkpoints.loaded import LoadedModel
from service.errors import ServiceError

Kind = Literal["molecules", "crystals"]

RETRY_AFTER_EMPTY_S: Final = 30
MODELS_IN_A_HINT: Final = 8

_CHECKED_IN_ORDER: Final[Mapping[type[DomainError], int]] = {
    UnsupportedPeriodicityError: 1,
    UnsupportedElementError: 2,
    UnsupportedChargeError: 3,
    UnsupportedMultiplicityError: 4,
}


@dataclass(frozen=True)
class Wanted:
    """What a request says of the model that is to answer; None where it leaves that open."""

    name: str | None = None
    xc: str | None = None
    basis: str | None = None


@dataclass(frozen=True)
class Choice:
    """The model that answers.

    Attributes:
        model: takes the structure.
        differences: in what its level of theory differs from what was asked for.
        warnings: the same in words.
    """

    model: LoadedModel
    differences: tuple[LevelField, ...]
    warnings: tuple[str, ...]


def choose(
    models: Mapping[str, LoadedModel], defaults: Mapping[Kind, str | None], structure: Structure, wanted: Wanted
) -> Choice:
    """Choose among the loaded models.

    Args:
        models: by name.
        defaults: name of the model that is preferred, by kind of system.
        structure: to be predicted.
        wanted: by the caller.

    Raises:
        ServiceError: ``unknown_model``; ``not_ready`` where no model is loaded; ``invalid_request`` where several fit
            equally and none is the default, or where all answer only if they are named.
        DomainError: no model takes the structure; what the loaded ones support is in the hint.
    """
    if wanted.name is not None:
        model = named(models, wanted.name)
        model.predictor.check(structure)
        return _choice(model, wanted)
    if not models:
        raise nothing_loaded()
    default = models.get(defaults["crystals" if structure.is_periodic else "molecules"] or "")
    fitting: dict[tuple[bool, ...], list[LoadedModel]] = {}
    refusals: list[tuple[LoadedModel, DomainError]] = []
    candidates = [model for model in models.values() if answers_unnamed(model)]
    if not candidates:
        raise ServiceError(
            "invalid_request",
            "The symmetry of every loaded model is approximate; such a model answers only where it is named.",
            field="model",
            allowed=sorted(models),
            hint="Name one of them in 'model'; its card says how far from exact it is.",
        )
    for model in candidates:
        try:
            model.predictor.check(structure)
        except DomainError as error:
            refusals.append((model, error))
        else:
            differences = _differences(model, wanted)
            like_default = default is None or same_functional(_xc(model), _xc(default))
            rank = ("xc" in differences, "basis" in differences, model is not default, not like_default)
            fitting.setdefault(rank, []).append(model)
    if not fitting:
        raise _no_model_fits(refusals)
    best = _narrowest(fitting[min(fitting)])
    if len(best) > 1:
        raise ServiceError(
            "invalid_request",
            "Several of the loaded models fit equally well and none is the default.",
            field="model",
            allowed=sorted(model.name for model in best),
            hint="Name one of them in 'model'.",
        )
    return _choice(best[0], wanted)


def named(models: Mapping[str, LoadedModel], name: str) -> LoadedModel:
    """The model of this name.

    Raises:
        ServiceError: ``unknown_model``.
    """
    if name not in models:
        raise ServiceError(
            "unknown_model",
            "No model of this name is loaded.",
            field="model",
            allowed=sorted(models),
            hint="GET /v1/models lists the loaded models.",
        )
    return models[name]


def answers_unnamed(model: LoadedModel) -> bool:
    """Whether the model may be a default, or be chosen where a request names none."""
    return model.predictor.card.symmetry != "approximate"


def nothing_loaded() -> ServiceError:
    """The error where all models have been unloaded."""
    return ServiceError("not_ready", "No model is loaded.", retry_after_s=RETRY_AFTER_EMPTY_S)


def _narrowest(models: Sequence[LoadedModel]) -> Sequence[LoadedModel]:
    """Those of the fewest elements; all of them where levels of theory differ: the caller chooses those."""
    cards = [model.predictor.card for model in models]
    if not all(card.level.same_as(cards[0].level) for card in cards):
        return models
    fewest = min(len(card.elements) for card in cards)
    return [model for model, card in zip(models, cards, strict=True) if len(card.elements) == fewest]


def _differences(model: LoadedModel, wanted: Wanted) -> tuple[LevelField, ...]:
    own = model.predictor.card.level
    return own.differences(replace(own, xc=wanted.xc or own.xc, basis=wanted.basis or own.basis))


def _xc(model: LoadedModel) -> str:
    return model.predictor.card.level.xc


def _choice(model: LoadedModel, wanted: Wanted) -> Choice:
    differences = _differences(model, wanted)
    if not differences:
        return Choice(model, (), ())
    own = model.predictor.card.level
    texts: Mapping[LevelField, str] = {
        "xc": f"xc mismatch: the model was trained on {own.xc}, and another functional was asked for. The guess stays "
        "valid, but will save fewer SCF cycles.",
        "basis": f"basis mismatch: the answer is in {own.basis}, the basis of the model, and another one was asked for; "
        "nothing was projected. Its matrices do not fit a calculation in another basis.",
    }
    return Choice(model, differences, tuple(texts[field] for field in differences))


def _no_model_fits(refusals: Sequence[tuple[LoadedModel, DomainError]]) -> DomainError:
    """The error of the models that come nearest, with what all of these would have taken."""
    if len(refusals) == 1:
        return refusals[0][1]
    furthest = max(_CHECKED_IN_ORDER.get(type(error), 0) for _, error in refusals)
    nearest = [refusal for refusal in refusals if _CHECKED_IN_ORDER.get(type(refusal[1]), 0) == furthest]
    first = nearest[0][1]
    allowed = dict.fromkeys(value for _, error in nearest for value in error.allowed or ())
    texts = dict.fromkeys(error.detail for _, error in nearest)
    supported = "; ".join(_supports(model) for model, _ in refusals[:MODELS_IN_A_HINT])
    return type(first)(
        " ".join(["No loaded model takes this structure.", *texts][: MODELS_IN_A_HINT + 1]),
        allowed=list(allowed) if first.allowed is not None else None,
        hint=f"Loaded: {supported}. GET /v1/models has their cards.",
        field=first.field,
    )


def _supports(model: LoadedModel) -> str:
    card = model.predictor.card
    elements = " ".join(SYMBOLS[number] for number in card.elements)
    return (
        f"{model.name} ({kind_of(model)}; {elements}; charges {', '.join(map(str, card.charges))}; multiplicities "
        f"{', '.join(map(str, card.multiplicities))}; {card.level})"
    )


def kind_of(model: LoadedModel) -> Kind:
    """Which kind of system a model is for."""
    return "crystals" if model.predictor.card.periodic else "molecules"
