"""What ``python -m training generate`` does with its command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from training.executors import Executor, opened
from training.generate.crystals.recipe import is_crystal_recipe
from training.parts import Part
from training.tables import ConfigError


def generate_command(options: argparse.Namespace) -> None:
    """Label, or label a part, or merge; prints what there is."""
    part = Part.read(options.part)
    if is_crystal_recipe(options.recipe):
        if options.executor != "processes":
            raise ConfigError(
                "--executor parsl is for molecules; programs of crystals run on many processes of their own: use --part "
                "with your batch system."
            )
        _crystals(options.recipe, part, merge=options.merge)
        return
    from training.generate.run import read_recipe

    processes = read_recipe(options.recipe).processes
    with opened(options.executor, processes, options.parsl_config) as executor:
        _molecules(options.recipe, part, executor, merge=options.merge)


def _molecules(path: Path, part: Part, executor: Executor, *, merge: bool) -> None:
    from training.generate.run import generate, generate_part, merge_parts, read_recipe
    from training.generate.shards import FAILURES_FILE

    recipe = read_recipe(path)
    if not part.is_whole and not merge:
        print(
            f"part {part}: {generate_part(recipe, part, executor)} molecules are labelled; --merge makes the data set"
        )
        return
    made = merge_parts(recipe) if merge else generate(recipe, executor)
    print(f"{made.file}: {made.frames} frames of {made.molecules} molecules, {made.labelled} labelled in this call")
    if made.failures:
        print(f"{len(made.failures)} molecules or frames were left out; {FAILURES_FILE} beside it says why")


def _crystals(path: Path, part: Part, *, merge: bool) -> None:
    from training.generate.crystals.recipe import read_crystal_recipe
    from training.generate.crystals.run import generate_crystals, merge_crystals
    from training.generate.crystals.store import FAILURES_FILE

    recipe = read_crystal_recipe(path)
    made = merge_crystals(recipe) if merge else generate_crystals(recipe, part)
    if not part.is_whole and not merge:
        print(
            f"part {part}: {made.labelled} of {made.structures} structures labelled in this call; --merge makes the data set"
        )
        return
    print(f"{made.file}: {made.structures} structures, {made.labelled} labelled in this call")
    if made.failures:
        print(f"{len(made.failures)} structures were left out; {FAILURES_FILE} beside it says why")
