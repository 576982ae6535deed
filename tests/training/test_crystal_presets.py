"""Presets of TraceGrad's crystals: the published values, and a step of every one on small DeepH folders of both layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.blocks.block_set import BlockSet, Spin
from model.formats.deeph import write_deeph
from model.formats.deeph_legacy import write_deeph_legacy
from model.formats.matrices import Matrices
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import Structure
from training.__main__ import main
from training.data.sources import DatasetError
from training.fit.check import check
from training.fit.config import ConfigError, OptimiserConfig, RunConfig, read_run
from training.fit.run import fit
from training.fit.schedule import RateControl
from training.fit.state import read_tensors, saved_progress

PRESETS = Path(__file__).resolve().parents[2] / "training" / "presets"
CARBON, HEAVY = (0, 0, 1, 1, 2), (0, 0, 0, 1, 1, 2, 2)
SETS: dict[str, tuple[dict[int, tuple[int, ...]], tuple[int, int, int]]] = {
    "mg": ({6: CARBON}, (270, 90, 90)),
    "mm": ({16: CARBON, 42: HEAVY}, (300, 100, 100)),
    "bg": ({6: CARBON}, (180, 60, 60)),
    "bb": ({83: HEAVY}, (231, 113, 113)),
    "bt": ({52: HEAVY, 83: HEAVY}, (204, 38, 12)),
    "bs": ({34: HEAVY, 83: HEAVY}, (231, 113, 113)),
}
"""Shells of each element, and the sizes of the splits."""
SPIN_ORBIT = {"bb", "bt", "bs"}
PUBLISHED = {"mg": 627_981, "mm": 721_343, "bg": 627_981, "bb": 1_309_059, "bt": 1_378_563, "bs": 1_378_563}
"""Parameters of the published backbones."""


def folders(path: Path, shells: dict[int, tuple[int, ...]], spin: Spin, n_structures: int) -> Path:
    """Small crystals with random matrices of a set's orbitals; without spin in the legacy layout, spinors in the new one."""
    space = OrbitalSpace("test", shells, order="openmx")
    elements = sorted(shells)
    for seed in range(n_structures):
        rng = np.random.default_rng(seed)
        numbers = np.array([elements[0], elements[-1]])
        positions = np.array([[0.0, 0.0, 5.0], [1.4, 1.4, 6.0]]) + 0.05 * rng.normal(size=(2, 3))
        structure = Structure(numbers, positions, cell_angstrom=np.diag([2.8, 2.8, 30.0]), pbc=(True, True, False))
        pairs = PairList.within(structure, lambda a, b: 3.0)
        empty = BlockSet.zeros(space, numbers, pairs, spin)
        noise = rng.normal(size=empty.values.shape) + (
            1j * rng.normal(size=empty.values.shape) if spin == "spinor" else 0
        )
        h = empty.with_values(0.05 * noise).hermitised()
        s = BlockSet.zeros(space, numbers, pairs)
        overlap = s.with_values(0.01 * rng.normal(size=s.values.shape)).hermitised()
        write = write_deeph_legacy if spin == "restricted" else write_deeph
        write(Matrices(structure, h, overlap, fermi_energy=0.0), path / f"{seed:03d}")
    return path


def on(
    name: str, data: Path, output: Path, change: Callable[[RunConfig], RunConfig] = lambda config: config
) -> RunConfig:
    """A preset on small data."""
    config = read_run(PRESETS / f"{name}.toml")
    own = replace(config.data, file=data, split="random-2-1-1")
    return change(replace(config, output=output, data=own, processes=0, threads=1, device="cpu"))


@pytest.mark.parametrize("name", sorted(SETS))
def test_a_step_of_every_preset(name: str, tmp_path: Path) -> None:
    """The literal form where it is small enough for a test, else with fewer invariants; all else as in the file."""
    shells, sizes = SETS[name]
    data = folders(tmp_path / "data", shells, "spinor" if name in SPIN_ORBIT else "restricted", 4)
    preset = read_run(PRESETS / f"{name}.toml")
    assert preset.data.split == "random-{}-{}-{}".format(*sizes)
    tracegrad = preset.network.tracegrad
    assert (tracegrad.contraction, tracegrad.rank, tracegrad.after) == ("full", 1024, "every")
    assert tracegrad.n_scalars == max(len(own) for own in shells.values()) ** 2
    small = replace(tracegrad, rank=8, hidden=16)
    config = on(name, data, tmp_path / "run", lambda own: replace(own, network=replace(own.network, tracegrad=small)))
    text = "\n".join(check(config))
    assert "split train     2" in text
    assert "sound" in text
    fit(config, until_step=1)
    progress = saved_progress(config.output)
    assert progress is not None
    assert progress["step"] == 1
    tensors, _ = read_tensors(config.output / "state.safetensors")
    backbone = [value for key, value in tensors.items() if key.startswith("model/backbone") and "running" not in key]
    assert sum(value.numel() for value in backbone) == PUBLISHED[name]


