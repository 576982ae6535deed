"""A recipe: one TOML file that says which structures are labelled, how, and into which splits they go (docs/training.md).

Tables: ``generate``; ``smiles`` and ``structures``, the two sources, at least one of them; ``split``; ``label``. An
unknown key is an error. Paths are relative to the TOML file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, cast

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from training.tables import (
    ConfigError,
    FilePath,
    Share,
    Symbol,
    read_table,
    read_toml,
    refuse_unknown_tables,
)

TABLES: Final = ("generate", "smiles", "structures", "split", "label")


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
    files: tuple[FilePath, ...] = ()
    minimum: bool = True
    temperatures: tuple[PositiveFloat, ...] = (300.0, 400.0, 500.0)
    frames_per_temperature: NonNegativeInt = 1
    equilibration_steps: NonNegativeInt = 400
    spacing_steps: PositiveInt = 200
    timestep_fs: PositiveFloat = 0.5


@dataclass(frozen=True)
class StructuresConfig:
    """Geometries given as files.

    Attributes:
        files: xyz or extended xyz files, or folders of them; every frame is taken.
    """

    files: tuple[FilePath, ...] = ()


@dataclass(frozen=True)
class SplitConfig:
    """Splits by chemical formula: a hash of the formula decides unless the file names the split.

    Attributes:
        val, test: shares of formulas; the rest is "train".
        always_train_heavy: molecules with at most so many heavy atoms are always in "train".
        salt: another one gives another division.
    """

    val: Share = 0.05
    test: Share = 0.12
    always_train_heavy: NonNegativeInt = 2
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

    method: Literal["corrected", "exact"] = "corrected"
    xc: str = "b3lyp"
    basis: str = "def2-svp"
    grid_level: Annotated[int, Field(ge=0, le=9)] = 3
    minimum_gap: float = 0.05
    check_every: NonNegativeInt = 50
    check_tolerance: PositiveFloat = 2e-6


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
    output: FilePath
    pool: str
    smiles: SmilesConfig
    structures: StructuresConfig
    split: SplitConfig
    label: LabelConfig
    elements: Annotated[tuple[Symbol, ...], Field(min_length=1)] = ("H", "C", "N", "O", "F")
    seed: NonNegativeInt = 0
    processes: NonNegativeInt = 2


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
    smiles, split = recipe.smiles, recipe.split
    missing = [str(file) for file in (*smiles.files, *recipe.structures.files) if not file.exists()]
    rules = (
        (
            bool(smiles.inline or smiles.files or recipe.structures.files),
            "names no structures; give [smiles] inline or files, or [structures] files",
        ),
        (not missing, f"names files that are not there: {', '.join(missing)}"),
        (split.val + split.test <= 1, f"[split] val is {split.val} and test {split.test}; they must sum to 1 at most"),
        (
            smiles.minimum or bool(smiles.temperatures and smiles.frames_per_temperature),
            "[smiles] asks for no geometry: set minimum = true, or temperatures and frames_per_temperature",
        ),
    )
    for holds, message in rules:
        if not holds:
            raise ConfigError(f"{path}: {message}.")
