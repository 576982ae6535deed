"""What a card says of a run: its model, its labels, its figures; and the README that is rendered from it."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from model.checkpoint.card import BasisCard, Card, SymmetryError
from model.checkpoint.migrations import FORMAT_VERSION
from model.checkpoint.support import Support
from model.electronic.dependence import OVERLAP_DAMPING
from model.errors import CheckpointError
from model.hamiltonian_model import HamiltonianModel
from model.reference.fitted import FittedReference
from model.reference.none import NoReference
from model.structure import SYMBOLS
from training.fit.config import RunConfig
from training.fit.labels import TrainedOn
from training.fit.model import run_record


@dataclass(frozen=True)
class Trained:
    """A run's weights.

    Attributes:
        model: with them.
        which: "best" or "last".
        step: that they are of.
        validation: what was measured then; empty if nothing was.
    """

    model: HamiltonianModel
    which: str
    step: int
    validation: Mapping[str, float]


def of_model(
    config: RunConfig, trained: Trained, support: Support | None, symmetry_error: SymmetryError | None = None
) -> dict[str, Any]:
    """The card's keys about the model and its training.

    Args:
        config: the run.
        trained: its weights.
        support: of a run of crystals.
        symmetry_error: of an approximate symmetry; still unknown where it is about to be measured.
    """
    model, kind = trained.model, config.reference.kind
    space, preparer = model.space, model.preparer
    cutoffs = preparer.pairs.cutoffs_angstrom
    training = run_record(config)
    training |= {"weights": trained.which, "step": trained.step, "validation": dict(trained.validation)}
    return {
        "architecture": config.network.to_mapping(),
        "elements": list(space.elements),
        "basis": BasisCard.of(space).model_dump(),
        "spin": model.block_space.spin,
        "time_reversal": model.block_space.time_reversal,
        "periodic": cutoffs is not None,
        "inputs": list(preparer.inputs),
        "integrals": preparer.source,
        "pair_cutoffs_angstrom": None if cutoffs is None else dict(cutoffs),
        "support": None if support is None else support.model_dump(),
        "gauge": "overlap" if cutoffs is not None and config.data.gauge != "none" else "none",
        "symmetry": config.network.symmetry,
        "symmetry_error": None if symmetry_error is None else symmetry_error.model_dump(),
        "kinetic_damping": config.loss.bands_damping,
        "target": "hamiltonian" if kind == NoReference.kind else "hamiltonian_minus_reference",
        "reference": {
            "kind": kind,
            "description": model.reference.note,
            "overlap_damping": OVERLAP_DAMPING if kind == FittedReference.kind else 0.0,
        },
        "statistics": "per (element pair, shell pair, irrep) root mean square over the training set; scalars of "
        "diagonal blocks centred",
        "training": training,
    }


def of_labels(labels: TrainedOn) -> dict[str, Any]:
    """The card's keys about the data that were really trained on."""
    level = labels.level
    return {
        "xc": level.xc,
        "xc_note": level.note,
        "potentials": level.potentials,
        "charges": list(labels.charges),
        "multiplicities": list(labels.multiplicities),
        "libraries": libraries() | {f"{level.program.lower()} (labels)": level.program_version},
    }


def of_report(report: Mapping[str, Any] | None) -> dict[str, Any]:
    """The card's keys about what was measured."""
    splits = {} if report is None else report["splits"]
    frames = [frame for split in splits.values() for frame in split["frames"]]
    sizes = ("atoms", "heavy_atoms", "orbitals")
    return {
        "metrics": {name: split["summary"] for name, split in splits.items()},
        "largest_tested": {name: int(max((frame.get(name, 0) for frame in frames), default=0)) for name in sizes},
    }


def make_card(values: Mapping[str, Any], digest: str) -> Card:
    """A card from the parts below and what a release is called.

    Raises:
        CheckpointError: it would not be valid.
    """
    fixed = {
        "format_version": FORMAT_VERSION,
        "created": datetime.date.today().isoformat(),
        "units": {"length": "angstrom", "energy": "hartree"},
        "weights_sha256": digest,
    }
    try:
        return Card.model_validate({**values, **fixed})
    except ValidationError as error:
        raise CheckpointError(f"The card would not be valid: {error}") from error


def libraries() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("torch", "e3nn", "numpy", "scipy", "pyscf", "ase", "safetensors")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def render(card: Card) -> str:
    """A checkpoint's README from its card."""
    rows = sorted({name for summary in card.metrics.values() for name in summary})
    splits = list(card.metrics)
    lines = [
        f"# {card.name} {card.version}",
        "",
        "<!-- rendered from card.json by 'python -m training release'; do not edit -->",
        "",
        card.description,
        "",
        f"* elements: {' '.join(SYMBOLS[z] for z in card.elements)}; charge {card.charges}, "
        f"multiplicity {card.multiplicities}",
        f"* level: {card.xc} / {card.basis.name}. {card.xc_note}.",
        *_size(card),
        *_crystal(card),
        *_symmetry(card),
        f"* weights: SHA-256 `{card.weights_sha256}`",
        f"* licence: {card.licence}",
        "",
    ]
    if splits:
        lines += ["| metric | " + " | ".join(splits) + " |", "|---|" + "---|" * len(splits)]
        for name in rows:
            values = [card.metrics[split].get(name) for split in splits]
            lines.append(f"| {name} | " + " | ".join("" if v is None else f"{v:.4g}" for v in values) + " |")
        lines.append("")
    return "\n".join(lines)


def _size(card: Card) -> list[str]:
    """The largest molecule that was tested; a crystal's network is local."""
    if card.periodic:
        return []
    tested = card.largest_tested
    return [f"* largest tested: {tested.heavy_atoms} heavy atoms, {tested.atoms} atoms, {tested.orbitals} orbitals"]


def _crystal(card: Card) -> list[str]:
    """Pairs, surroundings and zero of energy of a crystal's checkpoint."""
    if not card.periodic:
        return []
    lines = [f"* blocks between atoms up to {_listed(card.pair_cutoffs_angstrom or {})} Å apart"]
    if card.support is not None:
        neighbours = {symbol: f"{least} to {most}" for symbol, (least, most) in card.support.neighbours.items()}
        lines.append(
            f"* trained on distances from {_listed(card.support.shortest_angstrom)} Å; neighbours {_listed(neighbours)}"
        )
    if card.gauge == "overlap":
        lines.append(
            "* zero of energy: H has no component along S (<H, S> = 0); only differences of energies mean anything"
        )
    return lines


def _listed(values: Mapping[str, object]) -> str:
    """Values by name, numbers to hundredths."""
    shown = {name: f"{value:.2f}" if isinstance(value, float) else str(value) for name, value in sorted(values.items())}
    return ", ".join(f"{value} ({name})" for name, value in shown.items())


def _symmetry(card: Card) -> list[str]:
    """A line on symmetry where it is not exact."""
    if card.symmetry_error is None:
        return []
    found = card.symmetry_error
    return [
        f"* rotations and reflections are approximate: measured errors up to {1e3 * found.hamiltonian:.2g} mEh in H, "
        f"{1e3 * found.energy:.2g} mEh in orbital energies"
    ]
