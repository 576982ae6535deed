"""A release: the checkpoint predicts what the run's best weights predict; a bad one never replaces a good one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.blocks.matrices import dense_matrix
from model.checkpoint.card import Card
from model.electronic.dependence import OVERLAP_DAMPING, damp_correction
from model.errors import CheckpointError
from model.orbitals.space import OrbitalSpace
from model.predictor import Predictor
from model.preparation import PairRule
from training.data.sources import Frame
from training.evaluate.report import evaluate
from training.fit.config import RunConfig
from training.fit.losses.objective import terms_of
from training.fit.model import build_model, load_or_fit_reference
from training.fit.run import fit
from training.fit.samples import join, make_samples
from training.fit.state import STATE_FILE
from training.release import release

from .test_fit import load_group


def make(
    config: RunConfig,
    folder: Path,
    report: dict[str, object] | None = None,
    version: str = "1.2.3",
    weights: str = "best",
) -> Card:
    return release(
        config, folder, version=version, description="for tests", licence="MIT", report=report, weights=weights
    )


@pytest.fixture(scope="module")
def folder(trained: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("release") / "tiny"
    make(trained, path)
    return path


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_checkpoint_predicts_what_training_saw(
    folder: Path, trained: RunConfig, tiny_frames: list[Frame], basis: OrbitalSpace
) -> None:
    """Two roads from the same weights: the service's predictor, and samples, batch and network as in training."""
    frame = tiny_frames[4]
    prediction = Predictor.load(folder).predict([frame.structure])[0]
    tensors = load_file(trained.output / "best.safetensors")
    model = build_model(trained, basis, load_or_fit_reference(trained, basis, []), PairRule()).eval()
    load_group(model.network, tensors, "network/")
    load_group(model.standardisation, tensors, "standardisation/")
    batch = join(make_samples([frame], model.preparer, terms_of(trained.loss), cache=None, processes=0))
    with torch.no_grad():
        blocks = model(batch.graph, batch.inputs).blocks.double().numpy()
    correction = dense_matrix(model.collect(model.prepare(frame.structure), blocks))
    assert np.abs(correction).max() > 1e-4, "the tiny run has learnt something"
    damped = damp_correction(correction.astype(float), prediction.overlap, OVERLAP_DAMPING)
    assert np.abs(prediction.hamiltonian - prediction.reference - damped).max() < 2e-6


def test_the_card_tells_where_it_comes_from(folder: Path, trained: RunConfig) -> None:
    card = Predictor.load(folder).card
    assert (card.name, card.version, card.xc, card.basis.name) == ("tiny", "1.2.3", "b3lyp", "def2-svp")
    assert "VWN" in card.xc_note
    assert card.training["seed"] == trained.seed
    assert card.training["data"]["file"] == "focks.h5"
    assert card.weights_sha256 == hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert card.weights_sha256 in readme
    assert "1.2.3" in readme
    assert len(json.loads((folder / "golden.json").read_text())["structures"]) == 2


def test_a_release_with_its_report_carries_metrics_and_limits(folder: Path, trained: RunConfig, tmp_path: Path) -> None:
    report = evaluate(folder, trained.data.file, ["train"], scf=False, processes=0, frames_per_molecule=1)
    card = make(trained, tmp_path / "again", report)
    assert card.weights_sha256 == Predictor.load(folder).card.weights_sha256, "same weights, same bytes"
    assert card.metrics["train"]["frames"] == 4
    assert (card.largest_tested.atoms, card.largest_tested.heavy_atoms, card.largest_tested.orbitals) == (5, 1, 34)
    assert "| hamiltonian_mae_uEh |" in (tmp_path / "again" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("report", "version", "words"),
    [
        ({"weights_sha256": "0" * 64, "splits": {}}, "1.2.4", "The report is about weights 0000"),
        ({"splits": {}}, "1.2.4", "The report is about weights None"),
        (None, "new", "card would not be valid"),
    ],
)
def test_a_refused_release_leaves_the_old_checkpoint(
    report: dict[str, object] | None, version: str, words: str, folder: Path, trained: RunConfig
) -> None:
    before = contents(folder)
    with pytest.raises(CheckpointError, match=words):
        make(trained, folder, report, version)
    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"], "nothing is left beside it"


def test_a_version_is_one_set_of_weights_for_ever(folder: Path, trained: RunConfig, tmp_path: Path) -> None:
    """The same weights may be released again, as they are with their report; others need another number."""
    copy = tmp_path / "tiny"
    shutil.copytree(folder, copy)
    make(trained, copy)
    other = dataclasses.replace(trained, output=tmp_path / "other", seed=9)
    fit(other, until_step=1)
    with pytest.raises(CheckpointError, match=r"is version 1\.2\.3 already, with other weights"):
        make(other, copy)
    assert contents(copy)["weights.safetensors"] == contents(folder)["weights.safetensors"]
    assert make(other, copy, version="1.2.4").version == "1.2.4"


def test_the_last_weights_are_the_average_at_the_end(trained: RunConfig, tmp_path: Path) -> None:
    card = make(trained, tmp_path / "tiny", weights="last")
    released = Predictor.load(tmp_path / "tiny").model.network
    state = load_file(trained.output / STATE_FILE)
    for name, value in released.named_parameters():
        assert torch.equal(value.cpu(), state[f"average/{name}"]), name
    assert (card.training["weights"], card.training["step"]) == ("last", trained.optimiser.steps)
    logged = json.loads((trained.output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert card.training["validation"]["mae_uEh"] == logged["mae_uEh"]


def test_a_run_that_never_ran_cannot_be_released(trained: RunConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(trained, output=tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"best\.safetensors.*fit"):
        make(config, tmp_path / "made")
    assert not (tmp_path / "made").exists()
