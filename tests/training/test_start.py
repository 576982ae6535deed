"""A run that starts from a checkpoint, and one with more data than its main file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from safetensors.torch import load_file

from model.integrals.pyscf_molecule import load_basis
from model.network import HamiltonianNetwork
from model.network_config import NetworkConfig
from training.fit.config import ConfigError, RunConfig, read_run
from training.fit.labels import trained_on
from training.fit.run import fit
from training.fit.start import load_start
from training.generate.run import Summary
from training.release import release

from .conftest import write_run


@pytest.fixture(scope="module")
def checkpoint(trained: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny trained run as a checkpoint folder."""
    folder = tmp_path_factory.mktemp("released") / "tiny"
    release(trained, folder, version="1.0.0", description="tiny", licence="MIT", report=None)
    return folder


def validations(config: RunConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]


def test_goes_on_from_a_checkpoint(checkpoint: Path, trained: RunConfig, tiny: Summary, tmp_path: Path) -> None:
    """Weights, H0 and statistics are the checkpoint's, even if seed and reference settings are others."""
    config = dataclasses.replace(read_run(write_run(tmp_path, tiny.file)), start_from=checkpoint, seed=99)
    config = dataclasses.replace(config, reference=dataclasses.replace(config.reference, n_exponents=3))
    fit(config, until_step=1)
    best = min(line["density_per_electron"] for line in validations(trained))
    assert validations(config)[0]["density_per_electron"] == pytest.approx(best, rel=1e-5)
    kept, expected = (load_file(run.output / "reference.safetensors") for run in (config, trained))
    assert all(torch.equal(kept[name], expected[name]) for name in expected)


def test_another_architecture_is_refused(checkpoint: Path, tiny: Summary, tmp_path: Path) -> None:
    config = dataclasses.replace(read_run(write_run(tmp_path, tiny.file)), start_from=checkpoint)
    wider = dataclasses.replace(config.network.backbone_config, pair_channels=9)
    config = dataclasses.replace(config, network=dataclasses.replace(config.network, backbone_config=wider))
    with pytest.raises(ConfigError, match="architecture"):
        fit(config)


def test_floors_of_norms_may_differ_from_the_start() -> None:
    one = NetworkConfig.from_mapping({"backbone": "qhnetv2"})
    floors = NetworkConfig.from_mapping({"backbone": "qhnetv2", "qhnetv2": {"norm_floors": [1.0, 2.0, 3.0, 4.0]}})
    wider = NetworkConfig.from_mapping({"backbone": "qhnetv2", "qhnetv2": {"pair_channels": 9}})
    assert one != floors
    assert one.shares_backbone(floors)
    assert not one.shares_backbone(wider)


def test_other_tracegrad_settings_start_fresh(checkpoint: Path, tiny: Summary, tmp_path: Path) -> None:
    config = dataclasses.replace(read_run(write_run(tmp_path, tiny.file)), start_from=checkpoint)
    narrower = dataclasses.replace(config.network.tracegrad, rank=3)
    config = dataclasses.replace(config, network=dataclasses.replace(config.network, tracegrad=narrower))
    start = load_start(checkpoint, config, trained_on(config).level)
    network = HamiltonianNetwork(config.network, load_basis("def2-svp", [1, 6, 7, 8, 9]))
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    expected = start.network
    network.take_weights(start.config, expected)
    for name, value in network.state_dict().items():
        assert torch.equal(value, (expected if name.startswith("backbone.") else fresh)[name]), name
    fit(config, until_step=1)


def with_more(config: RunConfig, extra: Path) -> RunConfig:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, extra=(extra,)))


def test_extra_data_is_added_but_never_what_is_held_out(tiny: Summary, tmp_path: Path) -> None:
    extra = tmp_path / "more.h5"
    with h5py.File(tiny.file) as source, h5py.File(extra, "w") as target:
        target.attrs.update(source.attrs)
        name = next(name for name in source if source[name].attrs["smiles"] == "CH4")
        source.copy(name, target)
    plain = read_run(write_run(tmp_path / "plain", tiny.file))
    more = with_more(read_run(write_run(tmp_path / "more", tiny.file)), extra)
    for config in (plain, more):
        fit(config, until_step=1)

    def samples(config: RunConfig) -> int:
        sizes = [load_count(path) for path in (config.output / "samples").iterdir()]
        return max(sizes)

    assert samples(more) == samples(plain) + 2, "two geometries of methane"
    with h5py.File(tiny.file) as source, h5py.File(extra, "a") as target:
        held_out = next(name for name in source if source[name].attrs["split"] == "val")
        source.copy(held_out, target)
        target[held_out].attrs["split"] = "train"
    with pytest.raises(ConfigError, match="holds out"):
        fit(with_more(read_run(write_run(tmp_path / "leak", tiny.file)), extra))


def load_count(path: Path) -> int:
    """Samples in a cache file."""
    return sum(name.endswith("/numbers") for name in load_file(path))
