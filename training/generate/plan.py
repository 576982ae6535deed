"""The plan: every molecule of a recipe with its formula, its split and the key of its shard, before anything is labelled.

Splits are disjoint by chemical formula. A file may name a molecule's split; its formula then belongs there, and so do
other molecules of that formula. Otherwise a hash of the formula decides, so that adding molecules moves no other one.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyscf
from ase import Atoms
from numpy.typing import NDArray

from model.structure import SYMBOLS
from model.structure_files.encoding import decode_text
from model.structure_files.frame import Frame, Frames, UnreadableError
from model.structure_files.read import FORMAT_OF_SUFFIX, read_structures
from training.generate.geometry import Geometry, GeometryError, bonds_of, import_extra, parse_smiles, rounded
from training.generate.recipe import Recipe, SplitConfig
from training.tables import ConfigError


@dataclass(frozen=True)
class Molecule:
    """One molecule of the plan.

    Attributes:
        key: name of its shard; a hash of everything that its labels depend on.
        source: where it comes from, for messages.
        smiles: canonical SMILES, or what the file says, or "".
        formula: in Hill order.
        split: name of its split.
        numbers: atomic numbers, (atom,).
        bonds: (atom, atom), bool; frames with other bonds are dropped.
        geometries: given ones; None when they are to be made from the SMILES.
        charge: total charge, from the SMILES or from the file.
        multiplicity: 2S + 1; labels are of closed shells, so any other than 1 fails when it is labelled.
    """

    key: str
    source: str
    smiles: str
    formula: str
    split: str
    numbers: NDArray[np.int64]
    bonds: NDArray[np.bool_]
    geometries: tuple[Geometry, ...] | None
    charge: int = 0
    multiplicity: int = 1


@dataclass(frozen=True)
class Failure:
    """A molecule or frame that is not in the data set, and why."""

    key: str
    source: str
    reason: str
    frame: int | None = None


@dataclass(frozen=True)
class _Entry:
    source: str
    smiles: str
    asked_split: str
    numbers: NDArray[np.int64]
    bonds: NDArray[np.bool_]
    geometries: tuple[Geometry, ...] | None
    charge: int = 0
    multiplicity: int = 1


def make_plan(recipe: Recipe) -> tuple[list[Molecule], list[Failure]]:
    """Read all sources.

    Returns:
        molecules in the recipe's order, each once, and the entries that cannot be used.

    Raises:
        ConfigError: RDKit or tblite is needed and missing, or one formula is asked into two splits.
    """
    failures: list[Failure] = []
    entries = [*_from_smiles(recipe, failures), *_from_files(recipe, failures)]
    allowed = {SYMBOLS.index(symbol) for symbol in recipe.elements if symbol in SYMBOLS}
    usable = []
    for entry in entries:
        foreign = sorted({int(z) for z in entry.numbers} - allowed)
        if foreign:
            names = ", ".join(SYMBOLS[z] for z in foreign)
            failures.append(
                Failure("", entry.source, f"elements {names} are not allowed; allowed are {', '.join(recipe.elements)}")
            )
        else:
            usable.append(entry)
    asked = _asked_splits(usable)
    molecules: dict[str, Molecule] = {}
    for entry in usable:
        formula = formula_of(entry.numbers)
        molecule = Molecule(
            key=_key(entry, recipe),
            source=entry.source,
            smiles=entry.smiles,
            formula=formula,
            split=asked.get(formula) or split_of(entry.numbers, recipe.split),
            numbers=entry.numbers,
            bonds=entry.bonds,
            geometries=entry.geometries,
            charge=entry.charge,
            multiplicity=entry.multiplicity,
        )
        molecules.setdefault(molecule.key, molecule)
    return list(molecules.values()), failures


def formula_of(numbers: NDArray[np.int64]) -> str:
    """Chemical formula in Hill order."""
    return str(Atoms(numbers=numbers).get_chemical_formula())


def split_of(numbers: NDArray[np.int64], config: SplitConfig) -> str:
    """Split of a formula, by hash."""
    if int((numbers > 1).sum()) <= config.always_train_heavy:
        return "train"
    digest = hashlib.sha256(f"{config.salt}/{formula_of(numbers)}".encode()).digest()
    place = int.from_bytes(digest[:8]) / 2**64
    if place < config.test:
        return "test"
    return "val" if place < config.test + config.val else "train"


def _asked_splits(entries: list[_Entry]) -> dict[str, str]:
    asked: dict[str, str] = {}
    for entry in entries:
        formula = formula_of(entry.numbers)
        if entry.asked_split and asked.setdefault(formula, entry.asked_split) != entry.asked_split:
            raise ConfigError(
                f"{entry.source}: {formula} is asked into {entry.asked_split!r} and into {asked[formula]!r}; splits are "
                "disjoint by formula, so give all its molecules the same one."
            )
    return asked


def _from_smiles(recipe: Recipe, failures: list[Failure]) -> Iterator[_Entry]:
    config = recipe.smiles
    lines = [(f"[smiles] inline {number}", line) for number, line in enumerate(config.inline)]
    for file in config.files:
        lines += lines_of(file)
    if not lines:
        return
    for module in ("rdkit.Chem", "tblite.ase"):
        import_extra(module)  # before any work, not in the first worker
    for source, line in lines:
        words = line.split()
        if len(words) not in (1, 2):
            failures.append(Failure("", source, f"{line[:60]!r} is not 'SMILES' or 'SMILES split'"))
            continue
        try:
            canonical = parse_smiles(words[0]).canonical
        except GeometryError as error:
            failures.append(Failure("", source, str(error)))
            continue
        parsed = parse_smiles(canonical)  # atoms in the order that the workers will find them in
        yield _Entry(source, canonical, "".join(words[1:]), parsed.numbers, parsed.bonds, None, parsed.charge)


def lines_of(file: Path) -> list[tuple[str, str]]:
    """Lines "SMILES" or "SMILES split" of a text or CSV file, each with its place.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error
    if file.suffix.lower() == ".csv":
        rows = list(csv.DictReader(text.splitlines()))
        if rows and "smiles" not in rows[0]:
            raise ConfigError(f"{file} has no column 'smiles'; it has {', '.join(map(str, rows[0]))}.")
        return [
            (f"{file.name} row {number}", f"{row['smiles'] or ''} {row.get('split') or ''}".strip())
            for number, row in enumerate(rows, start=1)
        ]
    return [
        (f"{file.name} line {number}", line.strip())
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")  # within a line, # is a triple bond
    ]


