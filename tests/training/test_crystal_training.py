"""Training in block space: crystals and spins have no orbitals of a molecule, and need none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.architectures.registry import ARCHITECTURES
from model.blocks.block_set import BlockSet, Spin
from model.blocks.gauge import gauge_shift
from model.checkpoint.self_test import self_test
from model.errors import CheckpointError, IntegralError
from model.hamiltonian_model import HamiltonianModel
from model.integrals.bond_channels import BondChannels
from model.integrals.two_centre_tables import PairTable, TwoCentreTables, channels_of
from model.level import Level
from model.network_config import NetworkConfig
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.predictor import Predictor
from model.preparation import PairRule
from model.reference.two_centre import TwoCentreReference
from model.structure import Structure
from training.data import sources
from training.data.frame import DatasetError, Frame, FrameSource
from training.fit.config import ConfigError, LossConfig, read_run
from training.fit.losses.objective import Objective
from training.fit.model import load_or_fit_tables, orbital_space, pair_rule
from training.fit.run import fit
from training.fit.samples import join, make_samples
from training.fit.start import INTEGRALS_FILE
from training.fit.state import STATE_FILE, read_tensors
from training.release import release

SPINS: tuple[Spin, ...] = ("restricted", "unrestricted", "spinor")
SPACE = OrbitalSpace("test", {1: (0,), 5: (0, 1), 7: (0, 0, 1)}, order="openmx", valence={1: 1, 5: 3, 7: 5})
LABEL_CUTOFF_ANGSTROM = 3.0

RUN = """
[run]
output = "run"
threads = 1
device = "cpu"
processes = 0
validate_every = 5
[data]
file = "crystals.test"
format = "test"
[model]
integrals = "given"
inputs = ["overlap"]
[reference]
kind = "none"
[network]
backbone = "qhnetv2"
qhnetv2 = {{ node_channels = 8, pair_channels = 8, layers = 1, hidden = 16, n_inputs = 1 }}
tracegrad = {{ rank = 4, hidden = 8, n_scalars = 6 }}
[loss]
{loss}
[optimiser]
steps = 10
warmup_steps = 2
ema_decay = 0.0
"""


def crystal(seed: int, spin: Spin) -> Frame:
    """Boron nitride with hydrogens above it, moved a little, with a random hermitian label that decays with distance."""
    rng = np.random.default_rng(seed)
    cell = np.array([[2.5, 0.0, 0.0], [-1.25, 2.165, 0.0], [0.0, 0.0, 12.0]])
    positions = np.array([[0.0, 0.0, 6.0], [1.25, 0.72, 6.0], [0.0, 0.0, 7.3], [1.25, 0.72, 7.2]])
    positions = positions + 0.05 * rng.normal(size=(4, 3))
    structure = Structure(np.array([5, 7, 1, 1]), positions, cell_angstrom=cell, pbc=(True, True, False))
    pairs = PairList.within(structure, LABEL_CUTOFF_ANGSTROM)

    def label(parts: Spin) -> BlockSet:
        empty = BlockSet.zeros(SPACE, structure.numbers, pairs, parts)
        decay = np.repeat(np.exp(-pairs.distances_angstrom), np.diff(empty.starts))
        values = rng.normal(size=empty.values.shape) + 0.3
        if parts == "spinor":
            values = values + 1j * rng.normal(size=empty.values.shape)
        return empty.with_values(0.1 * values * decay).hermitised()

    return Frame("bn", seed, structure, label(spin), overlap=label("restricted"), split="train")


def two_centre_tables() -> TwoCentreTables:
    """Made up: overlaps that decay, on-site ones."""
    pairs = {}
    for elements in ((5, 5), (5, 1), (5, 7), (1, 1), (1, 7), (7, 7)):
        n_channels = channels_of(SPACE.shells, elements).n_channels
        knots = 0.5 + 0.05 * np.arange(80)
        coefficients = np.exp(-knots)[:, None] * 0.2 * np.cos(np.arange(n_channels))
        pairs[elements] = PairTable(0.5, 0.05, coefficients, np.array([[0.8, 4.4]]))
    on_site = {z: np.eye(BondChannels.on_site(ls).n_channels)[0] for z, ls in SPACE.shells.items()}
    return TwoCentreTables(SPACE.shells, on_site, pairs)


class Crystals(FrameSource):
    """Four labelled crystals, with random overlaps or with those of tables."""

    schemes = ("all",)

    def __init__(self, spin: Spin, tables: TwoCentreTables | None = None) -> None:
        self.path, self.spin, self.tables = Path("crystals.test"), spin, tables
        self.level = Level("pbe", "test", spin=spin, potentials="test", program="OpenMX")

    def __len__(self) -> int:
        return 4

    def splits(self, scheme: str) -> Mapping[str, NDArray[np.int64]]:
        return {"train": np.arange(3), "val": np.array([0])}

    def molecules(self) -> NDArray[np.int64]:
        return np.zeros(4, dtype=np.int64)

    def atom_counts(self) -> NDArray[np.int64]:
        return np.full(4, 4)

    def frame(self, index: int, split: str) -> Frame:
        frame = crystal(index, self.spin)
        if self.tables is None:
            return frame
        blocks = frame.hamiltonian
        return replace(frame, overlap=self.tables.blocks(SPACE, blocks.numbers, blocks.pairs))

    def close(self) -> None:
        pass


def write_run(folder: Path, loss: str, integrals: str = "given") -> Path:
    path = folder / "run.toml"
    path.write_text(RUN.format(loss=loss).replace('"given"', f'"{integrals}"'), encoding="utf-8")
    return path


@pytest.mark.parametrize("spin", SPINS)
def test_a_crystal_is_trained_on_from_a_run_file(spin: Spin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources.FORMATS, "test", lambda path: Crystals(spin))  # type: ignore[arg-type]
    config = read_run(write_run(tmp_path, "guess = 0.0\ntrace = 0.2"))
    fit(config)
    lines = [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]
    assert set(lines[0]) == {"step", "seconds", "mae_uEh", "rmse_uEh"}, "no density error without occupied orbitals"
    assert lines[-1]["mae_uEh"] < lines[0]["mae_uEh"]


def test_running_statistics_are_resumed_and_averaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """deeph_e3 with a local norm and TraceGrad after every block: what a run in two halves ends with is what one run does."""
    monkeypatch.setitem(sources.FORMATS, "test", lambda path: Crystals("spinor"))  # type: ignore[arg-type]
    network = """backbone = "deeph_e3"
