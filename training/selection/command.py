"""The command line of ``python -m training select``; cheap to import."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be said to it."""
    parser.add_argument("checkpoint", type=Path, help="checkpoint folder with expectation.json")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="file of SMILES to write, for a recipe; again: goes on"
    )
    parser.add_argument("--count", type=int, required=True, help="molecules to choose")
    parser.add_argument(
        "--known",
        type=Path,
        nargs="+",
        default=[],
        metavar="RECIPE",
        help="recipes of what is labelled; what they hold out stays so",
    )
    parser.add_argument(
        "--pool", type=Path, nargs="+", default=[], metavar="FILE", help="candidates: SMILES, a line each, or CSV"
    )
    parser.add_argument(
        "--neighbours",
        type=int,
        default=0,
        metavar="N",
        help="make N candidates of the known training molecules, each changed a little",
    )
    parser.add_argument("--changes", type=int, default=2, help="atoms or bonds changed in a neighbour (%(default)s)")
    parser.add_argument("--max-heavy", type=int, default=9, help="heavy atoms of a candidate, at most (%(default)s)")
    parser.add_argument(
        "--held-out", nargs="+", default=[], metavar="FORMULA", help="more formulas that must not be trained on"
    )
    parser.add_argument(
        "--random-share",
        type=float,
        default=0.5,
        help="of the chosen ones, drawn whatever their expected error (%(default)s)",
    )
    parser.add_argument(
        "--per-formula", type=int, default=3, help="chosen molecules of one formula, at most (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2, help="workers of one thread; 0 works in this process")


def run(options: argparse.Namespace) -> int:
    """Choose, and say of what."""
    from training.generate.recipe import read_recipe
    from training.selection.choose import Rules
    from training.selection.run import Pool, select
    from training.tables import ConfigError

    if min(options.count, options.changes, options.max_heavy, options.per_formula) < 1:
        raise ConfigError("--count, --changes, --max-heavy and --per-formula must be 1 or more.")
    if min(options.neighbours, options.processes, options.seed) < 0 or not 0 <= options.random_share <= 1:
        raise ConfigError("--neighbours, --processes and --seed must be 0 or more, --random-share from 0 to 1.")
    pool = Pool(
        files=tuple(options.pool),
        neighbours=options.neighbours,
        changes=options.changes,
        max_heavy=options.max_heavy,
        held_out=frozenset(options.held_out),
        seed=options.seed,
    )
    rules = Rules(options.count, options.random_share, options.per_formula, options.seed)
    known = [read_recipe(path) for path in options.known]
    found = select(options.checkpoint, known, pool, rules, options.output, processes=options.processes)
    for reason, count in found.left_out.most_common():
        print(f"left out: {count} {reason}")
    unknown = sum(one.error == float("inf") for one in found.chosen)
    print(
        f"{options.output}: {len(found.chosen)} of {found.judged} molecules"
        + (f", {unknown} of them outside the checkpoint's own domain" if unknown else "")
    )
    return 0
