"""Checkpoint folders: ``card.json`` + ``weights.safetensors`` + ``golden.json``. Hash first, then load; never pickle.

Weights are groups of tensors: ``network/...``, ``standardisation/...``, ``reference/...`` unless the card says that there
is no reference, and ``integrals/...`` (float64) if its integrals are ``two_centre``. Every expected tensor must be there with
its shape, and no other. ``expectation.json`` (``expectation``) and ``shifts.json`` (``shifts``) may lie beside them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save_file
from torch import Tensor

from model.checkpoint.card import Card, read_card
from model.checkpoint.expectation import Expectation, read_expectation
from model.checkpoint.limits import (
    MAX_GOLDEN_BYTES,
    MAX_GOLDEN_STRUCTURES,
    MAX_WEIGHTS_BYTES,
    check_size,
    read_json,
)
from model.checkpoint.migrations import migrate_golden
from model.checkpoint.parameter_count import no_larger_than
from model.checkpoint.shifts import Shifts, read_shifts
from model.errors import CheckpointError
from model.hamiltonian_model import HamiltonianModel
from model.integrals.two_centre_tables import TwoCentreTables
from model.network_config import NetworkConfig
from model.preparation import PairRule
from model.reference.none import NoReference
from model.reference.registry import REFERENCES

CARD: Final = "card.json"
WEIGHTS: Final = "weights.safetensors"
GOLDEN: Final = "golden.json"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        card: its description.
        model: network in eval mode, tables, reference, space.
        golden: stored answers (``golden.golden_record``).
        expectation: what error its guesses have, if that was measured.
        shifts: to other functionals, if some were fitted.
    """

    card: Card
    model: HamiltonianModel
    golden: dict[str, Any]
    expectation: Expectation | None = None
    shifts: Shifts | None = None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_weights(path: Path, model: HamiltonianModel) -> str:
    """Write ``weights.safetensors``; returns its SHA-256."""
    tensors: dict[str, Tensor] = {f"network/{name}": value for name, value in model.network.state_dict().items()}
    tensors |= {f"standardisation/{name}": value for name, value in model.standardisation.state_dict().items()}
    tensors |= {f"reference/{name}": torch.from_numpy(value) for name, value in model.reference.tensors().items()}
    if model.preparer.tables is not None:
        arrays = model.preparer.tables.to_arrays()
        tensors |= {f"integrals/{name}": torch.from_numpy(value) for name, value in arrays.items()}
    temporary = path.with_suffix(".part")
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary)
    temporary.chmod(0o644)  # safetensors makes private files; the service runs as another user
    os.replace(temporary, path)
    return sha256_of(path)


def save_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file, indented, atomically; NaN is refused."""
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def load(folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Checkpoint:
    """Load and verify a checkpoint folder.

    Args:
        folder: the folder.
        device: torch device.
        dtype: of the network's arithmetic; weights are stored in float32.

    Raises:
        CheckpointError: anything missing, a wrong hash, a missing, extra or misshapen tensor, an unknown architecture.
    """
    if not folder.is_dir():
        raise CheckpointError(f"There is no checkpoint folder {folder.name!r}.", hint="Check the path that was given.")
    card = read_card(folder / CARD)
    tensors = _read_weights(folder, card)
    golden = _read_golden(folder)
    space = card.space()
    kind = REFERENCES[card.reference.kind]
    stored = {name: value.double().numpy() for name, value in _group(tensors, "reference/").items()}
    shapes = kind.shapes(space, stored)
    expected = {f"reference/{name}": torch.Size(shape) for name, shape in shapes.items()}
    reference = kind.from_tensors(space, stored) if set(stored) == set(shapes) else NoReference()  # refused below
    tables = None
    if card.integrals == "two_centre":
        arrays = {name: value.double().numpy() for name, value in _group(tensors, "integrals/").items()}
        tables = TwoCentreTables.from_arrays(space.shells, arrays)
        expected |= {f"integrals/{name}": torch.Size(value.shape) for name, value in tables.to_arrays().items()}
    config = NetworkConfig.from_mapping(card.architecture)
    with no_larger_than(tensors):
        model = HamiltonianModel(
            config,
            space,
            inputs=card.inputs,
            source=card.integrals,
            reference=reference,
            pairs=PairRule(card.pair_cutoffs_angstrom),
            spin=card.spin,
            time_reversal=card.time_reversal,
            tables=tables,
        )
    network, standardisation = model.network, model.standardisation
    expected |= {f"network/{name}": value.shape for name, value in network.state_dict().items()}
    expected |= {f"standardisation/{name}": value.shape for name, value in standardisation.state_dict().items()}
    _compare(folder.name, expected, {name: value.shape for name, value in tensors.items()})
    bad = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if bad:
        raise CheckpointError(f"{folder.name}/{WEIGHTS}: {bad[0]} holds values that are not finite.")
    network.load_state_dict(_group(tensors, "network/"))
    standardisation.load_state_dict(_group(tensors, "standardisation/"))
    model.eval().requires_grad_(False)
    expectation = read_expectation(folder, card.weights_sha256)
    shifts = read_shifts(folder, card.weights_sha256, space)
    return Checkpoint(card, model.to(device=device, dtype=dtype), golden, expectation, shifts)


def _read_weights(folder: Path, card: Card) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{folder.name}/ has no {WEIGHTS}.", hint="Copy the whole checkpoint folder.")
    check_size(path, MAX_WEIGHTS_BYTES)
    data = path.read_bytes()  # hashed and parsed from the same bytes: the file cannot change in between
    digest = hashlib.sha256(data).hexdigest()
    if digest != card.weights_sha256:
        raise CheckpointError(
            f"{folder.name}/{WEIGHTS} has SHA-256 {digest[:16]}..., the card says {card.weights_sha256[:16]}....",
            hint="The file is damaged or belongs to another card; copy the checkpoint folder again.",
        )
    try:
        return _renamed(load_bytes(data))
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{folder.name}/{WEIGHTS} is not a safetensors file: {error}.") from error


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Today's names: in older checkpoints the compact QHNet's read-out stands beside its backbone, not in it."""
    older = ("network/diagonal_read_out.", "network/pair_read_out.")
    return {
        name.replace("network/", "network/backbone.", 1) if name.startswith(older) else name: value
        for name, value in tensors.items()
    }


def _read_golden(folder: Path) -> dict[str, Any]:
    try:
        golden = read_json(folder / GOLDEN, MAX_GOLDEN_BYTES)
    except FileNotFoundError:
        raise CheckpointError(f"{folder.name}/ has no {GOLDEN}.", hint="Copy the whole checkpoint folder.") from None
    entries = golden.get("structures", golden.get("molecules")) if isinstance(golden, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_GOLDEN_STRUCTURES:
        raise CheckpointError(
            f"{folder.name}/{GOLDEN} holds no list of at most {MAX_GOLDEN_STRUCTURES} structures.",
            hint="Release it again.",
        )
    return migrate_golden(golden)


def _compare(name: str, expected: Mapping[str, torch.Size], found: Mapping[str, torch.Size]) -> None:
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    shapes = sorted(key for key in set(expected) & set(found) if expected[key] != found[key])
    if missing or extra or shapes:
        parts = [
            f"{what} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
            for what, names in (("missing", missing), ("not expected", extra), ("of another shape", shapes))
            if names
        ]
        raise CheckpointError(
            f"{name}/{WEIGHTS} does not fit its card's architecture: tensors {'; '.join(parts)}.",
            hint="Card and weights are of different runs or versions; release the checkpoint again.",
        )


def _group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
