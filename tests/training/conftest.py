"""A tiny data set, made once with the project's own generator, and a tiny trained run on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule as ase_molecule
from ase.io import write

from model.blocks.spaces import BlockSpace
from model.integrals.pyscf_molecule import load_basis
from model.orbitals.space import OrbitalSpace
from model.preparation import Preparer
from model.reference.fitted import FittedReference
from training.data.sources import Frame, read_frames
from training.fit.config import RunConfig, read_run
from training.fit.losses.objective import measured_terms
from training.fit.reference import fit_reference
from training.fit.run import fit
from training.fit.samples import Sample, make_samples
from training.generate.run import Summary, generate, read_recipe

SPLITS = {"H2": "train", "H2O": "train", "CH4": "train", "NH3": "train", "HF": "val"}
CUTOFF_ANGSTROM = 15.0
"""Longest message of the architectures' tiny configurations."""
EXPONENTS = 0.08 * 4.0 ** np.arange(6, dtype=np.float64)

RUN = """
[run]
name = "tiny"
output = "run"
seed = 3
threads = 1
device = "cpu"
processes = 0
validate_every = 4
save_every = 4

[data]
file = "{data}"
validation = ["train"]  # a dozen steps on eight frames learn nothing that carries over to another molecule

[reference]
n_exponents = 6
ratio = 4.0

[network]
backbone = "qhnet"
qhnet = {{ node_channels = 8, pair_channels = 8, node_layers = 1, pair_layers = 1, hidden = 16 }}
tracegrad = {{ rank = 4, hidden = 8, n_scalars = 6 }}

[loss]
trace_ramp_steps = 4

[optimiser]
steps = 12
batch_blocks = 30
warmup_steps = 3
ema_decay = 0.9
"""


def displaced(name: str, seed: int) -> Atoms:
    """A molecule of ASE's g2 collection with its atoms moved a little."""
    atoms = ase_molecule(name)
    atoms.rattle(0.03, seed=seed)
    return Atoms(atoms.numbers, atoms.positions)


def write_recipe(folder: Path, tables: str, *, general: str = "") -> Path:
    """A recipe in ``folder`` that works in this process and writes to ``folder/data``."""
    path = folder / "recipe.toml"
    path.write_text(f'[generate]\noutput = "data"\nprocesses = 0\n{general}\n{tables}\n', encoding="utf-8")
    return path


def write_run(folder: Path, data: Path) -> Path:
    """The tiny run's file; its output is ``folder/run``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.toml"
    path.write_text(RUN.format(data=data), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """Two geometries each of H2, H2O, CH4, NH3 (train) and HF (val), labelled by the default method."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "xyz").mkdir()
    for name, split in SPLITS.items():
        frames = [displaced(name, seed) for seed in (1, 2)]
        for atoms in frames:
            atoms.info |= {"split": split, "smiles": name}
        write(folder / "xyz" / f"{name}.xyz", frames, format="extxyz")
    return generate(read_recipe(write_recipe(folder, '[structures]\nfiles = ["xyz"]\n[label]\ncheck_every = 0')))


@pytest.fixture(scope="session")
def tiny_frames(tiny: Summary) -> list[Frame]:
    """The training frames of the tiny data set."""
    return list(read_frames(tiny.file, ["train"]))


@pytest.fixture(scope="session")
def basis() -> OrbitalSpace:
    """def2-SVP of H C N O F."""
    return load_basis("def2-svp", [1, 6, 7, 8, 9])


@pytest.fixture(scope="session")
def tiny_reference(tiny_frames: list[Frame], basis: OrbitalSpace) -> FittedReference:
    """H0 fitted to the tiny training set."""
    return fit_reference(tiny_frames, basis, exponents=EXPONENTS, density_weight=0.03, processes=0)


@pytest.fixture(scope="session")
def tiny_preparer(basis: OrbitalSpace, tiny_reference: FittedReference) -> Preparer:
    """What prepares the tiny set's structures."""
    return Preparer(basis, BlockSpace.of(basis.template), CUTOFF_ANGSTROM, reference=tiny_reference)


@pytest.fixture(scope="session")
def tiny_samples(tiny_frames: list[Frame], tiny_preparer: Preparer) -> list[Sample]:
    """The tiny training set as samples, with what every loss term needs."""
    return make_samples(tiny_frames, tiny_preparer, measured_terms(molecular=True), cache=None, processes=0)


@pytest.fixture(scope="session")
def trained(tiny: Summary, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The tiny run, trained to its end without a stop."""
    config = read_run(write_run(tmp_path_factory.mktemp("trained"), tiny.file))
    fit(config)
    return config
