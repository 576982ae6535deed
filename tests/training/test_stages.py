"""Training of two stages: from a run or a checkpoint, the first one frozen or not; and turned batches."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation

from model.blocks.block_set import Spin
from model.blocks.motions import turn
from model.blocks.standardise import Encoder
from model.errors import CheckpointError
from model.hamiltonian_model import HamiltonianModel
from model.network_config import NetworkConfig
from model.preparation import PairRule
from training.data import sources
from training.fit.augmentation import Augmentation, turned
from training.fit.config import ConfigError, RunConfig, read_run
from training.fit.run import fit
from training.fit.samples import Sample, join, sample_arrays
from training.fit.stages import StagesConfig
from training.fit.start import REFERENCE_FILE
from training.fit.state import BEST_FILE, STATE_FILE
from training.generate.run import Summary
from training.release import release

from .conftest import write_run
from .test_crystal_training import LABEL_CUTOFF_ANGSTROM, RUN, SPACE, SPINS, Crystals, crystal

STAGE = "hidden = 8, blocks = 1, heads = 2, lmax = 2, radial_size = 6, invariants = 3, rank = 2"
FIRST = RUN.format(loss="guess = 0.0")


@pytest.fixture
def crystals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The format "test"."""
    monkeypatch.setitem(sources.FORMATS, "test", lambda path: Crystals("restricted"))  # type: ignore[arg-type]


def two_stages(folder: Path, mode: str, start: Path, stages: str = "") -> RunConfig:
    """The crystals' run with a second stage."""
    folder.mkdir(exist_ok=True)
    text = FIRST.replace("[loss]", f'second_stage = {{ mode = "{mode}", {STAGE} }}\n[loss]')
    text = text.replace("[data]", f'start_from = "{start}"\n[data]') + f"[stages]\n{stages}\n"
    (folder / "run.toml").write_text(text, encoding="utf-8")
    return read_run(folder / "run.toml")


def group(path: Path, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in load_file(path).items() if name.startswith(prefix)}


def validations(config: RunConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def first(crystals: None, tmp_path: Path) -> RunConfig:
    """The first stage, trained for a few steps."""
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "run.toml").write_text(FIRST, encoding="utf-8")
    config = read_run(folder / "run.toml")
    fit(config)
    return config


@pytest.mark.parametrize("mode", ["exact", "faithful"])
def test_the_first_stage_stays_and_the_second_one_learns(first: RunConfig, mode: str, tmp_path: Path) -> None:
    config = two_stages(tmp_path / mode, mode, first.output)
    fit(config)
    found = validations(config)
    best = min(line["mae_uEh"] for line in validations(first))
    assert found[0]["mae_uEh"] == pytest.approx(best, rel=1e-5)
    assert found[-1]["mae_uEh"] < 0.999 * best
    before, after = (group(run.output / BEST_FILE, "network/") for run in (first, config))
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert any(value.any() for name, value in after.items() if "second_stage.pair_read_out.linear" in name)


def test_both_stages_are_tuned_if_the_run_says_so(first: RunConfig, tmp_path: Path) -> None:
    config = two_stages(tmp_path / "both", "exact", first.output, 'train = "both"')
    fit(config)
    before, after = group(first.output / BEST_FILE, "network/"), group(config.output / STATE_FILE, "model/")
    assert any(not torch.equal(value, after[name]) for name, value in before.items())


