"""``python -m training generate recipe.toml``: label structures with PySCF and write a data file.

    recipe -> plan (molecules, splits) -> worker per molecule: geometries -> labels -> shard -> focks.h5, molecules.csv

Stop it at any moment, in any way: finished molecules are shards, and the next call makes the rest. A molecule or frame
that fails is left out and noted in ``failures.jsonl`` with its reason; the others are not touched by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyscf
from pyscf.dft import libxc

from model.errors import ModelError
from model.integrals.pyscf_molecule import load_basis
from model.structure import SYMBOLS, Structure
from training.executors import Executor, Finishing, ProcessPool
from training.generate.geometry import Geometry, GeometryError, bonds_changed, geometries_of
from training.generate.label.molecule import LabelError, check_label, make_label
from training.generate.plan import Failure, Molecule, make_plan
from training.generate.recipe import LabelConfig, Recipe, read_recipe
from training.generate.shards import DATA_FILE, FAILURES_FILE, LabelledFrame, ShardStore, write_failures
from training.parts import Part, require_all_done
from training.tables import ConfigError

__all__ = ["Summary", "generate", "generate_part", "merge_parts", "read_recipe"]

XC_REMARKS = {"b3lyp": "(PySCF >= 2.3: VWN-RPA form, libxc 402)", "b3lyp5": "(VWN5 form)"}


@dataclass(frozen=True)
class Summary:
    """What a call has made.

    Attributes:
        file: the data file.
        molecules, frames: in it.
        labelled: molecules labelled by this call; the others had been before.
        failures: molecules and frames left out.
    """

    file: Path
    molecules: int
    frames: int
    labelled: int
    failures: tuple[Failure, ...]


def generate(recipe: Recipe, executor: Executor | None = None) -> Summary:
    """Make, or finish, a data set.

    Args:
        recipe: of the data set.
        executor: where labels are made; by default the recipe's number of worker processes.

    Raises:
        ConfigError: unknown functional, missing optional package, contradictory splits.
        UnsupportedBasisError, UnsupportedElementError: the basis or its data are not in PySCF's library.
        DatasetError: nothing could be labelled.
    """
    store, molecules, unusable = _planned(recipe)
    pending = [molecule for molecule in molecules if not store.is_done(molecule.key)]
    try:
        _label_all(pending, recipe, store, executor)
    finally:
        _write_failures(recipe, store, molecules, unusable)
    return _merged(recipe, store, molecules, unusable, pending)


def generate_part(recipe: Recipe, part: Part, executor: Executor | None = None) -> int:
    """Label one part of a recipe's molecules; :func:`merge_parts` makes the data set when all are there.

    Returns:
        molecules of this part that have a label.

    Raises:
        ConfigError, UnsupportedBasisError, UnsupportedElementError: as of :func:`generate`.
    """
    store, molecules, _ = _planned(recipe)
    own = list(part.of(molecules))
    _label_all([molecule for molecule in own if not store.is_done(molecule.key)], recipe, store, executor)
    return len(store.labelled(own))


def merge_parts(recipe: Recipe) -> Summary:
    """The data set of labels that all parts have made.

    Raises:
        ConfigError: as of :func:`generate`, and molecules that no part has done yet.
        DatasetError: nothing could be labelled.
    """
    store, molecules, unusable = _planned(recipe)
    require_all_done(sum(not store.is_done(molecule.key) for molecule in molecules), len(molecules), "molecules")
    _write_failures(recipe, store, molecules, unusable)
    return _merged(recipe, store, molecules, unusable, [])


def _planned(recipe: Recipe) -> tuple[ShardStore, list[Molecule], list[Failure]]:
    _check_level(recipe)
    recipe.output.mkdir(parents=True, exist_ok=True)
    return ShardStore(recipe.output / "shards"), *make_plan(recipe)


def _write_failures(
    recipe: Recipe, store: ShardStore, molecules: Sequence[Molecule], unusable: Sequence[Failure]
) -> None:
    write_failures(recipe.output / FAILURES_FILE, [*unusable, *store.failures(molecules)])


def _merged(
    recipe: Recipe,
    store: ShardStore,
    molecules: Sequence[Molecule],
    unusable: Sequence[Failure],
    pending: Sequence[Molecule],
) -> Summary:
    frames = store.merge(recipe.output, molecules, recipe.pool, _attributes(recipe, store.labelled(molecules)))
    return Summary(
        file=recipe.output / DATA_FILE,
        molecules=len(store.labelled(molecules)),
        frames=frames,
        labelled=len(store.labelled(pending)),
        failures=(*unusable, *store.failures(molecules)),
    )


def _label_all(pending: Sequence[Molecule], recipe: Recipe, store: ShardStore, executor: Executor | None) -> None:
    """Run the workers until every molecule is done."""
    store.forget_starts(pending)
    work = partial(label_molecule, recipe=recipe, folder=store.folder)
    Finishing(executor or ProcessPool(recipe.processes), _Ledger(store), "label").all_of(work, pending)


def _check_level(recipe: Recipe) -> None:
    unknown = [symbol for symbol in recipe.elements if symbol not in SYMBOLS[1:]]
    if unknown:
        raise ConfigError(f"[generate] elements: {', '.join(unknown)} are no element symbols; give them like H, C, N.")
    load_basis(recipe.label.basis, [SYMBOLS.index(symbol) for symbol in recipe.elements])
    try:
        libxc.parse_xc(recipe.label.xc)
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"[label] xc: PySCF does not know {recipe.label.xc!r} ({error}); give a libxc string such as b3lyp."
        ) from error


@dataclass(frozen=True)
class _Ledger:
    """What has become of molecules, for ``training.executors``."""

    store: ShardStore

    def is_done(self, molecule: Molecule) -> bool:
        return self.store.is_done(molecule.key)

    def is_suspect(self, molecule: Molecule) -> bool:
        return self.store.started(molecule.key)

    def give_up(self, molecule: Molecule) -> None:
        reason = "the worker process died twice (out of memory?)"
        self.store.fail([Failure(molecule.key, molecule.source, reason)], molecule.key)


def label_molecule(molecule: Molecule, recipe: Recipe, folder: Path) -> None:
    """Make and label a molecule's geometries; leaves a shard, or the reason why there is none."""
    store = ShardStore(folder)
    store.start(molecule.key)
    frames: list[LabelledFrame] = []
    dropped: list[Failure] = []
    note = partial(Failure, molecule.key, molecule.source)
    try:
        for index, geometry in enumerate(_geometries(molecule, recipe)):
            try:
                frames.append(_label_frame(molecule, geometry, recipe.label))
            except (LabelError, GeometryError, ModelError) as error:
                dropped.append(note(str(error), index))
                continue
            if is_checked(molecule.key, index, recipe.label.check_every):
                # a label that stock PySCF does not confirm discredits the molecule's other labels too
                check_label(_structure(molecule, geometry), frames[-1].label, recipe.label)
    except (LabelError, GeometryError) as error:
        store.fail([*dropped, note(str(error))], molecule.key)
    except Exception as error:  # one bad molecule must never cost the others
        store.fail([*dropped, note(f"{type(error).__name__}: {error}")], molecule.key)
    else:
        if frames:
            store.write(molecule, frames, dropped)
        else:
            store.fail(dropped or [note("there is no geometry")], molecule.key)


