"""``python -m training generate recipe.toml``: label structures with PySCF and write a data file.

    recipe -> plan (molecules, splits) -> worker per molecule: geometries -> labels -> shard -> focks.h5, molecules.csv

Stop it at any moment, in any way: finished molecules are shards, and the next call makes the rest. A molecule or frame
that fails is left out and noted in ``failures.jsonl`` with its reason; the others are not touched by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
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
from training.generate.geometry import Geometry, GeometryError, bonds_changed, geometries_of
from training.generate.label.molecule import LabelError, check_label, make_label
from training.generate.plan import Failure, Molecule, make_plan
from training.generate.recipe import LabelConfig, Recipe, read_recipe
from training.generate.shards import DATA_FILE, FAILURES_FILE, LabelledFrame, ShardStore, write_failures
from training.pool import parallel_map
from training.tables import ConfigError

__all__ = ["Summary", "generate", "read_recipe"]

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


def generate(recipe: Recipe) -> Summary:
    """Make, or finish, a data set.

    Raises:
        ConfigError: unknown functional, missing optional package, contradictory splits.
        UnsupportedBasisError, UnsupportedElementError: the basis or its data are not in PySCF's library.
        DatasetError: nothing could be labelled.
    """
    _check_level(recipe)
    recipe.output.mkdir(parents=True, exist_ok=True)
    store = ShardStore(recipe.output / "shards")
    molecules, unusable = make_plan(recipe)
    pending = [molecule for molecule in molecules if not store.is_done(molecule.key)]
    try:
        _label_all(pending, recipe, store)
    finally:
        failures = [*unusable, *store.failures(molecules)]
        write_failures(recipe.output / FAILURES_FILE, failures)
    frames = store.merge(recipe.output, molecules, recipe.pool, _attributes(recipe, store.labelled(molecules)))
    return Summary(
        file=recipe.output / DATA_FILE,
        molecules=sum(store.shard(molecule.key).is_file() for molecule in molecules),
        frames=frames,
        labelled=sum(store.shard(molecule.key).is_file() for molecule in pending),
        failures=tuple(failures),
    )


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


def _label_all(pending: Sequence[Molecule], recipe: Recipe, store: ShardStore) -> None:
    """Run the workers until every molecule is done.

    A worker that dies (memory, a fault in compiled code) takes the whole pool with it and does not say which molecule it
    had. The ones that were begun are then run alone, and one that kills its worker again is given up.
    """
    store.forget_starts()
    rest = list(pending)
    while rest:
        try:
            for _ in _run(rest, recipe, store, recipe.processes):
                pass
        except BrokenProcessPool:
            for suspect in [molecule for molecule in rest if store.started(molecule.key)]:
                try:
                    for _ in _run([suspect], recipe, store, 1):
                        pass
                except BrokenProcessPool:
                    reason = "the worker process died twice (out of memory?)"
                    store.fail([Failure(suspect.key, suspect.source, reason)], suspect.key)
        undone = [molecule for molecule in rest if not store.is_done(molecule.key)]
        if len(undone) == len(rest):
            raise ConfigError("No worker process stays alive; try processes = 0 to see why.")
        rest = undone


def _run(molecules: Sequence[Molecule], recipe: Recipe, store: ShardStore, processes: int) -> Iterator[None]:
    work = partial(label_molecule, recipe=recipe, folder=store.folder)
    return parallel_map(work, molecules, total=len(molecules), processes=processes, title="label", chunk=1)


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
