"""``python -m training release``: turn a run's weights and its evaluation into a checkpoint folder.

The folder is written beside its final place, loaded back and checked (hash, shapes, golden molecules), and only then
moved there; a failed release leaves the old checkpoint as it was.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from torch import Tensor

from model.checkpoint import store
from model.checkpoint.card import Card
from model.checkpoint.migrations import FORMAT_VERSION
from model.checkpoint.verify import golden_record
from model.electronic.dependence import OVERLAP_DAMPING
from model.errors import CheckpointError
from model.hamiltonian_model import HamiltonianModel
from model.integrals.pyscf_molecule import load_basis
from model.level import Level
from model.predictor import Predictor
from model.structure import SYMBOLS, Structure
from training.data.sources import AUTO, open_source
from training.fit.config import RunConfig
from training.fit.run import load_or_fit_reference, run_record
from training.fit.state import STATE_FILE, read_tensors

REFERENCE_NOTES: Final = {
    "fitted": "core Hamiltonian plus fitted atom-centred Coulomb potentials, projectors and their "
    "first-order response; no grid, no four-centre integrals (model/hamiltonian/reference.py)",
    "none": "none: the network predicts the whole Hamiltonian",
}

GOLDEN_MOLECULES: Final = {
    "water": Structure.from_symbols(
        ["O", "H", "H"], [[0.0, 0.0, 0.119262], [0.0, 0.763239, -0.477047], [0.0, -0.763239, -0.477047]]
    ),
    "fluoromethanimine": Structure.from_symbols(
        ["C", "N", "F", "H", "H"],
        [[0.10, 0.41, 0.02], [1.02, -0.46, -0.05], [-1.17, -0.03, 0.03], [0.12, 1.50, 0.06], [1.91, 0.04, -0.02]],
    ),
}


def release(
    config: RunConfig,
    folder: Path,
    *,
    version: str,
    description: str,
    licence: str,
    report: Mapping[str, Any] | None,
    weights: str = "best",
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

    Raises:
        CheckpointError: the run has no such weights yet, the report is not about these weights, or the result cannot be
            loaded back; nothing was replaced.
    """
    fitted = config.reference.kind == "fitted"
    needed = ["best.safetensors"] + ["reference.safetensors"] * fitted + [STATE_FILE] * (weights == "last")
    for name in needed:
        if not (config.output / name).is_file():
            raise CheckpointError(
                f"The run {config.name!r} has no {name}.", hint="Run 'python -m training fit' with this run file first."
            )
    basis = load_basis(config.basis, [SYMBOLS.index(symbol) for symbol in config.elements])
    reference = load_or_fit_reference(config, basis, [])
    model = HamiltonianModel(config.network, basis, reference=reference)
    network, standardisation = model.network, model.standardisation
    tensors, metadata = read_tensors(config.output / "best.safetensors")
    network.load_state_dict(_group(tensors, "network/"))
    standardisation.load_state_dict(_group(tensors, "standardisation/"))
    step, validation = int(metadata["step"]), json.loads(metadata["validation"])
    if weights == "last":
        tensors, metadata = read_tensors(config.output / STATE_FILE)
        network.load_state_dict(network.state_dict() | _group(tensors, "average/"))
        step = int(json.loads(metadata["progress"])["step"])
        validation = _validation(config.output / "metrics.jsonl", step)
    level, states = _labels(config)
    record = run_record(config)
    record |= {"weights": weights, "step": step, "validation": validation}
    temporary = folder.with_name(folder.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        digest = store.save_weights(temporary / store.WEIGHTS, model)
        if report is not None and report.get("weights_sha256") != digest:
            raise CheckpointError(
                f"The report is about weights {str(report.get('weights_sha256'))[:16]}..., these are {digest[:16]}...",
                hint="Release without a report, evaluate that checkpoint, and release again with its report.",
            )
        values: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "name": folder.name,
            "version": version,
            "description": description,
            "created": datetime.date.today().isoformat(),
            "licence": licence,
            "architecture": config.network.to_mapping(),
            "elements": list(basis.elements),
            "basis": {
                "name": basis.name,
                "shells": {SYMBOLS[z]: list(basis.shells[z]) for z in basis.elements},
                "fingerprint": basis.fingerprint,
                "order": basis.order,
                "valence": None,
            },
            "spin": "restricted",
            "time_reversal": False,
            "periodic": False,
            "inputs": list(model.preparer.inputs),
            "integrals": model.preparer.source,
            "pair_cutoffs_angstrom": None,
            "symmetry": config.network.declaration.symmetry,
            "xc": level.xc,
            "xc_note": level.note,
            "charges": sorted({charge for charge, _ in states}),
            "multiplicities": sorted({multiplicity for _, multiplicity in states}),
            "target": "hamiltonian_minus_reference" if fitted else "hamiltonian",
            "reference": {
                "kind": config.reference.kind,
                "description": REFERENCE_NOTES[config.reference.kind],
                "overlap_damping": OVERLAP_DAMPING if fitted else 0.0,
            },
            "statistics": "per (element pair, shell pair, irrep) root mean square over the training set; scalars of "
            "diagonal blocks centred",
            "units": {"length": "angstrom", "energy": "hartree"},
            "training": record,
            "metrics": {} if report is None else {k: v["summary"] for k, v in report["splits"].items()},
            "largest_tested": _largest(report),
            "libraries": libraries() | {f"{level.program.lower()} (labels)": level.program_version},
            "weights_sha256": digest,
        }
        try:
            card = Card.model_validate(values)
        except ValidationError as error:
            raise CheckpointError(f"The card would not be valid: {error}") from error
        store.save_json(temporary / store.CARD, card.model_dump())
        store.save_json(temporary / store.GOLDEN, {"energy_unit": "hartree", "molecules": []})
        known = set(basis.elements)
        golden = {n: s for n, s in GOLDEN_MOLECULES.items() if set(s.numbers.tolist()) <= known}
        store.save_json(temporary / store.GOLDEN, golden_record(Predictor.load(temporary, verify_golden=False), golden))
        (temporary / "README.md").write_text(render(card), encoding="utf-8")
        Predictor.load(temporary)
        _replace(folder, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return card


def _labels(config: RunConfig) -> tuple[Level, set[tuple[int, int]]]:
    """Level of the run's labels, and the charges and multiplicities in all of its files."""
    states: set[tuple[int, int]] = set()
    for path in config.data.extra:
        with open_source(path, AUTO) as source:
            states |= source.charge_states()
    with open_source(config.data.file, config.data.format) as source:
        return source.level, states | source.charge_states()


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
        f"* largest tested: {card.largest_tested.heavy_atoms} heavy atoms, {card.largest_tested.atoms} atoms, "
        f"{card.largest_tested.orbitals} orbitals",
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


def _largest(report: Mapping[str, Any] | None) -> dict[str, int]:
    frames = [] if report is None else [frame for split in report["splits"].values() for frame in split["frames"]]
    if not frames:
        return {"atoms": 0, "heavy_atoms": 0, "orbitals": 0}
    return {name: int(max(frame[name] for frame in frames)) for name in ("atoms", "heavy_atoms", "orbitals")}


def _replace(folder: Path, temporary: Path) -> None:
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _validation(path: Path, step: int) -> dict[str, float]:
    """What the run logged at a step; empty if it was cut between two validations."""
    lines: list[dict[str, float]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found: dict[str, float] = next((line for line in reversed(lines) if line["step"] == step), {})
    return {name: value for name, value in found.items() if name not in ("step", "seconds")}


def _group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
