"""The generator: labels are those of stock PySCF, work that is done is not done again, bad molecules cost nobody else."""

from __future__ import annotations

import json
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from pyscf import dft, gto

import training.generate.run as generator
from training import executors
from training.__main__ import main
from training.data.sources import DatasetError, Frame, read_frames
from training.generate.label.molecule import make_label
from training.generate.run import Summary, generate, generate_part, is_checked, merge_parts, read_recipe
from training.generate.shards import ShardStore
from training.parts import Part
from training.tables import ConfigError

from .conftest import displaced, write_recipe

STOCK_TOLERANCE = 2e-6
"""hartree: the label's own error and its rounding to float32."""

LEVEL = '[label]\ngrid_level = 0\nmethod = "exact"\ncheck_every = 0\n'
"""The cheapest labels, for tests that are not about labels."""


def stock_fock(frame: Frame) -> tuple[np.ndarray, float]:
    """Plain PySCF, written as its manual would, converged far tighter than a label."""
    atoms = list(zip(frame.structure.symbols, frame.structure.positions_angstrom.tolist(), strict=True))
    mf = dft.RKS(gto.M(atom=atoms, unit="Angstrom", basis="def2-svp", verbose=0), xc="b3lyp")
    mf.grids.level = 3
    mf.conv_tol, mf.conv_tol_grad = 1e-11, 1e-8
    energy = mf.kernel()
    return np.asarray(mf.get_fock()), float(energy)


def failures(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "failures.jsonl").read_text(encoding="utf-8").splitlines()]


def files_of(folder: Path, **frames: Atoms | list[Atoms]) -> str:
    """Write each as an extended xyz file; gives the recipe's table."""
    for name, atoms in frames.items():
        write(folder / f"{name}.xyz", atoms, format="extxyz")
    return f"[structures]\nfiles = {json.dumps([f'{name}.xyz' for name in frames])}\n"


def test_labels_are_those_of_stock_pyscf(tiny: Summary) -> None:
    for frame in read_frames(tiny.file, ["train", "val"], frames_per_molecule=1):
        fock, energy = stock_fock(frame)
        assert np.abs(frame.fock - fock).max() < STOCK_TOLERANCE
        assert frame.energy == pytest.approx(energy, abs=1e-8)


@pytest.mark.parametrize("name", ["H2O", "NH3"])
def test_both_methods_agree_and_count_pyscfs_cycles(name: str, tmp_path: Path) -> None:
    """Cycles: of a run at PySCF's defaults, which the label's tighter run passes through."""
    table = files_of(tmp_path, one=displaced(name, 7))
    found = {}
    for method in ("exact", "corrected"):
        (tmp_path / method).mkdir()
        recipe = write_recipe(tmp_path, f'{table}[label]\nmethod = "{method}"\ncheck_every = 1')
        made = generate(read_recipe(recipe))
        found[method] = next(read_frames(made.file, ["train"]))
        with h5py.File(made.file) as file:
            assert file.attrs["method"] == method
            assert float(file["m000/grad"][0]) < 1e-6
            assert float(file["m000/gap"][0]) > 0.05
    exact, corrected = found["exact"], found["corrected"]
    assert np.abs(exact.fock - corrected.fock).max() < STOCK_TOLERANCE
    assert exact.energy == pytest.approx(corrected.energy, abs=1e-9)
    atoms = list(zip(exact.structure.symbols, exact.structure.positions_angstrom.tolist(), strict=True))
    default = dft.RKS(gto.M(atom=atoms, unit="Angstrom", basis="def2-svp", verbose=0), xc="b3lyp").run()
    assert (exact.cycles_minao, corrected.cycles_minao) == (default.cycles, default.cycles)


def test_stored_positions_are_the_labelled_ones(tiny: Summary) -> None:
    with h5py.File(tiny.file) as file:
        for name in file:
            positions = file[name]["positions"][:]
            assert np.array_equal(positions, np.round(positions, 6))
            assert set(file[name]["kind"][:].tolist()) == {b"given"}
            assert np.isnan(file[name]["T"][:]).all()


def test_the_file_has_every_attribute_and_dataset_of_the_format(tiny: Summary) -> None:
    with h5py.File(tiny.file) as file:
        assert set(file.attrs) >= set(
            "ao_order basis charge energy_unit fock grid_level length_unit multiplicity pyscf xc".split()  # noqa: SIM905
        )
        for group in file.values():
            assert set(group.attrs) == {"smiles", "formula", "split", "pool", "charge", "multiplicity"}
            assert set(group) == set(
                "atomic_numbers positions fock_tril energy cycles_minao gap grad T kind".split()  # noqa: SIM905
            )
            assert group["fock_tril"].dtype == np.float32