deeph_e3 = { irreps_mid = "6x0e+4x1o+3x2e", embedding_channels = 6, blocks = 2, hidden = 8, radial_size = 8 }
tracegrad = { after = "every", rank = 4, hidden = 8, n_scalars = 6 }
"""
    start, end = RUN.index("backbone"), RUN.index("[loss]")
    text = RUN[:start] + network + RUN[end:].format(loss="guess = 0.0\ntrace = 0.2")
    text = text.replace('inputs = ["overlap"]', "inputs = []").replace("ema_decay = 0.0", "ema_decay = 0.5")
    found = []
    for name, stops in (("whole", ()), ("halves", (5,))):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "run.toml"
        path.write_text(text, encoding="utf-8")
        config = read_run(path)
        for stop in stops:
            fit(config, until_step=stop)
        fit(config)
        found.append(read_tensors(config.output / STATE_FILE)[0])
        lines = [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]
        assert lines[-1]["mae_uEh"] < lines[0]["mae_uEh"]
    whole, halves = found
    assert whole.keys() == halves.keys()
    assert all(torch.equal(value, halves[name]) for name, value in whole.items())
    statistics = [name for name in whole if name.endswith("norm.mean_square")]
    assert len(statistics) == 2 * 4, "the current ones, and their average"
    assert all((whole[name] != 1.0).any() for name in statistics)


@pytest.mark.parametrize("stream", [False, True])
def test_two_centre_tables_are_fitted_when_a_run_starts(
    stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are fitted to all frames, streamed ones too, and give the data's overlaps; a run that goes on reads them back."""
    truth = two_centre_tables()
    monkeypatch.setitem(sources.FORMATS, "test", lambda path: Crystals("restricted", truth))  # type: ignore[arg-type]
    config = read_run(write_run(tmp_path, "guess = 0.0", "two_centre"))
    config = replace(config, data=replace(config.data, stream=stream))
    fit(config, until_step=5)
    stored = (config.output / INTEGRALS_FILE).read_bytes()
    fit(config)
    assert (config.output / INTEGRALS_FILE).read_bytes() == stored
    lines = [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["mae_uEh"] < lines[0]["mae_uEh"]
    tables = load_or_fit_tables(config, SPACE, [])
    assert tables is not None
    frame = Crystals("restricted", truth).frame(1, "train")
    assert frame.overlap is not None
    found = tables.blocks(SPACE, frame.overlap.numbers, frame.overlap.pairs)
    assert np.abs(found.values).max() > 0.1
    assert np.abs(found.values - frame.overlap.values).max() < 1e-6


def test_cached_samples_know_their_tables(tmp_path: Path) -> None:
    """The same structure with other tables is another sample."""
    truth, frame = two_centre_tables(), crystal(0, "restricted")
    other = TwoCentreTables(truth.shells, {z: 1.1 * values for z, values in truth.on_site.items()}, truth.pairs)
    tiny: Any = ARCHITECTURES["qhnetv2"].tiny
    config = NetworkConfig.from_mapping({**tiny, "qhnetv2": tiny["qhnetv2"] | {"n_inputs": 1}})
    pairs = PairRule({f"{a}-{b}": LABEL_CUTOFF_ANGSTROM for a in "BHN" for b in "BHN" if a <= b})
    inputs = []
    for tables in (truth, other):
        model = HamiltonianModel(config, SPACE, inputs=("overlap",), source="two_centre", pairs=pairs, tables=tables)
        sample = make_samples([frame], model.preparer, (), cache=tmp_path, processes=0)[0]
        inputs.append(sample.inputs.diagonal)
    assert torch.allclose(1.1 * inputs[0], inputs[1])
    assert float(inputs[0].abs().max()) > 0.1


def test_data_without_two_centre_overlaps_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources.FORMATS, "test", lambda path: Crystals("restricted"))  # type: ignore[arg-type]
    config = read_run(write_run(tmp_path, "guess = 0.0", "two_centre"))
    with pytest.raises(IntegralError, match="not two-centre integrals"):
        fit(config)
    with pytest.raises(ConfigError, match="has no overlaps"):
        load_or_fit_tables(config, SPACE, [replace(crystal(0, "restricted"), overlap=None)])


