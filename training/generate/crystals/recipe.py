"""A recipe of crystals: one TOML file that says which structures are made, how they are labelled, and in which split each is.

Tables: ``generate``; ``label``, whose ``program`` decides its other keys; and ``structures``, one table ``[[structures]]`` a
set, whose ``kind`` decides its other keys. Unknown keys are errors; paths are relative to the TOML file.
"""

from __future__ import annotations

import re
from math import gcd
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError, model_validator
from pydantic_core import ErrorDetails

from model.structure import SYMBOLS
from training.generate.crystals.settings import AnySettings, Table
from training.tables import ConfigError, Symbol, checked_symbol, message_of, read_toml, refuse_unknown_tables

Length = Annotated[float, Field(gt=0.5, le=200)]
"""Å."""
KPoints = tuple[
    Annotated[int, Field(ge=1, le=64)], Annotated[int, Field(ge=1, le=64)], Annotated[int, Field(ge=1, le=64)]
]
SplitName = Literal["train", "val", "test"]
TABLES: Final = ("generate", "label", "structures")
CHOICES: Final = {"label": "cp2k, gpaw, pyscf", "structures": "monolayer, bilayer, twisted, file"}
"""Values of the keys that decide a table's other keys."""
_COMPOSITION: Final = re.compile(r"([A-Z][a-z]?)(\d*)")