def test_a_deleted_shard_is_made_again_and_the_others_are_not(tmp_path: Path) -> None:
    table = files_of(tmp_path, h2=displaced("H2", 1), hf=displaced("HF", 1), water=displaced("H2O", 1))
    recipe = read_recipe(write_recipe(tmp_path, table + LEVEL))
    first = generate(recipe)
    assert (first.molecules, first.frames, first.labelled) == (3, 3, 3)
    assert generate(recipe).labelled == 0
    shards = sorted((recipe.output / "shards").glob("*.h5"))
    kept = {path: path.stat().st_mtime_ns for path in shards[1:]}
    before = [frame.fock for frame in read_frames(first.file, ["train"])]
    shards[0].unlink()
    (recipe.output / "shards" / f"{shards[0].stem}.123.part").write_bytes(b"half a shard")
    again = generate(recipe)
    assert (again.molecules, again.labelled) == (3, 1)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for one, other in zip(before, read_frames(again.file, ["train"]), strict=True):
        assert np.array_equal(one, other.fock)


def test_another_level_does_not_take_this_ones_shards(tmp_path: Path) -> None:
    table = files_of(tmp_path, h2=displaced("H2", 1))
    assert generate(read_recipe(write_recipe(tmp_path, table + LEVEL))).labelled == 1
    other = LEVEL.replace("grid_level = 0", "grid_level = 1")
    assert generate(read_recipe(write_recipe(tmp_path, table + other))).labelled == 1
    assert generate(read_recipe(write_recipe(tmp_path, table + LEVEL + 'xc = "b3lyp5"'))).labelled == 1
    assert generate(read_recipe(write_recipe(tmp_path, table + LEVEL + "[split]\ntest = 0.5"))).labelled == 0


def test_bad_molecules_and_frames_are_noted_and_left_out(tmp_path: Path) -> None:
    water = displaced("H2O", 1)
    stretched = water.copy()
    stretched.positions[1] += 3.0 * (stretched.positions[1] - stretched.positions[0])
    cell = displaced("H2", 1)
    cell.set_cell([5, 5, 5])
    cell.pbc = True
    table = files_of(
        tmp_path,
        radical=displaced("CH3", 1),
        sulphur=displaced("SH2", 1),
        broken=[water, stretched, displaced("H2O", 2)],
        crystal=cell,
        close=Atoms("HH", [[0, 0, 0], [0, 0, 0.3]]),
        good=displaced("HF", 1),
    ).replace('"good.xyz"', '"good.xyz", "text.xyz"')
    (tmp_path / "text.xyz").write_text("this is no xyz file\n")
    made = generate(read_recipe(write_recipe(tmp_path, table + LEVEL)))
    assert (made.molecules, made.frames) == (2, 3)
    found = {(line["source"].split(".")[0], line["frame"]): line["reason"] for line in failures(made.file.parent)}
    assert "electrons" in found.pop(("radical", 0))
    assert "elements S are not allowed; allowed are H, C, N, O, F" in found.pop(("sulphur", None))
    assert "bonds have changed" in found.pop(("broken", 1))
    assert "periodic" in found.pop(("crystal", 0))
    assert "0.300 Å apart" in found.pop(("close", 0))
    assert "Line 1: no whole number where the number of atoms" in found.pop(("text", 0))
    assert not found
    assert len(made.failures) == 6
    assert generate(read_recipe(write_recipe(tmp_path, table + LEVEL))).labelled == 0, "a failure is not tried again"


def test_a_small_gap_is_refused(tmp_path: Path) -> None:
    table = files_of(tmp_path, good=displaced("HF", 1), water=displaced("H2O", 1))
    recipe = read_recipe(write_recipe(tmp_path, table + LEVEL + "minimum_gap = 0.38\n"))
    made = generate(recipe)
    assert made.molecules == 1
    assert "the gap is 0.3" in failures(recipe.output)[0]["reason"]


def test_a_label_that_stock_pyscf_does_not_confirm_is_refused(tmp_path: Path) -> None:
    """No corrected label is equal to 1e-12 hartree, so this tolerance must refuse it; the good one passes."""
    table = files_of(tmp_path, water=displaced("H2O", 1))
    recipe = read_recipe(write_recipe(tmp_path, table + "[label]\ncheck_every = 1\ncheck_tolerance = 1e-12\n"))
    with pytest.raises(DatasetError, match="No molecule could be labelled"):
        generate(recipe)
    assert "stock PySCF gives a Fock matrix that differs by" in failures(recipe.output)[0]["reason"]
    assert not (recipe.output / "focks.h5").exists()


def test_the_checked_share_is_what_was_asked() -> None:
    checked = sum(is_checked(f"key{molecule}", frame, 50) for molecule in range(1000) for frame in range(5))
    assert 60 < checked < 140, "5000 frames, one in 50: 100 +- 10"
    assert all(is_checked("key", frame, 1) for frame in range(5))
    assert not any(is_checked("key", frame, 0) for frame in range(5))


