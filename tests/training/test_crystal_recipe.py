"""Crystal recipes: structures are what their tables say, plans do not move, and mistakes are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.pairs.pair_list import PairList
from model.structure import Structure
from training.generate.crystals import builders
from training.generate.crystals.plan import make_plan, split_of
from training.generate.crystals.recipe import CrystalRecipe, atoms_of, is_crystal_recipe, read_crystal_recipe
from training.tables import ConfigError

RECIPES = Path(__file__).resolve().parents[2] / "training" / "recipes"

MONOLAYER = """
[[structures]]
kind = "monolayer"
name = "mixed"
compositions = ["B2N2C4", "BNC6"]
count = 12
repeat = 2
k_points = [3, 3, 1]
a = 2.48
height = 12.0
rattle = 0.05
strain = 0.02
"""

TWISTED = """
[[structures]]
kind = "twisted"
name = "turned"
element = "C"
count = 1
m = 2
n = 1
k_points = [2, 2, 1]
a = 2.46
height = 15.0
distance = [3.35, 3.35]
split = "test"
"""


def written(folder: Path, text: str, label: str = '[label]\nprogram = "cp2k"\n') -> Path:
    path = folder / "recipe.toml"
    path.write_text(f"[generate]\nseed = 3\n{label}{text}", encoding="utf-8")
    return path


def recipe(folder: Path, text: str) -> CrystalRecipe:
    return read_crystal_recipe(written(folder, text))


def neighbours(structure: Structure, reach: float) -> np.ndarray:
    """How many atoms each one has within a distance, Å."""
    pairs = PairList.within(structure, reach)
    return np.bincount(pairs.first, minlength=len(structure)) - 1


@pytest.mark.parametrize(("m", "n", "atoms", "angle"), [(2, 1, 28, 21.787), (3, 2, 76, 13.174), (4, 3, 148, 9.430)])
def test_twisted_layers_are_two_perfect_honeycombs_at_the_stated_angle(
    m: int, n: int, atoms: int, angle: float
) -> None:
    made = builders.twisted_bilayer(2.46, 15.0, m, n, 3.35, 6)
    assert len(made) == atoms
    assert builders.twist_angle_degrees(m, n) == pytest.approx(angle, abs=1e-3)
    assert (neighbours(made, 1.45) == 3).all()
    pairs = PairList.within(made, 1.45)
    bonds = pairs.vectors_angstrom[pairs.distances_angstrom > 0]
    assert np.linalg.norm(bonds, axis=1) == pytest.approx(2.46 / np.sqrt(3), abs=1e-7)
    heights = made.positions_angstrom[pairs.first[pairs.distances_angstrom > 0], 2]
    turns = np.degrees(np.arctan2(bonds[:, 1], bonds[:, 0])) % 60.0
    lower, upper = turns[heights < 0], turns[heights > 0]
    assert np.ptp(np.exp(6j * np.radians(lower))) < 1e-6
    assert np.ptp(np.exp(6j * np.radians(upper))) < 1e-6
    difference = abs(float(upper[0] - lower[0])) % 60.0
    assert min(difference, 60.0 - difference) == pytest.approx(angle, abs=1e-3)


def test_shifted_layers_stack_as_their_name_says() -> None:
    above = {}
    for name, shift in (("AA", (0.0, 0.0)), ("AB", (1 / 3, 2 / 3))):
        made = builders.bilayer(2.46, 15.0, 1, 3.4, shift, 6)
        above[name] = neighbours(made, 3.41) - neighbours(made, 3.39)
    assert above["AA"].tolist() == [1, 1, 1, 1]
    assert sorted(above["AB"].tolist()) == [0, 0, 1, 1]


def test_strain_moves_atoms_with_the_cell_and_rattling_only_atoms() -> None:
    flat = builders.monolayer(2.46, 12.0, 2, [6] * 8)
    strained = builders.strained(flat, 0.02, np.random.default_rng(0))
    assert strained.cell_angstrom is not None
    assert flat.cell_angstrom is not None
    before = flat.positions_angstrom @ np.linalg.inv(flat.cell_angstrom)
    assert strained.positions_angstrom @ np.linalg.inv(strained.cell_angstrom) == pytest.approx(before)
    assert 1e-3 < np.abs(strained.cell_angstrom - flat.cell_angstrom).max() < 0.02 * 2 * 4.92
    rattled = builders.rattled(flat, 0.05, np.random.default_rng(0))
    assert np.array_equal(rattled.cell_angstrom, flat.cell_angstrom)  # type: ignore[arg-type]
    assert 0.03 < float(np.std(rattled.positions_angstrom - flat.positions_angstrom)) < 0.08


def test_a_plan_is_the_same_every_time_and_more_structures_move_none(tmp_path: Path) -> None:
    first = make_plan(recipe(tmp_path, MONOLAYER))
    again = make_plan(recipe(tmp_path, MONOLAYER))
    assert [crystal.key for crystal in first] == [crystal.key for crystal in again]
    more = {crystal.name: crystal for crystal in make_plan(recipe(tmp_path, MONOLAYER.replace("12", "15", 1)))}
    assert len(more) == 15
    for crystal in first:
        assert more[crystal.name].key == crystal.key
        assert more[crystal.name].split == crystal.split
    formulas = {tuple(sorted(crystal.structure.numbers.tolist())) for crystal in first}
    assert formulas == {tuple(sorted(atoms_of(text))) for text in ("B2N2C4", "BNC6")}
    assert len({crystal.key for crystal in first}) == 12


def test_a_label_at_another_level_has_another_key_and_a_time_limit_changes_none(tmp_path: Path) -> None:
    first = make_plan(recipe(tmp_path, MONOLAYER))[0].key
    levels = {
        text: make_plan(read_crystal_recipe(written(tmp_path, MONOLAYER, f'[label]\nprogram = "cp2k"\n{text}\n')))[
            0
        ].key
        for text in ("cutoff_rydberg = 300", "smearing_kelvin = 500", "minutes = 5", 'command = "elsewhere"')
    }
    assert [key == first for key in levels.values()] == [False, False, True, True]


def test_splits_follow_the_number_and_a_stated_one_wins(tmp_path: Path) -> None:
    assert [split_of(index, 5, 10) for index in range(10)].count("test") == 2
    assert split_of(5, 5, 10) == "val"
    assert split_of(4, 0, 0) == "train"
    plan = make_plan(recipe(tmp_path, MONOLAYER + TWISTED))
    assert {crystal.split for crystal in plan if crystal.set_name == "turned"} == {"test"}


def test_a_run_that_stops_early_has_some_of_each_set(tmp_path: Path) -> None:
    other = MONOLAYER.replace('"mixed"', '"other"').replace("count = 12", "count = 4")
    names = [crystal.set_name for crystal in make_plan(recipe(tmp_path, MONOLAYER + other))]
    assert names[:8].count("mixed") == 6
    assert names[:8].count("other") == 2


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('"B2N2C4"', '"B2N2C3"', "'B2N2C3' has 7 atoms; the cell of repeat 2 has 8"),
        ('"B2N2C4"', '"B2Xx2C4"', "no element symbol"),
        ('"B2N2C4"', '"b2n2c4"', "no composition"),
        ("rattle = 0.05", "rattle = 5.0", "less than or equal to 0.5"),
        ("rattle = 0.05", "ratle = 0.05", "ratle: Extra inputs"),
        ("count = 12", "count = 0", "greater than 0"),
        ("[3, 3, 1]", "[3, 3]", "k_points"),
        ('kind = "monolayer"', 'kind = "trilayer"', "trilayer"),
        ("m = 2", "m = 1", "must differ"),
        ("m = 2\nn = 1", "m = 4\nn = 2", "common divisor"),
        ("[3.35, 3.35]", "[3.5, 3.3]", "ascending"),
        ('"turned"', '"mixed"', "same name"),
        ('program = "cp2k"', 'program = "quantum"', "quantum"),
        ('program = "cp2k"\n', "", "'program' is missing; it is one of cp2k, gpaw, pyscf"),
        ('kind = "twisted"\n', "", "structures.1: 'kind' is missing; it is one of monolayer, bilayer, twisted, file"),
        ("seed = 3", "seed = 3\nlabel = 4", "without tables of its own"),
        ("seed = 3", "sed = 3", "sed: Extra inputs"),
        ('program = "cp2k"', 'program = "cp2k"\ncutoff_rydberg = 1', "greater than or equal to 50"),
    ],
)
def test_mistakes_are_refused_with_what_is_allowed(tmp_path: Path, before: str, after: str, said: str) -> None:
    text = written(tmp_path, MONOLAYER + TWISTED).read_text(encoding="utf-8")
    assert before in text
    path = tmp_path / "mistaken.toml"
    path.write_text(text.replace(before, after), encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        read_crystal_recipe(path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_recipes_of_molecules_are_not_taken_for_crystals(tmp_path: Path) -> None:
    assert is_crystal_recipe(written(tmp_path, MONOLAYER))
    assert not is_crystal_recipe(RECIPES / "small_molecules.toml")


@pytest.mark.parametrize("path", [path for path in sorted(RECIPES.glob("*.toml")) if is_crystal_recipe(path)])
def test_every_crystal_recipe_of_the_repository_makes_its_structures(path: Path) -> None:
    made = make_plan(read_crystal_recipe(path))
    assert len({crystal.key for crystal in made}) == len(made)
    assert {crystal.split for crystal in made} <= {"train", "val", "test"}
    twisted = [crystal for crystal in made if "twisted" in crystal.set_name]
    assert all(crystal.split == "test" for crystal in twisted)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "ASE cannot read it"),
        ("1\n\nC 0 0 0\n", "frame 0 has no cell of three vectors"),
        ('2\nLattice="3 0 0 0 3 0 0 0 9" pbc="T T F"\nC 0 0 0\nC 0 0 0.2\n', "frame 0: "),
    ],
)
def test_files_without_usable_crystals_are_refused(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "own.xyz").write_text(text, encoding="utf-8")
    own = '[[structures]]\nkind = "file"\nname = "own"\npath = "own.xyz"\ncount = 1\nk_points = [1, 1, 1]\n'
    with pytest.raises(ConfigError, match=said):
        make_plan(recipe(tmp_path, own))
