"""``python -m training release``: turn a run's weights and its evaluation into a checkpoint folder.

The folder is written beside its final place, loaded back and checked (hash, shapes, golden molecules), and only then
moved there; a failed release leaves the old checkpoint as it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from model.checkpoint import store
from model.checkpoint.card import Card, SymmetryError, read_card
from model.checkpoint.golden import golden_molecules, golden_record
from model.checkpoint.self_test import measure_symmetry
from model.errors import CheckpointError
from model.predictor import Predictor
from model.preparation import PairRule
from model.reference.none import NoReference
from model.structure import SYMBOLS, Structure
from training.card import Trained, make_card, of_labels, of_model, of_report, render
from training.fit.config import RunConfig
from training.fit.domain import DOMAIN_FILE, Domain
from training.fit.labels import read_labels, with_level
from training.fit.model import build_model, load_or_fit_reference, load_or_fit_tables, orbital_space
from training.fit.start import REFERENCE_FILE
from training.fit.state import BEST_FILE, STATE_FILE, read_tensors


def release(
    config: RunConfig,
    folder: Path,
    *,
    version: str,
    description: str,
    licence: str,
    report: Mapping[str, Any] | None,
    weights: str = "best",
    elements: Sequence[str] = (),
) -> Card:
    """Write a checkpoint folder.

    Args:
        config: the run.
        folder: where the checkpoint will be; its name is the checkpoint's.
        version: like 1.2.0.
        description: for people.
        licence: of weights and labels.
        report: from ``training.evaluate.report`` of these very weights, or None for a first release that is then evaluated.
        weights: "best": of the best validation; "last": the average at the end, for a run on data unlike the validation's.
        elements: symbols that the checkpoint may be asked about, where its evaluation shows that others of the run's are
            not good enough yet; none for all.

    Raises:
        CheckpointError: the run has no such weights yet, an element that it does not have, the report is not about these
            weights, the version exists with other weights, or the result cannot be loaded back; nothing was replaced.
    """
    labels = read_labels(config.output, config)
    config = with_level(config, labels.level)
    trained = trained_weights(config, weights)
    with _staged(folder) as temporary:
        digest = store.save_weights(temporary / store.WEIGHTS, trained.model)
        _refuse_other_report(report, digest)
        _refuse_used_version(folder, version, digest)
        named = {"name": folder.name, "version": version, "description": description, "licence": licence}
        approximate = config.network.symmetry == "approximate"
        unknown = SymmetryError(hamiltonian=0.0, energy=0.0) if approximate else None
        domain = crystal_domain(config)
        model = of_model(config, trained, None if domain is None else domain.support, unknown)
        served = {"elements": _served(elements, model["elements"])}
        card = make_card(named | model | served | of_labels(labels) | of_report(report), digest)
        examples = () if domain is None else domain.examples
        _write(temporary, card, [each for each in examples if set(each.numbers.tolist()) <= set(card.elements)])
        if approximate:
            card = _measured(temporary, card)
        Predictor.load(temporary)
    return card


def crystal_domain(config: RunConfig) -> Domain | None:
    """What a run of crystals found in its data; None for one of molecules."""
    return Domain.load(config.output) if (config.output / DOMAIN_FILE).is_file() else None


def trained_weights(config: RunConfig, which: str) -> Trained:
    """Read a run's weights.

    Raises:
        CheckpointError: the run has none yet.
    """
    fitted = config.reference.kind != NoReference.kind
    for name in [BEST_FILE] + [REFERENCE_FILE] * fitted + [STATE_FILE] * (which == "last"):
        if not (config.output / name).is_file():
            raise CheckpointError(
                f"The run {config.name!r} has no {name}.", hint="Run 'python -m training fit' with this run file first."
            )
    domain = crystal_domain(config)
    space = orbital_space(config, []) if domain is None else domain.space
    pairs = PairRule() if domain is None else domain.pairs
    reference = load_or_fit_reference(config, space, [])
    model = build_model(config, space, reference, pairs, load_or_fit_tables(config, space, []))
    tensors, metadata = read_tensors(config.output / BEST_FILE)
    model.network.load_state_dict(_group(tensors, "network/"))
    model.standardisation.load_state_dict(_group(tensors, "standardisation/"))
    if which == "best":
        return Trained(model, which, int(metadata["step"]), json.loads(metadata["validation"]))
    tensors, metadata = read_tensors(config.output / STATE_FILE)
    model.network.load_state_dict(model.network.state_dict() | _group(tensors, "average/"))
    step = int(json.loads(metadata["progress"])["step"])
    return Trained(model, which, step, _validation(config.output / "metrics.jsonl", step))


def _write(folder: Path, card: Card, crystals: Sequence[Structure]) -> None:
    """Card, golden answers and README, beside the weights."""
    store.save_json(folder / store.CARD, card.model_dump())
    store.save_json(folder / store.GOLDEN, {"energy_unit": "hartree", "structures": []})
    golden = (
        dict(_named(crystals)) if card.periodic else golden_molecules(card.elements, card.charges, card.multiplicities)
    )
    if not golden:
        raise CheckpointError(
            f"No golden molecule has the card's elements and charges {card.charges}.",
            hint="Add a small molecule of the domain to model/checkpoint/golden.py: loading repeats its answer.",
        )
    store.save_json(folder / store.GOLDEN, golden_record(Predictor.load(folder, verify_golden=False), golden))
    (folder / "README.md").write_text(render(card), encoding="utf-8")


def _served(chosen: Sequence[str], trained: list[int]) -> list[int]:
    """Atomic numbers that a card lists, of those that were trained on."""
    unknown = [symbol for symbol in chosen if symbol not in SYMBOLS or SYMBOLS.index(symbol) not in trained]
    if unknown:
        raise CheckpointError(
            f"The run was not trained on {', '.join(unknown)}.", allowed=[SYMBOLS[number] for number in trained]
        )
    return sorted(SYMBOLS.index(symbol) for symbol in chosen) or trained


def _named(crystals: Sequence[Structure]) -> Iterator[tuple[str, Structure]]:
    """Golden crystals by their formulas."""
    for structure in crystals:
        symbols = [SYMBOLS[z] for z in structure.numbers.tolist()]
        yield "".join(f"{symbol}{symbols.count(symbol)}" for symbol in sorted(set(symbols))), structure


def _measured(folder: Path, card: Card) -> Card:
    """The card of an approximate symmetry, written again with what it is."""
    predictor = Predictor.load(folder)
    card = card.model_copy(update={"symmetry_error": measure_symmetry(predictor, predictor.checkpoint.golden)})
    store.save_json(folder / store.CARD, card.model_dump())
    (folder / "README.md").write_text(render(card), encoding="utf-8")
    return card


def _refuse_other_report(report: Mapping[str, Any] | None, digest: str) -> None:
    if report is not None and report.get("weights_sha256") != digest:
        raise CheckpointError(
            f"The report is about weights {str(report.get('weights_sha256'))[:16]}..., these are {digest[:16]}...",
            hint="Release without a report, evaluate that checkpoint, and release again with its report.",
        )


def _refuse_used_version(folder: Path, version: str, digest: str) -> None:
    """A version is one set of weights for ever; the same weights may be released again, with their report."""
    if not (folder / store.CARD).is_file():
        return
    old = read_card(folder / store.CARD)
    if old.version == version and old.weights_sha256 != digest:
        raise CheckpointError(
            f"{folder} is version {version} already, with other weights ({old.weights_sha256[:16]}...).",
            hint="Give --version a number that is not taken.",
        )


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A folder that takes the place of ``folder`` at the end; after an exception nothing has changed."""
    temporary, old = folder.with_name(folder.name + ".part"), folder.with_name(folder.name + ".old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _validation(path: Path, step: int) -> dict[str, float]:
    """What the run logged at a step; empty if it was cut between two validations."""
    lines: list[dict[str, float]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found: dict[str, float] = next((line for line in reversed(lines) if line["step"] == step), {})
    return {name: value for name, value in found.items() if name not in ("step", "seconds")}


def _group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
