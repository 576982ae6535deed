"""The plan of a recipe: every structure with its split and the key of its shard, in the order in which they are labelled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import iread

from model.errors import ModelError
from model.structure import SYMBOLS, Structure
from training.generate.crystals import builders
from training.generate.crystals.recipe import (
    BilayerSet,
    CrystalRecipe,
    FileSet,
    MonolayerSet,
    SplitName,
    StructureSet,
    TwistedSet,
    atoms_of,
)
from training.tables import ConfigError


@dataclass(frozen=True, eq=False)
class Crystal:
    """One structure of the plan.

    Attributes:
        key: name of its shard; a hash of everything that its label depends on.
        name: of its group in the data file.
        set_name: the set it belongs to.
        split: "train", "val" or "test".
        structure: atoms and cell, rounded.
        k_points: Gamma-centred mesh.
    """

    key: str
    name: str
    set_name: str
    split: SplitName
    structure: Structure
    k_points: tuple[int, int, int]


def make_plan(recipe: CrystalRecipe) -> list[Crystal]:
    """All structures, in the order of the queue."""
    placed = []
    for number, own in enumerate(recipe.structures):
        for index in range(own.count):
            place = own.begin + (1 - own.begin) * index / own.count
            placed.append((place, number, _crystal(own, index, recipe)))
    return [crystal for _, _, crystal in sorted(placed, key=lambda item: item[:2])]


def _crystal(own: StructureSet, index: int, recipe: CrystalRecipe) -> Crystal:
    digest = hashlib.sha256(f"{recipe.seed}/{own.name}/{index}".encode()).digest()
    structure = build(own, index, np.random.default_rng(int.from_bytes(digest[:8])))
    return Crystal(
        key=_key(structure, own, recipe),
        name=f"{own.name}_{index:04d}",
        set_name=own.name,
        split=own.split or split_of(index, own.test_every, own.val_every),
        structure=structure,
        k_points=own.k_points,
    )


def build(own: StructureSet, index: int, rng: np.random.Generator) -> Structure:
    """Structure number ``index`` of a set.

    Raises:
        ConfigError: a file of structures that cannot be used.
    """
    if isinstance(own, FileSet):
        flat = _from_file(own, index)
    elif isinstance(own, MonolayerSet):
        flat = builders.monolayer(own.a, own.height, own.repeat, _numbers(own, rng))
    else:
        distance = float(rng.uniform(*own.distance))
        number = SYMBOLS.index(own.element)
        if isinstance(own, BilayerSet):
            drawn = rng.uniform(size=2)
            shift = own.shifts[index] if index < len(own.shifts) else (float(drawn[0]), float(drawn[1]))
            flat = builders.bilayer(own.a, own.height, own.repeat, distance, shift, number)
        else:
            assert isinstance(own, TwistedSet)
            flat = builders.twisted_bilayer(own.a, own.height, own.m, own.n, distance, number)
    moved = builders.rattled(builders.strained(flat, own.strain, rng), own.rattle, rng)
    return builders.rounded(moved)


def _from_file(own: FileSet, index: int) -> Structure:
    frames = _frames(own.path)
    atoms = frames[index % len(frames)]
    try:
        return Structure(
            np.array(atoms.numbers),
            np.array(atoms.positions),
            cell_angstrom=np.array(atoms.cell),
            pbc=(bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2])),
        )
    except ModelError as error:
        raise ConfigError(f"{own.path}, frame {index % len(frames)}: {error}") from error


@cache
def _frames(path: Path) -> tuple[Atoms, ...]:
    """All frames of a file, each with a cell that has a volume."""
    try:
        frames = tuple(iread(path, index=":", format="extxyz"))
    except Exception as error:  # ASE's readers raise whatever they stumble over
        raise ConfigError(f"{path}: ASE cannot read it: {error}") from error
    bad = [number for number, atoms in enumerate(frames) if atoms.cell.rank < 3 or not atoms.pbc.any()]
    if bad or not frames:
        raise ConfigError(
            f"{path}: frame {bad[0] if bad else 0} has no cell of three vectors, or is not periodic; "
            "give a lattice vector of vacuum where it does not repeat."
        )
    return frames


def _numbers(own: MonolayerSet, rng: np.random.Generator) -> list[int]:
    if own.sites is not None:
        return [SYMBOLS.index(symbol) for symbol in own.sites] * own.repeat**2
    text = own.compositions[int(rng.integers(len(own.compositions)))]
    return [int(z) for z in rng.permutation(np.array(atoms_of(text)))]


def split_of(index: int, test_every: int, val_every: int) -> SplitName:
    """Split of a structure by its number, the same however many there are."""
    if test_every and index % test_every == test_every - 1:
        return "test"
    if val_every and index % val_every == val_every // 2:
        return "val"
    return "train"


def _key(structure: Structure, own: StructureSet, recipe: CrystalRecipe) -> str:
    """Labels of another geometry or level must not be taken for this one's; time limits and paths change nothing."""
    level = recipe.label.model_dump(mode="json", exclude={"command", "minutes", "maximum_cycles"})
    assert structure.cell_angstrom is not None
    parts = [
        level,
        own.k_points,
        structure.numbers.tolist(),
        structure.positions_angstrom.tolist(),
        structure.cell_angstrom.tolist(),
    ]
    return f"{own.name}-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]}"