def _from_files(recipe: Recipe, failures: list[Failure]) -> Iterator[_Entry]:
    for given in recipe.structures.files:
        files = sorted(f for f in given.iterdir() if _suffix(f) in FORMAT_OF_SUFFIX) if given.is_dir() else [given]
        if not files:
            suffixes = ", ".join(f".{suffix}" for suffix in FORMAT_OF_SUFFIX)
            failures.append(Failure("", str(given), f"the folder holds no file of {suffixes}"))
        for file in files:
            try:
                text = decode_text(file.read_bytes())
                if text is None:
                    raise UnreadableError("it is not text")
                frames = read_structures(FORMAT_OF_SUFFIX.get(_suffix(file), "extxyz"), text, sys.maxsize)
            except Exception as error:  # readers raise whatever they stumble over
                failures.append(Failure("", file.name, f"the file cannot be read: {error}"))
                continue
            yield from _molecules_of(file.name, frames, failures)


def _suffix(file: Path) -> str:
    return file.suffix.lower().removeprefix(".")


def _molecules_of(name: str, frames: Frames, failures: list[Failure]) -> Iterator[_Entry]:
    """Frames with the same atoms in the same order are one molecule, unless ``smiles``, ``name`` or charge differ."""
    groups: dict[tuple[tuple[int, ...], str, tuple[int, int]], list[tuple[int, Frame]]] = {}
    for index, frame in enumerate(frames):
        if isinstance(frame, UnreadableError):
            failures.append(Failure("", name, str(frame), index))
            continue
        if any(frame.pbc) or not frame.numbers:
            failures.append(Failure("", name, "the frame is periodic or empty; only molecules can be labelled", index))
            continue
        label = str(frame.info.get("smiles", frame.info.get("name", "")))
        state = frame.charge or 0, frame.multiplicity or 1
        groups.setdefault((tuple(frame.numbers), label, state), []).append((index, frame))
    for (_, _, (charge, multiplicity)), members in groups.items():
        first_index, first = members[0]
        numbers = np.array(first.numbers, dtype=np.int64)
        yield _Entry(
            source=f"{name} frame {first_index}",
            smiles=str(first.info.get("smiles", "")),
            asked_split=str(first.info.get("split", "")),
            numbers=numbers,
            bonds=bonds_of(numbers, rounded(np.array(first.positions))),
            geometries=tuple(
                Geometry(rounded(np.array(frame.positions)), float(frame.info.get("T", np.nan)), "given")
                for _, frame in members
            ),
            charge=charge,
            multiplicity=multiplicity,
        )


def _key(entry: _Entry, recipe: Recipe) -> str:
    """Labels made under another level, version or geometry recipe must not be taken for this one's."""
    label = recipe.label
    parts: list[object] = [label.method, label.xc, label.basis, label.grid_level, label.minimum_gap, pyscf.__version__]
    if entry.geometries is None:
        settings = dataclasses.asdict(recipe.smiles)
        parts += [entry.smiles, recipe.seed, {k: v for k, v in settings.items() if k not in ("inline", "files")}]
    digest = hashlib.sha256(json.dumps(parts).encode())
    if (entry.charge, entry.multiplicity) != (0, 1):  # keys of neutral singlets stay those of older shards
        digest.update(json.dumps([entry.charge, entry.multiplicity]).encode())
    for geometry in entry.geometries or ():
        digest.update(entry.numbers.tobytes() + geometry.positions.tobytes())
    return digest.hexdigest()[:20]
