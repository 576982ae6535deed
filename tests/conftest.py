"""Fixtures that many tests share: molecules, the released checkpoint, a checkpoint of random weights, the labelled data."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule as ase_molecule
from hypothesis import settings

from model.architectures.registry import ARCHITECTURES
from model.checkpoint import store
from model.checkpoint.golden import golden_record
from model.checkpoint.self_test import measure_symmetry
from model.hamiltonian_model import HamiltonianModel
from model.network_config import NetworkConfig
from model.predictor import Predictor
from model.structure import Structure

ROOT = Path(__file__).resolve().parents[1]
RELEASED = ROOT / "checkpoints" / "default"

torch.set_num_threads(1)

# what a busy machine does to a single example is no property of the code
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def structure_of(name: str) -> Structure:
    """A molecule of ASE's g2 collection."""
    atoms = ase_molecule(name)
    return Structure(atoms.numbers, atoms.positions)


@pytest.fixture(scope="session")
def molecule() -> Callable[[str], Structure]:
    """name in ASE's g2 collection -> Structure."""
    return structure_of


def shared_file(*parts: str) -> Path:
    """A file or folder of the data that are too large, or too foreign, to be committed; skips where it is absent."""
    path = Path(os.environ.get("TRACEGRAD_SHARED", ROOT.parent / "shared")).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is not there (set TRACEGRAD_SHARED to the folder of shared data)")
    return path


@pytest.fixture(scope="session")
def data_file() -> Path:
    """The labelled data set, where there is one."""
    path = Path(os.environ.get("TRACEGRAD_DATA", ROOT.parent / "shared" / "data" / "molecules" / "focks.h5"))
    if not path.is_file():
        pytest.skip(f"{path.name} is not there (set TRACEGRAD_DATA; docs/training.md says how to make one)")
    return path


@pytest.fixture(scope="session")
def released() -> Predictor:
    """The default checkpoint, float32, as it is served."""
    return Predictor.load(RELEASED)


@pytest.fixture(scope="session")
def released_float64() -> Predictor:
    """The default checkpoint with float64 arithmetic: laws hold to rounding."""
    return Predictor.load(RELEASED, dtype=torch.float64)


def make_tiny_checkpoint(folder: Path, architecture: Mapping[str, object]) -> Path:
    """A complete checkpoint folder with a small network of random weights; its corrections to H are not zero."""
    folder.mkdir()
    source = store.load(RELEASED)
    torch.manual_seed(7)
    model = HamiltonianModel(
        NetworkConfig.from_mapping(architecture), source.card.space(), reference=source.model.reference
    )
    model.standardisation.load_state_dict(source.model.standardisation.state_dict())
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            if "read_out.linear.weight" in name:  # they start at zero
                weight.copy_(0.1 * torch.randn(weight.shape))
    digest = store.save_weights(folder / store.WEIGHTS, model)
    approximate = model.network.config.symmetry == "approximate"
    card = source.card.model_dump() | {
        "name": "tiny",
        "description": "random weights, for tests",
        "architecture": NetworkConfig.from_mapping(architecture).to_mapping(),
        "symmetry": model.network.config.symmetry,
        "symmetry_error": {"hamiltonian": 0.0, "energy": 0.0} if approximate else None,
        "weights_sha256": digest,
        "metrics": {},
        "largest_tested": {"atoms": 12, "heavy_atoms": 4, "orbitals": 120},
    }
    store.save_json(folder / store.CARD, card)
    store.save_json(folder / store.GOLDEN, {"energy_unit": "hartree", "structures": []})
    predictor = Predictor.load(folder, verify_golden=False)
    golden = golden_record(predictor, {"water": structure_of("H2O")})
    store.save_json(folder / store.GOLDEN, golden)
    if approximate:
        error = measure_symmetry(predictor, golden).model_dump()
        store.save_json(folder / store.CARD, card | {"symmetry_error": error})
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights."""
    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", ARCHITECTURES["qhnet"].tiny)


@pytest.fixture(scope="session")
def random_weights_float64(tiny_checkpoint: Path) -> Predictor:
    """The random checkpoint with float64 arithmetic."""
    return Predictor.load(tiny_checkpoint, dtype=torch.float64)


@pytest.fixture(scope="session")
def random_frames_float64(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A random checkpoint of the backbone in bond frames, float64."""
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("frames") / "tiny", ARCHITECTURES["qhnetv2"].tiny)
    return Predictor.load(folder, dtype=torch.float64)


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded random numbers."""
    return np.random.default_rng(20)
