"""Which molecules, in which split, with which bonds: decided before anything is labelled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule as ase_molecule
from ase.io import write
from hypothesis import given
from hypothesis import strategies as st

from training.generate.geometry import bonds_changed, bonds_of, geometries_of, parse_smiles
from training.generate.plan import formula_of, make_plan, split_of
from training.generate.recipe import SmilesConfig, SplitConfig, read_recipe
from training.tables import ConfigError

from .conftest import displaced, write_recipe

COUNTS = st.tuples(*[st.integers(0, 9)] * 5).filter(lambda counts: sum(counts[1:]) > 2)


def numbers_of(counts: tuple[int, ...]) -> np.ndarray:
    return np.repeat([1, 6, 7, 8, 9], counts)


@given(counts=COUNTS, seed=st.integers(0, 2**32 - 1))
def test_the_split_depends_on_the_formula_alone(counts: tuple[int, ...], seed: int) -> None:
    numbers = numbers_of(counts)
    shuffled = np.random.default_rng(seed).permutation(numbers)
    assert split_of(numbers, SplitConfig()) == split_of(shuffled, SplitConfig())


@given(counts=COUNTS, share=st.floats(0, 1))
def test_growing_the_test_share_never_takes_a_formula_out_of_it(counts: tuple[int, ...], share: float) -> None:
    numbers = numbers_of(counts)
    if split_of(numbers, SplitConfig(val=0, test=share / 2)) == "test":
        assert split_of(numbers, SplitConfig(val=0, test=share)) == "test"


def test_shares_are_what_was_asked() -> None:
    formulas = [
        np.repeat([1, 6, 7, 8], [h, c, n, o])
        for h in range(10)
        for c in range(3, 13)
        for n in range(5)
        for o in range(4)
    ]
    found = [split_of(numbers, SplitConfig()) for numbers in formulas]
    assert len(found) == 2000
    assert 0.09 < found.count("test") / 2000 < 0.15
    assert 0.03 < found.count("val") / 2000 < 0.07


def test_the_smallest_molecules_are_always_trained_on() -> None:
    everything = SplitConfig(val=0.0, test=1.0)
    assert split_of(np.array([6, 8, 1, 1, 1, 1]), everything) == "train"
    assert split_of(np.array([6, 6, 8, 1, 1, 1, 1, 1, 1]), everything) == "test"
    assert split_of(np.array([8, 1, 1]), SplitConfig(val=0.0, test=1.0, always_train_heavy=0)) == "test"


@pytest.mark.parametrize(
    ("name", "formula"), [("H2O", "H2O"), ("CH3CONH2", "C2H5NO"), ("NH3", "H3N"), ("CH3Cl", "CH3Cl"), ("CF4", "CF4")]
)
def test_formulas_are_in_hill_order(name: str, formula: str) -> None:
    assert formula_of(ase_molecule(name).numbers) == formula


@pytest.mark.parametrize(
    ("name", "count"), [("H2", 1), ("F2", 1), ("H2O", 2), ("CH4", 4), ("C6H6", 12), ("CH3CH2OH", 8), ("N2H4", 5)]
)
def test_bonds_by_distance(name: str, count: int) -> None:
    atoms = ase_molecule(name)
    assert bonds_of(atoms.numbers, atoms.positions).sum() == 2 * count


def test_vibrations_keep_bonds_and_reactions_do_not() -> None:
    atoms = ase_molecule("CH3CH2OH")
    bonds = bonds_of(atoms.numbers, atoms.positions)
    for seed in range(20):
        shaken = atoms.copy()
        shaken.rattle(0.08, seed=seed)
        assert not bonds_changed(shaken.numbers, shaken.positions, bonds)
    hydrogen = int(np.flatnonzero(atoms.numbers == 1)[0])
    neighbour = int(np.flatnonzero(bonds[hydrogen])[0])
    lost = atoms.positions.copy()
    lost[hydrogen] += 1.0 * (lost[hydrogen] - lost[neighbour])
    assert bonds_changed(atoms.numbers, lost, bonds)
    met = ase_molecule("H2O")
    numbers = np.concatenate([met.numbers, met.numbers])
    pair, apart = (np.concatenate([met.positions, met.positions + np.array([0, 0, z])]) for z in (1.1, 5.0))
    assert bonds_changed(numbers, pair, bonds_of(numbers, apart)), "a bond has formed"


def plan(folder: Path, tables: str) -> tuple[list[tuple[str, str, int]], list[str]]:
    molecules, failures = make_plan(read_recipe(write_recipe(folder, tables)))
    return (
        [(m.formula, m.split, 0 if m.geometries is None else len(m.geometries)) for m in molecules],
        [failure.reason for failure in failures],
    )


def test_frames_of_a_file_are_grouped_by_atoms_and_name(tmp_path: Path) -> None:
    first, second = ase_molecule("CH3CH2OH"), ase_molecule("CH3CH2OH")
    second.info["name"] = "another conformer kept apart"
    frames = [displaced("H2O", 1), first, displaced("H2O", 2), second]
    write(tmp_path / "mixed.xyz", [Atoms(a.numbers, a.positions, info=a.info) for a in frames], format="extxyz")
    found, failures = plan(tmp_path, '[structures]\nfiles = ["mixed.xyz"]')
    assert [(formula, count) for formula, _, count in found] == [("H2O", 2), ("C2H6O", 1)]
    assert not failures


def test_the_same_molecule_in_two_files_is_taken_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.xyz", displaced("H2O", 1), format="extxyz")
    assert len(plan(tmp_path, '[structures]\nfiles = ["a.xyz", "b.xyz"]')[0]) == 1


def test_a_folder_is_read_in_name_order_and_an_empty_one_is_noted(tmp_path: Path) -> None:
    for folder in ("full", "empty"):
        (tmp_path / folder).mkdir()
    for name in ("NH3", "H2O"):
        write(tmp_path / "full" / f"{name}.extxyz", displaced(name, 1), format="extxyz")
    found, failures = plan(tmp_path, '[structures]\nfiles = ["full", "empty"]')
    assert [formula for formula, _, _ in found] == ["H2O", "H3N"]
    (failure,) = failures
    assert failure.startswith("the folder holds no file of .xyz, .extxyz, .mol,")


def test_files_are_read_as_they_mean_it_and_a_bad_frame_costs_itself(tmp_path: Path) -> None:
    water = "O 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n"
    bad = water.replace("H 0 0.763", "Q 0 0.763")
    (tmp_path / "a.xyz").write_text(f"3\n\n{water}3\n\n{bad}3\nCharge=2\n{water}", encoding="utf-8")
    (tmp_path / "b.tmol").write_text("$coord angs\n0 0 0.119 o\n0 0.763 -0.477 d\n0 -0.763 -0.477 h\n$end\n")
    (tmp_path / "c.gjf").write_bytes(f"# HF\n\nWasser bei 1 \u00c5\n\n-2 1\n{water}\n".encode("latin-1"))
    recipe = read_recipe(write_recipe(tmp_path, '[structures]\nfiles = ["a.xyz", "b.tmol", "c.gjf"]'))
    molecules, failures = make_plan(recipe)
    assert sorted(molecule.charge for molecule in molecules) == [-2, 0, 2]
    for molecule in molecules:
        np.testing.assert_allclose(molecule.geometries[0].positions[0], [0, 0, 0.119], atol=1e-5)
    assert [failure.frame for failure in failures if failure.source == "a.xyz"] == [1]
    assert "line 9" in failures[0].reason.lower()


def test_a_split_that_a_file_names_holds_for_its_formula(tmp_path: Path) -> None:
    frames = {"a": displaced("CH3CH2OH", 1), "b": displaced("CH3OCH3", 1), "c": displaced("H2O", 1)}
    frames["b"].info["split"] = "ood"
    for name, atoms in frames.items():
        write(tmp_path / f"{name}.xyz", atoms, format="extxyz")
    tables = f"[structures]\nfiles = {json.dumps([f'{name}.xyz' for name in frames])}"
    assert [split for _, split, _ in plan(tmp_path, tables)[0]] == ["ood", "ood", "train"]
    frames["a"].info["split"] = "train"
    write(tmp_path / "a.xyz", frames["a"], format="extxyz")
    with pytest.raises(ConfigError, match="C2H6O is asked into 'ood' and into 'train'"):
        plan(tmp_path, tables)


def test_smiles_without_rdkit_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rdkit.Chem", None)
    with pytest.raises(ConfigError, match=r"pip install tracegrad-service\[generate\]"):
        plan(tmp_path, '[smiles]\ninline = ["O"]')


def test_smiles_lines_tables_and_what_is_wrong_with_them(tmp_path: Path) -> None:
    pytest.importorskip("rdkit")
    pytest.importorskip("tblite")
    (tmp_path / "list.txt").write_text("# a comment\nC#N\n\nOCC ood\n")
    (tmp_path / "table.csv").write_text("id,smiles,split\n1,CC(C)C,val\n2,N,\n")
    found, failures = plan(
        tmp_path,
        '[smiles]\ninline = ["O", "[OH2]", "x y z", "C1", "[CH3]", "[NH4+]", "O.O"]\nfiles = ["list.txt", "table.csv"]',
    )
    assert [(formula, split) for formula, split, _ in found] == [
        ("H2O", "train"),
        ("H4N", "train"),
        ("CHN", "train"),
        ("C2H6O", "ood"),
        ("C4H10", "val"),
        ("H3N", "train"),
    ]
    words = ["is not 'SMILES' or", "cannot read", "radical", "more than one molecule"]
    assert len(failures) == len(words)
    for reason, word in zip(failures, words, strict=True):
        assert word in reason
    (tmp_path / "table.csv").write_text("id,name\n1,x\n")
    with pytest.raises(ConfigError, match="no column 'smiles'; it has id, name"):
        plan(tmp_path, '[smiles]\nfiles = ["table.csv"]')


def test_geometries_from_smiles_are_reproducible_and_keep_their_bonds() -> None:
    pytest.importorskip("rdkit")
    pytest.importorskip("tblite")
    config = SmilesConfig(
        temperatures=(300.0, 500.0), frames_per_temperature=2, equilibration_steps=20, spacing_steps=10
    )
    parsed = parse_smiles("C=O")
    frames = list(geometries_of("C=O", config, seed=1))
    assert [(frame.kind, frame.temperature) for frame in frames] == [
        ("xtb-min", 0.0), ("xtb-md", 300.0), ("xtb-md", 300.0), ("xtb-md", 500.0), ("xtb-md", 500.0),
    ]  # fmt: skip
    for frame in frames:
        assert np.array_equal(frame.positions, np.round(frame.positions, 6))
        assert not bonds_changed(parsed.numbers, frame.positions, parsed.bonds)
    again, other = (list(geometries_of("C=O", config, seed=seed)) for seed in (1, 2))
    for one, two in zip(frames, again, strict=True):
        assert np.array_equal(one.positions, two.positions)
    assert not np.allclose(frames[1].positions, other[1].positions, atol=1e-3)
    carbonyl = np.linalg.norm(frames[0].positions[0] - frames[0].positions[1])
    assert carbonyl == pytest.approx(1.205, abs=0.02), "experiment: 1.205 Å"