def is_checked(key: str, index: int, every: int) -> bool:
    """Whether a frame is among the one in ``every`` that is recomputed; the same ones in every run."""
    if every == 0:
        return False
    return int.from_bytes(hashlib.sha256(f"{key}/{index}".encode()).digest()[:8]) % every == 0


def _geometries(molecule: Molecule, recipe: Recipe) -> Iterator[Geometry]:
    if molecule.geometries is not None:
        yield from molecule.geometries
    else:
        yield from geometries_of(molecule.smiles, recipe.smiles, recipe.seed)


def _structure(molecule: Molecule, geometry: Geometry) -> Structure:
    return Structure(molecule.numbers, geometry.positions, molecule.charge, molecule.multiplicity)


def _label_frame(molecule: Molecule, geometry: Geometry, config: LabelConfig) -> LabelledFrame:
    structure = _structure(molecule, geometry)
    if bonds_changed(molecule.numbers, geometry.positions, molecule.bonds):
        raise GeometryError("the bonds have changed")
    return LabelledFrame(geometry, make_label(structure, config))


def _attributes(recipe: Recipe, molecules: Sequence[Molecule]) -> dict[str, Any]:
    """Attributes of the data file; charge and multiplicity only where all molecules have the same (groups have their own)."""
    label = recipe.label
    functional = label.xc.replace(" ", "")
    counted = "the wanted grid" if label.method == "exact" else "integration grid 1"
    attributes: dict[str, Any] = {
        "ao_order": "PySCF spherical (mol.ao_labels())",
        "basis": label.basis,
        "cycles_minao": f"SCF cycles from minao at PySCF's default thresholds, counted on {counted}",
        "energy_unit": "hartree",
        "fock": "float32, lower triangle by rows (numpy.tril_indices)",
        "grid_level": label.grid_level,
        "length_unit": "angstrom",
        "method": label.method,
        "pyscf": pyscf.__version__,
        "xc": f"{functional} {XC_REMARKS.get(functional.lower(), '')}".strip(),
    }
    for name in ("charge", "multiplicity"):
        if len(found := {getattr(molecule, name) for molecule in molecules}) == 1:
            attributes[name] = found.pop()
    if recipe.smiles.inline or recipe.smiles.files:
        attributes["geometries"] = ", ".join(f"{name} {version(name)}" for name in ("rdkit", "tblite", "ase"))
    return attributes