class Set(Table):
    """What all sets have.

    Attributes:
        name: of the set; names its structures and, with the recipe's seed, decides their random numbers.
        count: structures. More of them change none of the first ones.
        k_points: Gamma-centred mesh of the cell.
        rattle: standard deviation of each coordinate's displacement, Å.
        strain: largest component of the random strain in the plane.
        split: of all structures; where it is not given, one in ``test_every`` is "test" and one in ``val_every`` "val".
        test_every, val_every: see ``split``; 0 is never.
        begin: place of the first structure in the queue, 0 to 1. The structures of all sets take turns, so that a run
            that is stopped early leaves some of each.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,60}$")]
    count: PositiveInt
    k_points: KPoints
    rattle: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    strain: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    split: SplitName | None = None
    test_every: NonNegativeInt = 5
    val_every: NonNegativeInt = 10
    begin: Annotated[float, Field(ge=0, lt=1)] = 0.0


class FileSet(Set):
    """Structures of a file, as they are or perturbed.

    Attributes:
        path: extended xyz with a cell; structure k takes frame k, and begins again after the last one.
    """

    kind: Literal["file"]
    path: Path


class HoneycombSet(Set):
    """What sets of honeycomb layers have.

    Attributes:
        a: lattice constant of the flat layer, Å.
        height: of the cell, Å.
    """

    a: Length
    height: Length


class MonolayerSet(HoneycombSet):
    """One honeycomb layer.

    Attributes:
        repeat: cells along each lattice vector.
        sites: elements of the two sites; or
        compositions: of the whole cell, like ``B2N2C4``: atoms are dealt at random to the sites. Each structure takes one
            at random.
    """

    kind: Literal["monolayer"]
    repeat: Annotated[int, Field(ge=1, le=12)] = 1
    sites: tuple[Symbol, Symbol] | None = None
    compositions: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.sites is None) == (not self.compositions):
            raise ValueError("give either sites, such as ['B', 'N'], or compositions, such as ['B2N2C4']")
        wanted = 2 * self.repeat**2
        for text in self.compositions:
            found = len(atoms_of(text))
            if found != wanted:
                raise ValueError(f"{text!r} has {found} atoms; the cell of repeat {self.repeat} has {wanted}")
        return self


class BilayerSet(HoneycombSet):
    """Two honeycomb layers of one element, the upper one shifted.

    Attributes:
        element: of all atoms.
        repeat: cells along each lattice vector.
        distance: least and largest distance of the layers, Å; uniform in between.
        shifts: of the first structures, in lattice vectors of the small cell; those of the rest are uniform in the cell.
    """

    kind: Literal["bilayer"]
    element: Symbol
    repeat: Annotated[int, Field(ge=1, le=12)] = 1
    distance: tuple[Length, Length]
    shifts: tuple[tuple[float, float], ...] = ()

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        _check_distance(self.distance, self.height)
        return self


class TwistedSet(HoneycombSet):
    """Two honeycomb layers of one element turned into a commensurate cell (``builders.twisted_bilayer``).

    Attributes:
        element: of all atoms.
        m, n: of the cell; (2, 1) has 28 atoms, (3, 2) 76.
        distance: least and largest distance of the layers, Å; uniform in between.
    """

    kind: Literal["twisted"]
    element: Symbol
    m: Annotated[int, Field(ge=1, le=40)]
    n: Annotated[int, Field(ge=1, le=40)]
    distance: tuple[Length, Length]

    @model_validator(mode="after")
    def _commensurate(self) -> Self:
        if self.m == self.n or gcd(self.m, self.n) != 1:
            raise ValueError(f"m = {self.m} and n = {self.n} must differ and have no common divisor")
        _check_distance(self.distance, self.height)
        return self


def _check_distance(distance: tuple[float, float], height: float) -> None:
    if not distance[0] <= distance[1] < height / 2:
        raise ValueError(f"distance {distance} must be ascending and less than half the height, {height / 2:g}")


StructureSet = Annotated[MonolayerSet | BilayerSet | TwistedSet | FileSet, Field(discriminator="kind")]


class CrystalRecipe(Table):
    """A whole recipe.

    Attributes:
        name: of the data set.
        output: folder of the data set and of the shards.
        seed: of all random numbers.
        processes: labels made at a time, one thread each (0: in this process).
        merge_every: labels after which the data file is written anew with what there is.
        check_every: one structure in so many is labelled again, turned and moved (0: none).
        check_tolerance_mev: mean difference of H of such a copy beyond which the label is refused.
        label: program and level.
        structures: the sets.
    """

    name: str
    output: Path
    seed: NonNegativeInt = 0
    processes: NonNegativeInt = 0
    merge_every: PositiveInt = 10
    check_every: NonNegativeInt = 0
    check_tolerance_mev: PositiveFloat = 0.2
    label: AnySettings
    structures: Annotated[tuple[StructureSet, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [own.name for own in self.structures]
        if len(set(names)) < len(names):
            raise ValueError("two sets of structures have the same name")
        return self


def atoms_of(composition: str) -> tuple[int, ...]:
    """Atomic numbers of a composition like ``B2N2C4``.

    Raises:
        ValueError: it is none.
    """
    parts = _COMPOSITION.findall(composition)
    if not parts or "".join(symbol + count for symbol, count in parts) != composition:
        raise ValueError(f"{composition[:40]!r} is no composition; give it like B2N2C4")
    return tuple(SYMBOLS.index(checked_symbol(symbol)) for symbol, count in parts for _ in range(int(count or 1)))


def is_crystal_recipe(path: Path) -> bool:
    """Whether a recipe is one of crystals: its structures are a list of tables.

    Raises:
        ConfigError: unreadable.
    """
    return isinstance(read_toml(path).get("structures"), list)


def read_crystal_recipe(path: Path) -> CrystalRecipe:
    """Read and check a recipe.

    Raises:
        ConfigError: unreadable, unknown key, value out of range; one line for each mistake.
    """
    values = read_toml(path)
    refuse_unknown_tables(values, TABLES, path)
    general, sets = values.get("generate", {}), values.get("structures", [])
    if not isinstance(general, dict) or {"label", "structures"} & set(general):
        raise ConfigError(f"{path}: generate must be a table, [generate], without tables of its own.")
    general = {"name": path.stem, "output": f"../../data/{general.get('name', path.stem)}", **general}
    general["output"] = (path.resolve().parent / str(general["output"])).resolve()
    for own in sets if isinstance(sets, list) else []:
        if isinstance(own, dict) and isinstance(own.get("path"), str):
            own["path"] = path.resolve().parent / own["path"]
    try:
        return CrystalRecipe.model_validate({**general, "label": values.get("label", {}), "structures": sets})
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(_words(mistake) for mistake in error.errors())) from error


def _words(mistake: ErrorDetails) -> str:
    """One mistake: where it is and what is allowed."""
    where = ".".join(str(part) for part in mistake["loc"]) or "recipe"
    if mistake["type"] == "union_tag_not_found":
        named = CHOICES["label" if where == "label" else "structures"]
        return f"{where}: {mistake['ctx']['discriminator']} is missing; it is one of {named}"
    return f"{where}: {message_of(mistake)}"