@pytest.mark.parametrize("spin", SPINS)
def test_errors_are_those_of_the_whole_matrix(spin: Spin) -> None:
    """Oracle: the BlockSet that the service makes of the same blocks; a label assembled from its own blocks is not wrong."""
    frames = [crystal(index, spin) for index in range(2)]
    tiny: Any = ARCHITECTURES["qhnetv2"].tiny
    config = NetworkConfig.from_mapping({**tiny, "qhnetv2": tiny["qhnetv2"] | {"n_inputs": 1}})
    pairs = PairRule({f"{a}-{b}": LABEL_CUTOFF_ANGSTROM for a in "BHN" for b in "BHN" if a <= b})
    model = HamiltonianModel(config, SPACE, inputs=("overlap",), source="given", pairs=pairs, spin=spin)
    objective = Objective.of(model, LossConfig(guess=0.0, trace=0.0))
    samples = make_samples(frames, model.preparer, objective.terms, cache=None, processes=0)
    batch = join(samples)
    transform = model.standardisation.expansion.float()
    labels = (batch.target @ transform.T).unflatten(1, model.standardisation.shape)
    assert float(objective.errors(batch, labels).mae.max()) < 1e-7
    blocks = 0.01 * torch.randn(labels.shape, generator=torch.Generator().manual_seed(0))
    found = objective.errors(batch, blocks)
    atoms, listed = 0, batch.graph.n_atoms
    for row, frame in enumerate(frames):
        prepared = model.prepare(frame.structure, {"overlap": frame.overlap})
        n_atoms, n_pairs = len(frame.structure), len(prepared.blocks.listed)
        own = np.concatenate([blocks[atoms : atoms + n_atoms], blocks[listed : listed + n_pairs]]).astype(np.float64)
        predicted = model.collect(prepared, own)
        assert predicted.hermitian_error() < 1e-12
        difference = model.block_space.to_components(predicted.values - frame.hamiltonian.in_order("openmx").values)
        assert float(found.mae[row]) == pytest.approx(np.abs(difference).mean(), rel=1e-5)
        assert float(found.rmse[row]) == pytest.approx(np.sqrt(np.square(difference).mean()), rel=1e-5)
        atoms, listed = atoms + n_atoms, listed + n_pairs


@pytest.mark.parametrize("loss", ["guess = 1.0", "guess = 0.0\nspectral = 1.0"])
def test_a_term_of_orbitals_refuses_crystals_by_name(
    loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sources.FORMATS, "test", lambda path: Crystals("restricted"))  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=r"bn/0 is a crystal.*set \[loss\] guess and spectral to 0"):
        fit(read_run(write_run(tmp_path, loss)))


def test_one_element_has_the_same_shells_in_all_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources.FORMATS, "test", lambda path: Crystals("restricted"))  # type: ignore[arg-type]
    config = read_run(write_run(tmp_path, "guess = 0.0"))
    frame = crystal(0, "restricted")
    other = OrbitalSpace("test", {**SPACE.shells, 5: (0, 0, 1)}, order="openmx")
    label = BlockSet.zeros(other, frame.structure.numbers, frame.hamiltonian.pairs)
    with pytest.raises(ConfigError, match=r"bn/1: B has the shells \(0, 0, 1\), in other frames \(0, 1\)"):
        orbital_space(config, [frame, replace(frame, index=1, hamiltonian=label, overlap=None)])


