"""A recipe: one TOML file that says which structures are labelled, how, and into which splits they go (docs/training.md).

Tables: ``generate``; ``smiles`` and ``structures``, the two sources, at least one of them; ``split``; ``label``. An
unknown key is an error. Paths are relative to the TOML file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from training.tables import ConfigError, read_table, read_toml, refuse_unknown_tables

TABLES: Final = ("generate", "smiles", "structures", "split", "label")
METHODS: Final = ("corrected", "exact")


@dataclass(frozen=True)
class SmilesConfig:
    """Molecules given as SMILES; geometries are made with RDKit and GFN2-xTB (the optional extra ``generate``).

    Attributes:
        inline: lines "SMILES" or "SMILES split".
        files: text files of such lines (``#`` starts a comment line), or CSV files with a column ``smiles`` and, if
            wanted, ``split``.
        minimum: label the GFN2-xTB minimum.
        temperatures: of the Langevin dynamics, kelvin.
        frames_per_temperature: geometries taken at each temperature.
        equilibration_steps: before the first one.
        spacing_steps: between two of them.
        timestep_fs: of the dynamics.
    """

    inline: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    minimum: bool = True
    temperatures: tuple[float, ...] = (300.0, 400.0, 500.0)
    frames_per_temperature: int = 1
    equilibration_steps: int = 400
    spacing_steps: int = 200
    timestep_fs: float = 0.5


@dataclass(frozen=True)
class StructuresConfig:
    """Geometries given as files.

    Attributes:
        files: xyz or extended xyz files, or folders of them; every frame is taken.
    """

    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class SplitConfig:
    """Splits by chemical formula: a hash of the formula decides unless the file names the split.

    Attributes:
        val, test: shares of formulas; the rest is "train".
        always_train_heavy: molecules with at most so many heavy atoms are always in "train".
        salt: another one gives another division.
    """

    val: float = 0.05
    test: float = 0.12
    always_train_heavy: int = 2
    salt: str = "tracegrad"


@dataclass(frozen=True)
class LabelConfig:
    """Level of theory and checks of a label.

    Attributes:
        method: "corrected" (grid-corrected SCF) or "exact" (plain SCF).
        xc: functional, a libxc string.
        basis: PySCF name.
        grid_level: PySCF's integration grid, 0 to 9.
        minimum_gap: smaller HOMO-LUMO gaps are refused, hartree.
        check_every: one frame in so many is recomputed with stock PySCF (0: none, 1: all).
        check_tolerance: largest difference of a Fock element in such a check, hartree.
    """

    method: str = "corrected"
    xc: str = "b3lyp"
    basis: str = "def2-svp"
    grid_level: int = 3
    minimum_gap: float = 0.05
    check_every: int = 50
    check_tolerance: float = 2e-6


@dataclass(frozen=True)
class Recipe:
    """A whole recipe.

    Attributes:
        name: of the data set.
        output: folder of the data set and of the shards.
        pool: remark that every molecule carries.
        elements: symbols that are allowed.
        seed: of the geometries.
        processes: worker processes, one thread each (0: work in this process).
    """

    name: str
    output: Path
    pool: str
    smiles: SmilesConfig
    structures: StructuresConfig
    split: SplitConfig
    label: LabelConfig
    elements: tuple[str, ...] = ("H", "C", "N", "O", "F")
    seed: int = 0
    processes: int = 2


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        ConfigError: unreadable file, unknown key, wrong type, value out of range; says what is allowed.
    """
    values = read_toml(path)
    refuse_unknown_tables(values, TABLES, path)
    general = dict(values.get("generate", {}))
    general.setdefault("name", path.stem)
    general.setdefault("output", f"../data/{general['name']}")
    general.setdefault("pool", general["name"])
    recipe = cast(
        Recipe,
        read_table(
            Recipe,
            general,
            "generate",
            path,
            smiles=read_table(SmilesConfig, values.get("smiles", {}), "smiles", path),
            structures=read_table(StructuresConfig, values.get("structures", {}), "structures", path),
            split=read_table(SplitConfig, values.get("split", {}), "split", path),
            label=read_table(LabelConfig, values.get("label", {}), "label", path),
        ),
    )
    _check(recipe, path)
    return recipe


def _check(recipe: Recipe, path: Path) -> None:
    smiles, split, label = recipe.smiles, recipe.split, recipe.label
    missing = [str(file) for file in (*smiles.files, *recipe.structures.files) if not file.exists()]
    rules = (
        (
            bool(smiles.inline or smiles.files or recipe.structures.files),
            "names no structures; give [smiles] inline or files, or [structures] files",
        ),
        (not missing, f"names files that are not there: {', '.join(missing)}"),
        (label.method in METHODS, f"[label] method is {label.method!r}; it must be one of {', '.join(METHODS)}"),
        (0 <= label.grid_level <= 9, f"[label] grid_level is {label.grid_level}; it must be 0 to 9"),
        (label.check_every >= 0, f"[label] check_every is {label.check_every}; it must be 0 (never) or more"),
        (label.check_tolerance > 0, f"[label] check_tolerance is {label.check_tolerance}; it must be positive"),
        (
            split.val >= 0 and split.test >= 0 and split.val + split.test <= 1,
            f"[split] val is {split.val} and test {split.test}; shares must be 0 or more and sum to 1 at most",
        ),
        (
            all(t > 0 for t in smiles.temperatures) and smiles.timestep_fs > 0,
            "[smiles] temperatures and timestep_fs must be positive",
        ),
        (
            min(smiles.frames_per_temperature, smiles.equilibration_steps) >= 0 and smiles.spacing_steps >= 1,
            "[smiles] frames_per_temperature and equilibration_steps must be 0 or more, spacing_steps 1 or more",
        ),
        (
            smiles.minimum or bool(smiles.temperatures and smiles.frames_per_temperature),
            "[smiles] asks for no geometry: set minimum = true, or temperatures and frames_per_temperature",
        ),
        (recipe.processes >= 0, f"[generate] processes is {recipe.processes}; it must be 0 (this process) or more"),
        (recipe.seed >= 0, f"[generate] seed is {recipe.seed}; it must be 0 or more"),
    )
    for holds, message in rules:
        if not holds:
            raise ConfigError(f"{path}: {message}.")
