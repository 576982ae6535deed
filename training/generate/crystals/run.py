"""Making a crystal data set: plan, labels, one file; work that is done is not done again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from model.errors import ModelError
from training.atomic import write_json, write_text
from training.data.sources import DatasetError
from training.generate.crystals.check import turn_error, turned_copy
from training.generate.crystals.label import LabelError
from training.generate.crystals.levels import with_checked_level
from training.generate.crystals.plan import Crystal, make_plan
from training.generate.crystals.programs import make_label, require_program
from training.generate.crystals.recipe import CrystalRecipe
from training.generate.crystals.store import DATA_FILE, FAILURES_FILE, LEVEL_FILE, CrystalFailure, CrystalStore
from training.parts import Part, require_all_done
from training.pool import parallel_map

WHOLE: Final = Part()


@dataclass(frozen=True)
class CrystalSummary:
    """What a call has made.

    Attributes:
        file: the data file.
        structures: in it.
        labelled: by this call.
        failures: structures that have no label.
    """

    file: Path
    structures: int
    labelled: int
    failures: tuple[CrystalFailure, ...]


def generate_crystals(recipe: CrystalRecipe, part: Part = WHOLE) -> CrystalSummary:
    """Make, or finish, a data set of crystals, or one part of its labels.

    Args:
        recipe: of the data set.
        part: of its structures; unless it is all of them, the data file is left to :func:`merge_crystals`.

    Raises:
        ConfigError: the program is not installed; says how to install it.
        DatasetError: nothing could be labelled.
        SystemExit: SIGTERM came; what is done is kept.
    """
    require_program(recipe.label)
    store = CrystalStore(recipe.output / "shards")
    crystals = make_plan(recipe)
    own = list(part.of(crystals))
    pending = [crystal for crystal in own if not store.is_done(crystal.key)]
    work = partial(label_one, recipe=recipe, folder=store.folder)
    previous = signal.signal(signal.SIGTERM, _stop) if threading.current_thread() is threading.main_thread() else None
    try:
        done = parallel_map(work, pending, total=len(pending), processes=recipe.processes, title="label", chunk=1)
        for count, _ in enumerate(done, start=1):
            if part.is_whole and count % recipe.merge_every == 0:
                _write(recipe, store, crystals)
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
        structures = _write(recipe, store, crystals) if part.is_whole else len(own)
    labelled = sum(store.shard(crystal.key).is_file() for crystal in pending)
    if part.is_whole:
        return _finished(recipe, store, crystals, structures, labelled)
    return CrystalSummary(recipe.output / DATA_FILE, structures, labelled, tuple(store.failures(own)))


def merge_crystals(recipe: CrystalRecipe) -> CrystalSummary:
    """The data set of labels that all parts have made.

    Raises:
        ConfigError: structures that no part has done yet.
        DatasetError: nothing could be labelled.
    """
    store = CrystalStore(recipe.output / "shards")
    crystals = make_plan(recipe)
    require_all_done(sum(not store.is_done(crystal.key) for crystal in crystals), len(crystals), "structures")
    return _finished(recipe, store, crystals, _write(recipe, store, crystals), 0)


def _write(recipe: CrystalRecipe, store: CrystalStore, crystals: Sequence[Crystal]) -> int:
    """Data file and list of failures of what there is; number of structures."""
    lines = [json.dumps(dataclasses.asdict(failure)) + "\n" for failure in store.failures(crystals)]
    write_text(recipe.output / FAILURES_FILE, "".join(lines))
    attributes = {"recipe": recipe.name, "settings": recipe.label.model_dump_json()}
    return store.merge(recipe.output / DATA_FILE, crystals, attributes)


def _finished(
    recipe: CrystalRecipe, store: CrystalStore, crystals: Sequence[Crystal], structures: int, labelled: int
) -> CrystalSummary:
    if not structures:
        raise DatasetError(f"No structure could be labelled; {recipe.output / FAILURES_FILE} says why.")
    write_json(recipe.output / LEVEL_FILE, {**recipe.label.stated_level, **store.program_of(crystals)})
    return CrystalSummary(recipe.output / DATA_FILE, structures, labelled, tuple(store.failures(crystals)))


def _stop(number: int, frame: object) -> None:
    """SIGTERM unwinds the call, so that the program it waits for is ended, its folder removed and the data file written."""
    raise SystemExit(128 + number)


def label_one(crystal: Crystal, recipe: CrystalRecipe, folder: Path) -> None:
    """Label one structure; leaves a shard, or the reason why there is none."""
    store = CrystalStore(folder)
    began = time.monotonic()
    extra: dict[str, Any] = {"set": crystal.set_name}
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{crystal.key}.") as name:
            work = Path(name)
            label = make_label(crystal.structure, recipe.label, crystal.k_points, _new(work / "label"))
            matrices = with_checked_level(label.matrices, recipe.label.smearing_hartree)
            label = dataclasses.replace(label, matrices=matrices)
            extra["seconds"] = time.monotonic() - began
            if is_checked(crystal.key, recipe.check_every):
                turned = turned_copy(crystal.structure)
                error = turn_error(label, make_label(turned, recipe.label, crystal.k_points, _new(work / "copy")))
                if error.mean > recipe.check_tolerance_mev:
                    raise LabelError(
                        f"The label of the turned structure differs by {error.mean:.3g} meV on average and "
                        f"{error.largest:.3g} at most; check_tolerance_mev allows {recipe.check_tolerance_mev:g}."
                    )
                extra |= {"turned_mean_meV": error.mean, "turned_largest_meV": error.largest}
    except (LabelError, ModelError) as error:
        store.fail(crystal, str(error))
    else:
        store.write(crystal, label, extra)


def is_checked(key: str, every: int) -> bool:
    """Whether a structure is among the one in ``every`` that is labelled twice; the same ones in every run."""
    return bool(every) and int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) % every == 0


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder
