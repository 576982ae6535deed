"""A run as the papers do it: published file, published loss, no reference, samples made on the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.blocks.matrices import dense_matrix
from model.blocks.spaces import BlockSpace
from model.hamiltonian_model import HamiltonianModel
from model.network_config import NetworkConfig
from model.orbitals.space import OrbitalSpace
from model.predictor import Predictor
from model.preparation import Preparer
from training.__main__ import main
from training.data.sources import Frame
from training.fit import statistics
from training.fit.batches import pack
from training.fit.config import ConfigError, LossConfig, OptimiserConfig, RunConfig, read_run
from training.fit.losses.objective import Objective
from training.fit.optimiser import learning_rate
from training.fit.run import fit
from training.fit.samples import join, make_samples
from training.fit.stream import SampleSize, StreamedSamples
from training.release import release

from .conftest import CUTOFF_ANGSTROM
from .test_samples import assert_same

RUN = """
[run]
output = "run"
threads = 1
device = "cpu"
processes = 0
validate_every = 5
save_every = 5

[data]
file = "QH9Stable.db"
format = "qh9_stable"
split = "random"
validation = ["train"]
max_validation = 2
stream = {stream}

[reference]
kind = "none"

[network]
backbone = "qhnet"
qhnet = {{ node_channels = 8, pair_channels = 8, node_layers = 1, pair_layers = 1, hidden = 16 }}
tracegrad = {{ rank = 4, hidden = 8, n_scalars = 6 }}

[loss]
mae = 1.0
mse = 1.0
rmse = 0.0
guess = 0.0
trace = 0.3
trace_ramp_steps = 0

[optimiser]
steps = 10
batch_molecules = 3
warmup_steps = 2
schedule = "linear"
betas = [0.99, 0.999]
ema_decay = 0.0
"""


@pytest.fixture(scope="module")
def folder(tiny_frames: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data set in QH9's raw layout, with a run that streams it and one that does not."""
    import sqlite3

    folder = tmp_path_factory.mktemp("benchmark")
    with sqlite3.connect(folder / "QH9Stable.db") as connection:
        connection.execute(
            "CREATE TABLE data (id INTEGER NOT NULL PRIMARY KEY,  N INTEGER, Z BLOB, pos BLOB, Ham BLOB)"
        )
        # H2, H2O, CH4, NH3 twice; carbon, nitrogen and oxygen are all QH9's own
        for number, frame in enumerate(tiny_frames):
            structure = frame.structure
            blobs = (structure.numbers.astype("<i4"), structure.positions_angstrom, frame.fock)
            row = (number, len(structure), *(blob.tobytes() for blob in blobs))
            connection.execute("INSERT INTO data VALUES (?, ?, ?, ?, ?)", row)
    connection.close()
    for name, stream in (("streamed", "true"), ("held", "false")):
        text = RUN.format(stream=stream).replace('"run"', f'"{name}_run"')
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def streamed(folder: Path) -> RunConfig:
    config = read_run(folder / "streamed.toml")
    fit(config)
    return config


def test_streaming_changes_nothing(folder: Path, streamed: RunConfig) -> None:
    held = read_run(folder / "held.toml")
    fit(held)
    one, other = (load_file(config.output / "state.safetensors") for config in (streamed, held))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one.keys() == other.keys()


