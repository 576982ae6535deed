"""One run, one level of theory: labels of another functional, basis or charge are refused by name, never mixed in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest

from model.checkpoint.store import load
from model.level import Level
from training.fit.config import ConfigError, RunConfig, read_run
from training.fit.labels import LABELS_FILE, TrainedOn, keep_labels, read_labels, trained_on, with_level
from training.fit.run import fit
from training.fit.start import load_start
from training.generate.run import Summary
from training.release import release

from .conftest import write_run


@pytest.fixture
def config(tiny: Summary, tmp_path: Path) -> RunConfig:
    return read_run(write_run(tmp_path, tiny.file))


def altered(file: Path, to: Path, change: Callable[[h5py.File], None]) -> Path:
    """A copy of a data file with something changed."""
    shutil.copy(file, to)
    with h5py.File(to, "a") as data:
        change(data)
    return to


def attributes(**values: Any) -> Callable[[h5py.File], None]:
    return lambda data: data.attrs.update(values)


def test_a_silent_run_takes_the_level_of_its_data(config: RunConfig) -> None:
    found = trained_on(config)
    assert (found.level.xc, found.level.basis, found.charges, found.multiplicities) == ("b3lyp", "def2-svp", (0,), (1,))
    said = with_level(config, found.level)
    assert (said.xc, said.basis, said.model.spin) == ("b3lyp", "def2-svp", "restricted")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"basis": "cc-pvdz"}, r"basis is def2-svp in .*focks.h5 and cc-pvdz in the run"),
        ({"xc": "pbe"}, r"xc is b3lyp in .*focks.h5 and pbe in the run"),
        ({"charges": (1,)}, r"focks.h5 has molecules of charge 0; the run says charges = \[1\]"),
    ],
)
def test_a_run_that_says_another_level_is_refused_before_any_work(
    said: dict[str, Any], words: str, config: RunConfig
) -> None:
    with pytest.raises(ConfigError, match=words):
        fit(replace(config, **said))
    assert not (config.output / "reference.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (attributes(basis="cc-pvdz"), r"basis is cc-pvdz in .*extra.h5 and def2-svp in .*focks.h5"),
        (attributes(xc="b3lyp5"), r"xc is b3lyp5 in .*extra.h5 and b3lyp in .*focks.h5"),
    ],
)
def test_an_extra_file_of_another_level_is_named(
    change: Callable[[h5py.File], None], words: str, config: RunConfig, tiny: Summary, tmp_path: Path
) -> None:
    """cc-pVDZ labels must not be trained as def2-SVP ones."""
    extra = altered(tiny.file, tmp_path / "extra.h5", change)
    with pytest.raises(ConfigError, match=words):
        trained_on(replace(config, data=replace(config.data, extra=(extra,))))


def test_spellings_of_one_level_are_the_same(config: RunConfig) -> None:
    assert trained_on(replace(config, xc="B3LYP", basis="def2SVP")).level.basis == "def2-svp"


def ions(data: h5py.File) -> None:
    for group in data.values():
        group.attrs["charge"] = 2


def ions_in_validation(data: h5py.File) -> None:
    for group in data.values():
        if group.attrs["split"] == "val":
            group.attrs["charge"] = 2


def test_charges_of_all_files_are_known(config: RunConfig, tiny: Summary, tmp_path: Path) -> None:
    extra = altered(tiny.file, tmp_path / "extra.h5", ions)
    both = replace(config, data=replace(config.data, extra=(extra,)))
    assert trained_on(both).charges == (0, 2)
    held_out = altered(tiny.file, tmp_path / "held_out.h5", ions_in_validation)
    assert trained_on(replace(config, data=replace(config.data, file=held_out))).charges == (0,), "trained on, not held"
    with pytest.raises(ConfigError, match=r"extra.h5 has molecules of charge 2; the run says charges = \[0\]"):
        trained_on(replace(both, charges=(0,)))


def test_open_shells_need_other_labels(config: RunConfig, tiny: Summary, tmp_path: Path) -> None:
    def triplets(data: h5py.File) -> None:
        for group in data.values():
            group.attrs["multiplicity"] = 3

    file = altered(tiny.file, tmp_path / "triplets.h5", triplets)
    with pytest.raises(ConfigError, match="multiplicity 3 with restricted labels"):
        trained_on(replace(config, data=replace(config.data, file=file)))


def test_the_run_folder_says_what_was_trained_on(trained: RunConfig, tmp_path: Path) -> None:
    stored = json.loads((trained.output / LABELS_FILE).read_text(encoding="utf-8"))
    assert (stored["level"]["xc"], stored["charges"], stored["multiplicities"]) == ("b3lyp", [0], [1])
    assert read_labels(trained.output, trained) == trained_on(trained)
    level = Level("pbe", "cc-pvdz", program="ORCA")
    keep_labels(tmp_path, TrainedOn(level, (-1, 0), (1,)))
    assert read_labels(tmp_path, trained) == TrainedOn(level, (-1, 0), (1,)), "the folder, not the files of today"


def test_a_run_does_not_start_from_another_level(trained: RunConfig, tmp_path: Path) -> None:
    folder = tmp_path / "start"
    release(trained, folder, version="1.0.0", description="test", licence="MIT", report=None)
    assert load_start(folder, trained, load(folder).card.level).folder == folder
    with pytest.raises(ConfigError, match="xc is pbe in the data and b3lyp in start_from"):
        load_start(folder, trained, Level("pbe", "def2-svp"))
