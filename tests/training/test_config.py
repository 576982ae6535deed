"""Run files and recipes: what may stand in them, and what is said about anything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.fit.config import ConfigError, read_run
from training.generate.crystals.recipe import is_crystal_recipe, read_crystal_recipe
from training.generate.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]
RUN = '[data]\nfile = "focks.h5"\n[network]\nbackbone = "qhnet"\n[optimiser]\nsteps = 10\n'
RECIPE = '[smiles]\ninline = ["O"]\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "named.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_run_needs_only_data_backbone_and_steps(tmp_path: Path) -> None:
    config = read_run(write(tmp_path, RUN))
    assert config.name == "named"
    assert config.data.file == tmp_path / "focks.h5", "paths are relative to the file"
    assert config.optimiser.steps == 10
    assert config.elements == ("H", "C", "N", "O", "F")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (RUN + "[optimizer]\nsteps = 1\n", ["unknown tables optimizer", "allowed are run, data"]),
        (RUN + "learning_speed = 1.0\n", ["[optimiser]", "learning_speed", "it knows", "learning_rate"]),
        (RUN.replace("steps = 10", ""), ["[optimiser] lacks steps"]),
        (RUN.replace('file = "focks.h5"', ""), ["[data] lacks file"]),
        (RUN.replace("steps = 10", 'steps = "10"'), ["[optimiser] steps is '10'; it should be a valid integer"]),
        (RUN.replace("steps = 10", "steps = true"), ["steps is True; it should be a valid integer"]),
        (RUN.replace("steps = 10", "steps = 1.5"), ["steps is 1.5; it should be a valid integer"]),
        (RUN + "[run]\nelements = [1, 6]\n", ["elements[0] is 1; it should be a valid string"]),
        (RUN.replace("[data]", "[[data]]"), ["data must be a table"]),
        (RUN.replace("qhnet", "resnet"), ["[network]", "resnet", "Allowed: deeph_e3, qhnet"]),
        (RUN + "[network.qhnet]\nchannels = 8\n", ["[network]", "channels", "node_channels"]),
        (
            RUN + '[network.qhnet]\nnode_channels = "8"\n',
            ["[network] qhnet.node_channels is '8'; allowed is a whole number"],
        ),
        (RUN + "[network.tracegrad]\nmode = true\n", ["mode"]),
        ("[data\n", ["named.toml"]),
        (
            RUN.replace("steps = 10", "steps = -1"),
            ["[optimiser] steps is -1; it should be greater than or equal to 0"],
        ),
        (RUN + "learning_rate = 0.0\n", ["[optimiser] learning_rate is 0.0; it should be greater than 0"]),
        (RUN + "betas = [0.9, 1.0]\n", ["betas[1] is 1.0; it should be less than 1"]),
        (RUN + "ema_decay = 1.5\n", ["ema_decay is 1.5"]),
        (RUN + "[loss]\nguess = -2.0\n", ["[loss] guess is -2.0; it should be greater than or equal to 0"]),
        (RUN + "[run]\nsave_every = 0\n", ["[run] save_every is 0; it should be greater than 0"]),
        (
            RUN + '[run]\nelements = ["H", "Q"]\n',
            ["[run] elements[1] is 'Q'; 'Q' is no element symbol; give them like"],
        ),
        (RUN + "[reference]\nratio = 1.0\n", ["[reference] ratio is 1.0; it should be greater than 1"]),
        (RUN + '[model]\nspin = "up"\n', ["[model] spin is 'up'", "'restricted', 'unrestricted' or 'spinor'"]),
        (RUN + "[data.x]\n", ["[data]", "x"]),
        (RUN + "[run]\nthreads = -1\nsave_every = 0\n", ["threads is -1", "save_every is 0"]),
        (RUN + "learning_rate = inf\n", ["learning_rate is inf; it should be a finite number"]),
        (
            RUN.replace('"focks.h5"', '"focks.h5"\nformat = "hdf"'),
            ["[data] format is 'hdf'", "tracegrad"],
        ),
        (RUN.replace('"focks.h5"', '"focks.h5"\ntrain = []'), ["[data] train is []"]),
        (RUN + '[run]\ndevice = "gpu"\n', ["[run] device is 'gpu'"]),
        (RUN + "[loss]\nbands_damping = 0.02\n", ["bands_damping needs kinetic energies", "'pyscf_molecule' has none"]),
    ],
)
def test_a_run_says_what_is_wrong_and_what_is_allowed(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read_run(write(tmp_path, text))
    for word in words:
        assert word in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        read_run(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("path", sorted((ROOT / "training" / "runs").glob("*.toml")), ids=lambda path: path.stem)
def test_runs_of_the_repository_are_valid(path: Path) -> None:
    assert read_run(path).optimiser.steps > 0


@pytest.mark.parametrize("path", sorted((ROOT / "training" / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_of_the_repository_are_valid(path: Path) -> None:
    if is_crystal_recipe(path):
        assert read_crystal_recipe(path).structures
        return
    recipe = read_recipe(path)
    assert len(recipe.smiles.inline) == len(set(recipe.smiles.inline))


def test_the_run_in_the_documents_is_valid(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    run = text[text.index("```toml") + 7 :]
    assert read_run(write(tmp_path, run[: run.index("```")])).name == "mine"


def test_a_recipe_needs_only_a_source(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, RECIPE))
    assert (recipe.name, recipe.pool) == ("named", "named")
    assert (recipe.label.method, recipe.label.xc, recipe.label.grid_level) == ("corrected", "b3lyp", 3)
    assert recipe.smiles.temperatures == (300.0, 400.0, 500.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["names no structures", "[smiles]", "[structures]"]),
        (RECIPE + "[labels]\n", ["unknown tables labels", "label"]),
        (RECIPE + '[label]\nfunctional = "pbe"\n', ["functional", "it knows", "xc"]),
        (RECIPE + '[label]\nmethod = "fast"\n', ["'fast'", "'corrected' or 'exact'"]),
        (RECIPE + "[label]\ngrid_level = 12\n", ["grid_level is 12", "less than or equal to 9"]),
        (RECIPE + "[split]\nval = 0.6\ntest = 0.6\n", ["0.6", "sum to 1"]),
        (RECIPE + "[split]\nval = -0.1\n", ["-0.1"]),
        (RECIPE + 'temperatures = ["hot"]\n', ["temperatures[0] is 'hot'; it should be a valid number"]),
        (RECIPE + "temperatures = [0]\n", ["temperatures[0] is 0; it should be greater than 0"]),
        (RECIPE + "minimum = false\ntemperatures = []\n", ["no geometry"]),
        (RECIPE + "minimum = 1\n", ["minimum is 1; it should be a valid boolean"]),
        ('[structures]\nfiles = ["absent.xyz"]\n', ["not there", "absent.xyz"]),
        (RECIPE + "[generate]\nprocesses = -1\n", ["processes is -1"]),
    ],
)
def test_a_recipe_says_what_is_wrong_and_what_is_allowed(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read_recipe(write(tmp_path, text))
    for word in words:
        assert word in str(caught.value)