def test_a_stopped_run_with_turned_batches_goes_on_as_if_nothing_happened(first: RunConfig, tmp_path: Path) -> None:
    stages = 'augmentation = "published"\naugment_from = 0.2\nstrong_from = 0.6'
    whole = two_stages(tmp_path / "whole", "faithful", first.output, stages)
    fit(whole)
    parts = two_stages(tmp_path / "parts", "faithful", first.output, stages)
    for step in (4, 7, 10):
        fit(parts, until_step=step)
    one, other = (load_file(config.output / STATE_FILE) for config in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(ConfigError, match=r"\[stages\].augment_from was 0.2, is 0.3"):
        fit(dataclasses.replace(parts, stages=dataclasses.replace(parts.stages, augment_from=0.3)))


def test_a_frozen_first_stage_must_be_the_one_that_was_trained(first: RunConfig, tmp_path: Path) -> None:
    config = two_stages(tmp_path / "other", "exact", first.output)
    network = config.network
    other = dataclasses.replace(network, tracegrad=dataclasses.replace(network.tracegrad, rank=3))
    with pytest.raises(ConfigError, match="first stage cannot be kept"):
        fit(dataclasses.replace(config, network=other))
    (first.output / STATE_FILE).unlink()
    with pytest.raises(CheckpointError, match=r"lacks state\.safetensors"):
        fit(config)


@pytest.mark.parametrize(
    ("mode", "stages", "message"),
    [
        ("none", 'train = "both"', "is for a network with"),
        ("exact", 'augmentation = "full"', "is for a faithful second stage"),
        (
            "faithful",
            'augmentation = "full"\naugment_from = 1.5',
            "augment_from is 1.5; it should be less",
        ),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    crystals: None, mode: str, stages: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        two_stages(tmp_path / "run", mode, tmp_path, stages)


def test_a_second_stage_alone_needs_a_first(crystals: None, tmp_path: Path) -> None:
    config = two_stages(tmp_path / "run", "exact", tmp_path)
    path = tmp_path / "run" / "run.toml"
    path.write_text(path.read_text().replace(f'start_from = "{config.start_from}"', ""), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\[run\] start_from"):
        read_run(path)


def test_turned_batches_and_orbitals_do_not_go_together(crystals: None, first: RunConfig, tmp_path: Path) -> None:
    config = two_stages(tmp_path / "run", "faithful", first.output, 'augmentation = "full"')
    path = tmp_path / "run" / "run.toml"
    path.write_text(path.read_text().replace("guess = 0.0", "guess = 1.0"), encoding="utf-8")
    assert config.loss.guess == 0.0
    with pytest.raises(ConfigError, match="set them to 0"):
        read_run(path)


@pytest.mark.parametrize("spin", SPINS)
def test_a_turned_batch_is_the_batch_of_the_turned_structures(spin: Spin) -> None:
    """Oracle: blocks turned by ``motions``, which the laws hold against PySCF."""
    frames = [crystal(index, spin) for index in range(2)]
    config = NetworkConfig.from_mapping({"backbone": "qhnetv2", "qhnetv2": {"n_inputs": 0}})
    pairs = PairRule({f"{a}-{b}": LABEL_CUTOFF_ANGSTROM for a in "BHN" for b in "BHN" if a <= b})
    model = HamiltonianModel(config, SPACE, inputs=(), source="none", spin=spin, pairs=pairs)
    arrays = [sample_arrays(frame, model.preparer, ()) for frame in frames]
    batch = join([Sample.of(values) for values in arrays])
    matrices = Rotation.random(2, random_state=4).as_matrix()
    found = turned(batch, matrices, model.block_space.coefficients)
    encoder, atoms, place = Encoder(model.block_space), 0, batch.graph.n_atoms
    for frame, matrix in zip(frames, matrices, strict=True):
        prepared = model.prepare(frame.structure)
        label = turn(frame.hamiltonian.in_order("e3nn").on_pairs(prepared.blocks.pairs), matrix)
        on_site, listed = encoder.encode_target(label.in_order("openmx"), prepared.blocks)
        for expected, start in ((on_site, atoms), (listed, place)):
            own = found.target[start : start + len(expected)].numpy()
            assert np.abs(own - expected).max() < 1e-6
        first_pair = place - batch.graph.n_atoms
        vectors = found.graph.pair_vectors[first_pair : first_pair + len(listed)].numpy()
        assert np.abs(vectors - prepared.graph.pair_vectors.numpy() @ matrix.T).max() < 1e-5
        atoms, place = atoms + len(on_site), place + len(listed)


def test_the_published_schedule_turns_late_slowly_and_more_at_the_end() -> None:
    layout = HamiltonianModel(
        NetworkConfig.from_mapping({"backbone": "qhnetv2", "qhnetv2": {"n_inputs": 0}}), SPACE, inputs=(), source="none"
    ).block_space.coefficients
    published = Augmentation(StagesConfig(augmentation="published"), 0, layout)

    def vectors(progress: float) -> NDArray[np.float64]:
        found = [published.rotations(1, step, progress) for step in range(100, 300)]
        return np.array([Rotation.from_matrix(matrix[0]).as_rotvec() for matrix in found if matrix is not None])

    assert published.rotations(1, 100, 0.59) is None
    small, strong = vectors(0.65), vectors(0.75)
    assert small.shape == strong.shape == (200, 3)
    assert 0.01 < np.abs(small).mean() < 0.5 * np.abs(strong).mean()
    for component in strong.T:  # 0.7 of the last step's angles are kept
        assert 0.5 < np.corrcoef(component[1:], component[:-1])[0, 1] < 0.9
    full = Augmentation(StagesConfig(augmentation="full", augment_from=0.0), 0, layout)
    one, again, other = (full.rotations(3, step, 0.0) for step in (5, 5, 6))
    assert one is not None
    assert again is not None
    assert other is not None
    assert np.array_equal(one, again)
    assert not np.allclose(one, other)
    assert not np.allclose(one[0], one[1])


def test_two_stages_of_molecules_are_released(trained: RunConfig, tiny: Summary, tmp_path: Path) -> None:
    """From the run's folder, H0 and all; the card of a faithful one says how far it is from exact."""
    config = read_run(write_run(tmp_path, tiny.file))
    values = config.network.to_mapping() | {"second_stage": {"mode": "faithful", "hidden": 8, "blocks": 1, "heads": 2}}
    config = dataclasses.replace(config, start_from=trained.output, network=NetworkConfig.from_mapping(values))
    fit(config)
    kept, expected = (load_file(run.output / REFERENCE_FILE) for run in (config, trained))
    assert all(torch.equal(kept[name], expected[name]) for name in expected)
    card = release(config, tmp_path / "two", version="1.0.0", description="two", licence="MIT", report=None)
    assert card.symmetry == "approximate"
    assert card.symmetry_error is not None
    assert card.symmetry_error.hamiltonian > 0.0
    assert "approximate" in (tmp_path / "two" / "README.md").read_text()
    assert card.training["stages"]["train"] == "second"