def test_an_unexpected_error_costs_one_molecule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = files_of(tmp_path, h2=displaced("H2", 1), hf=displaced("HF", 1))
    original = make_label

    def fragile(structure: Any, config: Any) -> Any:
        if 9 in structure.numbers:
            raise ZeroDivisionError("in some library")
        return original(structure, config)

    monkeypatch.setattr(generator, "make_label", fragile)
    recipe = read_recipe(write_recipe(tmp_path, table + LEVEL))
    assert generate(recipe).molecules == 1
    assert failures(recipe.output)[0]["reason"] == "ZeroDivisionError: in some library"


def test_a_molecule_that_kills_its_worker_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool dies with the worker; molecules that it had in hand are tried alone, and only the killer is given up."""
    table = files_of(tmp_path, hf=displaced("HF", 1), h2=displaced("H2", 1), water=displaced("H2O", 1))
    pools: list[int] = []

    def mortal(work: Any, items: Any, *, processes: int, **_: Any) -> Any:
        pools.append(len(items))
        for item in items:
            if 9 in item.numbers:
                ShardStore(work.keywords["folder"]).start(item.key)
                raise BrokenProcessPool("killed")
            yield work(item)

    monkeypatch.setattr(executors, "parallel_map", mortal)
    recipe = read_recipe(write_recipe(tmp_path, table + LEVEL))
    made = generate(recipe)
    assert made.molecules == 2
    assert [(line["source"], "died twice" in line["reason"]) for line in failures(recipe.output)] == [
        ("hf.xyz frame 0", True)
    ]
    assert pools == [3, 1, 2]


def test_workers_that_never_start_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(*_: Any, **__: Any) -> Any:
        raise BrokenProcessPool("no worker")

    monkeypatch.setattr(executors, "parallel_map", dead)
    recipe = read_recipe(write_recipe(tmp_path, files_of(tmp_path, h2=displaced("H2", 1)) + LEVEL))
    with pytest.raises(ConfigError, match="No worker process stays alive"):
        generate(recipe)


def test_worker_processes_give_the_same_labels(tmp_path: Path) -> None:
    table = files_of(tmp_path, h2=displaced("H2", 1), hf=displaced("HF", 1))
    here = generate(read_recipe(write_recipe(tmp_path, table + LEVEL)))
    expected = [frame.fock for frame in read_frames(here.file, ["train"])]
    recipe = write_recipe(tmp_path, table + LEVEL)
    recipe.write_text(recipe.read_text().replace("processes = 0", "processes = 1").replace('"data"', '"other"'))
    there = generate(read_recipe(recipe))
    assert (there.labelled, there.file.parent.name) == (2, "other")
    for one, other in zip(expected, read_frames(there.file, ["train"]), strict=True):
        assert np.abs(one - other.fock).max() < 1e-7


def test_parts_make_the_data_set_of_one_call(tmp_path: Path) -> None:
    """Each part leaves the others' notes and shards alone, and a merge refuses to leave one out."""
    table = files_of(tmp_path, hf=displaced("HF", 1), h2=displaced("H2", 1), water=displaced("H2O", 1)) + LEVEL
    recipe = read_recipe(write_recipe(tmp_path, table))
    store = ShardStore(recipe.output / "shards")
    store.start("of-another-part")
    assert generate_part(recipe, Part(1, 2)) == 2
    assert store.started("of-another-part")
    assert not (recipe.output / "focks.h5").exists()
    with pytest.raises(ConfigError, match="1 of 3 molecules are not done"):
        merge_parts(recipe)
    assert generate_part(recipe, Part(2, 2)) == 1
    made = merge_parts(recipe)
    (tmp_path / "whole").mkdir()
    whole = generate(replace(recipe, output=tmp_path / "whole"))
    assert (made.molecules, made.frames, made.labelled) == (whole.molecules, whole.frames, 0)
    parts, one = (list(read_frames(found.file, ["train"])) for found in (made, whole))
    assert len(parts) == made.frames
    for first, second in zip(parts, one, strict=True):
        np.testing.assert_array_equal(first.fock, second.fock)


def test_the_command_takes_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write_recipe(tmp_path, files_of(tmp_path, h2=displaced("H2", 1)) + LEVEL))
    assert main(["generate", path, "--part", "2/2"]) == 0
    assert "part 2/2: 0 molecules" in capsys.readouterr().out
    assert main(["generate", path, "--merge"]) == 1
    assert "1 of 1 molecules are not done" in capsys.readouterr().err
    assert main(["generate", path, "--part", "1/2"]) == 0
    assert main(["generate", path, "--merge"]) == 0
    assert "1 frames of 1 molecules" in capsys.readouterr().out