def test_pairs_of_crystals_reach_as_far_as_the_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources.FORMATS, "test", lambda path: Crystals("restricted"))  # type: ignore[arg-type]
    config = read_run(write_run(tmp_path, "guess = 0.0"))
    frames = [crystal(index, "restricted") for index in range(3)]
    rule = pair_rule(config, frames)
    for frame in frames:
        own, theirs = frame.hamiltonian.pairs, rule.pairs(frame.structure)
        assert (theirs.find(own) >= 0).all()
    shorter = replace(config, model=replace(config.model, pair_cutoff_angstrom=2.0))
    assert set(pair_rule(shorter, frames).cutoffs_angstrom.values()) == {2.0}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("spin", "reference"), [("restricted", "none"), ("restricted", "two_centre"), ("spinor", "two_centre")]
)
def test_a_run_of_crystals_is_released_with_gauge_and_support(
    spin: Spin, reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder loads, repeats its golden answers, is equivariant, and knows electrons and surroundings."""
    monkeypatch.setitem(sources.FORMATS, "test", lambda path: Crystals(spin))  # type: ignore[arg-type]
    path = write_run(tmp_path, "guess = 0.0")
    text = (
        path.read_text(encoding="utf-8")
        .replace('inputs = ["overlap"]', "inputs = []")
        .replace("n_inputs = 1", "n_inputs = 0")
        .replace('kind = "none"', f'kind = "{reference}"')
    )
    path.write_text(text, encoding="utf-8")
    config = read_run(path)
    fit(config)
    named = {"version": "0.0.1", "description": "of a test", "licence": "none"}
    card = release(config, tmp_path / "crystals", **named, report=None)
    assert card.periodic
    assert card.gauge == "overlap"
    assert card.target == ("hamiltonian" if reference == "none" else "hamiltonian_minus_reference")
    assert card.basis.valence == {"H": 1, "B": 3, "N": 5}
    assert card.support is not None
    assert set(card.support.neighbours) == {"H", "B", "N"}
    with pytest.raises(CheckpointError, match="not trained on C"):
        release(config, tmp_path / "carbon", **named, report=None, elements=["C"])
    fewer = release(config, tmp_path / "fewer", **named, report=None, elements=["H", "B", "N"])
    assert fewer.elements == card.elements
    predictor = Predictor.load(tmp_path / "crystals")
    self_test(predictor, predictor.checkpoint.golden)
    frame = crystal(0, spin)
    prediction = predictor.predict_crystals([frame.structure])[0]
    assert prediction.in_domain
    assert prediction.hamiltonian.hermitian_error() < 1e-12
    if reference == "two_centre":
        item = predictor.prepare(frame.structure)
        assert item.reference is not None
        assert isinstance(item.reference.hamiltonian, BlockSet)
        labels = [
            own.in_space(predictor.space).in_gauge("auto").hamiltonian for own in map(crystal, range(3), [spin] * 3)
        ]
        expected = TwoCentreReference.fitted(predictor.space, labels).evaluate(item.integrals).hamiltonian  # type: ignore[arg-type]
        np.testing.assert_allclose(item.reference.hamiltonian.values, expected.values, atol=1e-12)
        network = predictor.model.collect(item, predictor.forward([item])[0])
        rest = prediction.hamiltonian.plus_shared(expected, -1.0)
        np.testing.assert_allclose(rest.values, network.values, atol=1e-6)
        empty = BlockSet.zeros(predictor.space, frame.structure.numbers, expected.pairs, spin)
        nothing_left = replace(frame, hamiltonian=empty.plus_shared(expected))
        (sample,) = make_samples([nothing_left], predictor.model.preparer, (), cache=None, processes=0)
        assert not sample.target.any()
    positions = frame.structure.positions_angstrom.copy()
    positions[2, 2] -= 0.4
    assert not predictor.predict_crystals([replace(frame.structure, positions_angstrom=positions)])[0].in_domain
    assert "no component along S" in (tmp_path / "crystals" / "README.md").read_text(encoding="utf-8")


def test_the_gauge_is_the_runs_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = crystal(0, "restricted")
    assert frame.overlap is not None
    assert frame.in_gauge("none") is frame
    assert gauge_shift(frame.in_gauge("auto").hamiltonian, frame.overlap) == pytest.approx(0.0, abs=1e-12)
    bare = replace(frame, overlap=None)
    assert bare.in_gauge("auto") is bare
    with pytest.raises(DatasetError, match="has no overlap"):
        bare.in_gauge("overlap")
    path = write_run(tmp_path, "guess = 0.0")
    path.write_text(
        path.read_text(encoding="utf-8").replace("[data]", '[data]\ngauge = "fermi"').replace('"test"', '"deeph"'),
        encoding="utf-8",
    )
    with pytest.raises(ConfigError, match="it should be 'auto', 'overlap' or 'none'"):
        read_run(path)