def test_an_incomplete_set_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folders(tmp_path / "data", {6: CARBON}, "restricted", 2)
    config = read_run(PRESETS / "mg.toml")
    with pytest.raises(DatasetError, match=r"has 2 structures, too few for 270 \+ 90 \+ 90"):
        check(replace(config, data=replace(config.data, file=data)))
    assert main(["fit", str(PRESETS / "mg.toml"), "--check"]) == 1, "nobody has downloaded it here"
    assert "MG" in capsys.readouterr().err


def test_another_set_is_refused(tmp_path: Path) -> None:
    """Bismuthene's preset on graphene."""
    data = folders(tmp_path / "data", {6: CARBON}, "restricted", 4)
    with pytest.raises(ConfigError, match="spin"):
        check(on("bb", data, tmp_path / "run"))


def test_legacy_folders_of_the_shared_data(tmp_path: Path) -> None:
    shared = Path(__file__).resolve().parents[3] / "shared" / "data" / "crystals" / "deeph_legacy"
    if not shared.is_dir():
        pytest.skip(f"{shared} is not there")
    for name, folder in (("mg", "graphene_dzp_0000"), ("bb", "bismuthene_soc_0000")):
        config = on(name, shared / folder, tmp_path / name)
        config = replace(config, data=replace(config.data, split="random-1-0-0", validation=("train",)))
        small = replace(config.network.tracegrad, rank=8, hidden=16)
        config = replace(config, network=replace(config.network, tracegrad=small))
        fit(config, until_step=1)
        assert (config.output / "best.safetensors").is_file()


def rates(**changes: object) -> OptimiserConfig:
    return OptimiserConfig(steps=10_000, learning_rate=1.0, warmup_steps=0, **changes)  # type: ignore[arg-type]


def test_slippery_slope() -> None:
    control = RateControl(rates(schedule="slippery_slope", slope_start=700, slope_every=300, final_learning_rate=0.1))
    assert [control.rate(step) for step in (0, 699, 700, 999, 1000, 1299, 1300)] == [
        1.0,
        1.0,
        0.5,
        0.5,
        0.25,
        0.25,
        0.125,
    ]
    assert [control.is_spent(step) for step in (1599, 1600)] == [False, True]


def test_plateau_and_the_way_back() -> None:
    """The rate halves after more than ``patience`` validations without gain, not before; and a state goes on alike."""
    config = rates(
        schedule="plateau", plateau_patience=3, plateau_cooldown=0, plateau_smoothing=0.5, final_learning_rate=0.3,
        revert_after=2, revert_above=2.0, revert_factor=0.8,
    )  # fmt: skip
    control = RateControl(config)
    found = []
    for loss in (1.0, 1.0, 1.0, 1.0, 1.0, 1.0):
        assert not control.after_validation(loss)
        found.append(control.rate(0))
    assert found == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5]
    other = RateControl(config)
    other.take(control.state())
    for loss in (3.0, 3.0, 0.9, 3.0):
        assert control.after_validation(loss) == other.after_validation(loss)
        assert control.rate(0) == other.rate(0)
        assert control.state() == other.state()
    assert control.factor == pytest.approx(0.8), "two in a row, once"
    assert other.smoothed == pytest.approx(control.smoothed)


def test_a_run_goes_back_to_its_best_weights_and_resumes_alike(tmp_path: Path) -> None:
    """With a rate that only does harm, every validation after the first is worse: its weights again."""
    data = folders(tmp_path / "data", {6: CARBON}, "restricted", 4)

    def change(config: RunConfig) -> RunConfig:
        optimiser = replace(
            config.optimiser, steps=4, learning_rate=0.5, final_learning_rate=1e-9, revert_after=1, revert_above=1.0
        )
        network = replace(config.network, tracegrad=replace(config.network.tracegrad, mode="none"))
        return replace(config, optimiser=optimiser, network=network, validate_every=1, save_every=1)

    whole, pieces = on("mg", data, tmp_path / "whole", change), on("mg", data, tmp_path / "pieces", change)
    fit(whole)
    for step in (1, 2, 3, 4):
        fit(pieces, until_step=step)
    first, second = (read_tensors(run.output / "state.safetensors")[0] for run in (whole, pieces))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    best, _ = read_tensors(whole.output / "best.safetensors")
    name = "backbone.embedding.weight"
    progress = saved_progress(whole.output)
    assert progress is not None
    assert progress["rates"]["factor"] < 1.0
    assert torch.equal(first[f"model/{name}"], best[f"network/{name}"])