def test_training_learns_the_matrix_itself(streamed: RunConfig) -> None:
    lines = [json.loads(line) for line in (streamed.output / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["mae_uEh"] < lines[0]["mae_uEh"]
    assert not (streamed.output / "reference.safetensors").exists()


def test_the_checkpoint_predicts_without_a_reference(
    streamed: RunConfig, tiny_frames: list[Frame], tmp_path: Path
) -> None:
    card = release(streamed, tmp_path / "none", version="1.0.0", description="test", licence="MIT", report=None)
    assert (card.reference.kind, card.target, card.xc) == ("none", "hamiltonian", "b3lyp5")
    assert "VWN5" in card.xc_note
    assert not any(name.startswith("reference/") for name in load_file(tmp_path / "none" / "weights.safetensors"))
    prediction = Predictor.load(tmp_path / "none").predict([tiny_frames[-1].structure])[0]
    assert not prediction.reference.any()
    assert np.abs(prediction.hamiltonian - prediction.hamiltonian.T).max() < 1e-12
    # the mean of the 1s energy is in the tables: a carbon, nitrogen or oxygen core cannot be missed by a tenth of it
    core = tiny_frames[-1].fock.min()
    assert prediction.hamiltonian.min() == pytest.approx(core, rel=0.1)


def test_evaluation_names_scheme_and_split(
    streamed: RunConfig, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release(streamed, tmp_path / "none", version="1.0.0", description="test", licence="MIT", report=None)
    arguments = ["evaluate", str(tmp_path / "none"), str(folder / "QH9Stable.db"), "--no-scf", "--splits"]
    assert main([*arguments, "size_ood/train", "--max-molecules", "2", "-o", str(tmp_path / "report.json")]) == 0
    part = json.loads((tmp_path / "report.json").read_text())["splits"]["size_ood/train"]
    assert part["summary"]["frames"] == 2
    assert main([*arguments, "sizes/train"]) == 1
    assert "allowed are random, size_ood" in capsys.readouterr().err


def plain(basis: OrbitalSpace) -> Preparer:
    """A preparer without H0."""
    return Preparer(basis, BlockSpace.of(basis.template), CUTOFF_ANGSTROM)


def listed_entries(matrix: np.ndarray, frame: Frame) -> np.ndarray:
    """Entries of on-site blocks and of the blocks whose first atom is not the lighter one, without the tiny ones."""
    sizes = [5 if z == 1 else 14 for z in frame.structure.numbers]
    number = np.repeat(frame.structure.numbers, sizes)
    listed = matrix[number[:, None] >= number[None, :]]
    return np.asarray(listed[np.abs(listed) > 1e-4])


def test_h0_and_its_density_are_zero(basis: OrbitalSpace, tiny_frames: list[Frame]) -> None:
    sample = make_samples(tiny_frames[:1], plain(basis), (), cache=None, processes=0)[0]
    assert not sample.inputs.diagonal[:, 1:].any()
    assert not sample.inputs.pair[:, 1:].any()
    batch = join([sample])
    blocks = (batch.target @ torch.from_numpy(BlockSpace.of(basis.template).matrix).float().T).numpy()
    fock = tiny_frames[0].fock
    assert np.sort(np.abs(blocks[np.abs(blocks) > 1e-4])) == pytest.approx(
        np.sort(np.abs(listed_entries(fock, tiny_frames[0]))), abs=2e-6
    )


def test_workers_make_the_samples_of_this_process(folder: Path, basis: OrbitalSpace) -> None:
    data = read_run(folder / "streamed.toml").data
    here = StreamedSamples(data, plain(basis), (), processes=0)
    there = StreamedSamples(data, plain(basis), (), processes=1)
    try:
        there.prefetch([[2, 0], [1]])
        for size, sample in zip(here.sizes, here, strict=True):
            assert sample.n_blocks <= size.n_blocks < 2 * sample.n_blocks
        for index in (2, 0, 1, 1):
            assert_same(there[index], here[index])
        assert len(list(here.spread(3))) == 3
    finally:
        here.close()
        there.close()


def test_batches_can_be_counted_in_molecules() -> None:
    sizes = [SampleSize(10)] * 7
    assert pack(range(7), sizes, 1000, 3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert pack(range(7), sizes, 20, 3) == [[0, 1], [2, 3], [4, 5], [6]]


def test_the_linear_schedule_is_a_straight_line_to_the_final_rate() -> None:
    config = OptimiserConfig(
        steps=110, learning_rate=1e-2, final_learning_rate=1e-4, warmup_steps=10, schedule="linear"
    )
    rates = np.array([learning_rate(step, config) for step in range(10, 111)])
    assert rates == pytest.approx(np.linspace(1e-2, 1e-4, 101))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"qh9_stable"', '"qh9"', "format is 'qh9'; it should be one of tracegrad, qh9_stable"),
        ('"none"', '"minao"', "kind is 'minao'; it should be 'fitted', 'two_centre' or 'none'"),
        ('"linear"', '"step"', "schedule is 'step'; it should be 'cosine', 'linear'"),
        ("[0.99, 0.999]", "[0.9]", r"lacks betas\[1\]"),
    ],
)
def test_words_that_are_not_known_are_refused(old: str, new: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(RUN.format(stream="true").replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        read_run(path)


def test_the_published_loss_is_mean_error_plus_mean_square(basis: OrbitalSpace, tiny_frames: list[Frame]) -> None:
    """In hartree, per molecule over all entries, then over molecules; here times 1000."""
    samples = make_samples(tiny_frames[2:5], plain(basis), (), cache=None, processes=0)
    architecture = {"node_channels": 4, "pair_channels": 4, "node_layers": 1, "pair_layers": 1, "hidden": 8}
    config = NetworkConfig.from_mapping({"backbone": "qhnet", "qhnet": architecture, "tracegrad": {"mode": "none"}})
    model = HamiltonianModel(config, basis)
    statistics.fill(model.standardisation, samples, basis)
    objective = Objective.of(model, LossConfig(mae=1.0, mse=1.0, rmse=0.0, guess=0.0))
    total, _ = objective(join(samples), step=0)
    prepared = [model.prepare(frame.structure) for frame in tiny_frames[2:5]]
    predicted = [
        dense_matrix(model.collect(item, blocks)) for item, blocks in zip(prepared, model.run(prepared), strict=True)
    ]
    differences = [matrix - frame.fock for matrix, frame in zip(predicted, tiny_frames[2:5], strict=True)]
    expected = np.mean([np.abs(d).mean() + np.square(d).mean() for d in differences])
    assert float(total.detach()) == pytest.approx(1000.0 * expected, rel=1e-5)
