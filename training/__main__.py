"""``python -m training generate | fit | evaluate | release | predict | select | shift | inspect | convert``.

Each command stands alone.

Worker processes import this file again, so what is heavy is imported by the command that needs it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from model.errors import ModelError
from training.data.sources import DatasetError
from training.predict import command as predict_command
from training.selection import command as select_command
from training.shift import command as shift_command
from training.tables import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return COMMANDS[options.command](options) or 0
    except (ConfigError, DatasetError, ModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Make and use checkpoints, offline.")
    commands = parser.add_subparsers(dest="command", required=True)

    generate = commands.add_parser(
        "generate", help="label structures with PySCF, crystals with CP2K or GPAW (resumable)"
    )
    generate.add_argument("recipe", type=Path, help="recipe, a TOML file (training/recipes/)")
    predict_command.add_executor(generate)

    fit = commands.add_parser("fit", help="train, or resume, a run")
    fit.add_argument("run", type=Path)
    fit.add_argument("--check", action="store_true", help="look at the data and build the network, train nothing")
    fit.add_argument("--until-step", type=int, default=None, help="stop early; resume later")
    fit.add_argument("--for-minutes", type=_minutes, default=None, help="stop after this time; resume later")

    evaluate = commands.add_parser("evaluate", help="errors, orbital energies, subspace and SCF cycles of a checkpoint")
    evaluate.add_argument("checkpoint", type=Path)
    evaluate.add_argument("data", type=Path)
    evaluate.add_argument("--splits", nargs="+", default=["test"])
    evaluate.add_argument("--no-scf", action="store_true", help="matrices only, seconds instead of minutes")
    evaluate.add_argument(
        "--no-spectra", action="store_true", help="crystals: H(R) only, no bands, gap, DOS and density"
    )
    evaluate.add_argument("--k-points", type=int, default=60, help="crystals: points of the path of bands")
    evaluate.add_argument(
        "--kinetic-damping",
        type=_share,
        default=None,
        metavar="DELTA",
        help="crystals: spectra of a prediction without ghost bands (docs/decisions/0018), like 0.02; left out, the card's",
    )
    evaluate.add_argument("--plots", type=Path, default=None, help="folder for the pictures, beside a FILE.json too")
    evaluate.add_argument("--frames-per-molecule", type=int, default=None)
    evaluate.add_argument("--max-molecules", type=int, default=None)
    evaluate.add_argument("--processes", type=int, default=2)
    evaluate.add_argument("--device", default="cpu")
    evaluate.add_argument(
        "--guesses",
        nargs="+",
        choices=["minao", "1e", "atom"],
        default=["minao"],
        help="PySCF's guesses to compare with; minao always, 1e and atom take an SCF each per structure",
    )
    evaluate.add_argument("--baselines", type=Path, default=None, help="file that keeps the runs from PySCF's guesses")
    evaluate.add_argument(
        "-o",
        "--output",
        type=Path,
        default=None,
        help="folder for report.json, table.txt and pictures, or FILE.json; again: goes on where it was stopped",
    )

    release = commands.add_parser("release", help="make the checkpoint folder of a run")
    release.add_argument("run", type=Path)
    release.add_argument("folder", type=Path)
    release.add_argument("--version", required=True)
    release.add_argument("--description", required=True)
    release.add_argument("--licence", default="MIT")
    release.add_argument(
        "--weights",
        choices=["best", "last"],
        default="best",
        help="of the best validation, or the average at the end: for a run on data unlike the validation's",
    )
    release.add_argument(
        "--elements",
        nargs="+",
        default=[],
        metavar="SYMBOL",
        help="answer for these alone, where the evaluation shows that the run's others are not good enough",
    )
    release.add_argument(
        "--report",
        type=Path,
        nargs="+",
        default=[],
        help="JSON files from 'evaluate' of these weights; of different splits",
    )

    predict_command.add_arguments(
        commands.add_parser("predict", help="a checkpoint's answers for files of structures, offline (resumable)")
    )

    select_command.add_arguments(
        commands.add_parser(
            "select", help="choose molecules to label next, by the error that a checkpoint expects of itself"
        )
    )

    shift_command.add_arguments(
        commands.add_parser("shift", help="make a checkpoint's guesses serve other functionals (resumable)")
    )

    inspect = commands.add_parser("inspect", help="say what a file or folder of labels is, and check it")
    inspect.add_argument("source", type=Path)
    inspect.add_argument("--read", type=int, default=20, help="structures to read and check, spread over the set")

    convert = commands.add_parser("convert", help="write H(R), S(R) in another program's format")
    convert.add_argument("source", type=Path)
    convert.add_argument("target", type=Path, help="a new folder")
    convert.add_argument("--to", required=True, choices=["deeph", "deeph-legacy", "abacus", "siesta"])
    convert.add_argument(
        "--k-mesh",
        type=int,
        nargs=3,
        default=None,
        metavar="N",
        help="make a density matrix (SIESTA's .DM) on this mesh",
    )
    convert.add_argument("--electrons", type=float, default=None, help="of a cell, where the source states none")
    return parser


def _minutes(text: str) -> float:
    value = float(text)
    if not value > 0:  # nan too
        raise argparse.ArgumentTypeError(f"{text} minutes; give a number above 0, like 9.5")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:  # nan too
        raise argparse.ArgumentTypeError(f"{text} is no share; give a number from 0 to below 1, like 0.02")
    return value


def _generate(options: argparse.Namespace) -> None:
    from training.generate.command import generate_command

    generate_command(options)


def _fit(options: argparse.Namespace) -> None:
    from training.fit.check import check
    from training.fit.config import read_run
    from training.fit.interruption import StoppedError
    from training.fit.run import fit

    if options.check:
        print("\n".join(check(read_run(options.run))))
        return
    try:
        fit(read_run(options.run), until_step=options.until_step, for_minutes=options.for_minutes)
    except StoppedError as signal:
        print(
            f"stopped by {signal} before the first step; the same command begins again with what has been made so far"
        )


def _evaluate(options: argparse.Namespace) -> None:
    from training.evaluate.report import draw_report, evaluate, finished_file, write_report
    from training.evaluate.summary import table

    report = evaluate(
        options.checkpoint,
        options.data,
        options.splits,
        scf=not options.no_scf,
        processes=options.processes,
        frames_per_molecule=options.frames_per_molecule,
        max_molecules=options.max_molecules,
        device=options.device,
        baselines=options.baselines,
        guesses=options.guesses,
        spectra=not options.no_spectra,
        k_points=options.k_points,
        kinetic_damping=options.kinetic_damping,
        finished=None if options.output is None else finished_file(options.output),
    )
    print(table(report))
    if options.plots is not None:
        for path in draw_report(report, options.plots):
            print(path)
    if options.output is not None:
        for path in write_report(report, options.output):
            print(path)


def _release(options: argparse.Namespace) -> None:
    from training.fit.config import read_run
    from training.release import release

    report: dict[str, Any] | None = None
    for path in options.report:
        try:
            found = json.loads(path.read_text())
            splits = found["splits"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: {error!r}; give a JSON that 'evaluate --output' writes.") from error
        if report is None:
            report = found
        elif found.get("weights_sha256") != report.get("weights_sha256"):
            raise ConfigError(f"{path} is about other weights than {options.report[0]}; evaluate one checkpoint.")
        else:
            report["splits"].update(splits)
    card = release(
        read_run(options.run),
        options.folder,
        version=options.version,
        description=options.description,
        licence=options.licence,
        report=report,
        weights=options.weights,
        elements=options.elements,
    )
    print(f"{options.folder}: {card.name} {card.version}, weights {card.weights_sha256[:16]}...")


def _inspect(options: argparse.Namespace) -> int:
    from training.data.inspection import inspect

    found = inspect(options.source, options.read)
    print(found)
    return 0 if found.is_sound else 1


def _convert(options: argparse.Namespace) -> None:
    from training.data.conversion import DensityRequest, convert

    density = None if options.k_mesh is None else DensityRequest(tuple(options.k_mesh), options.electrons)
    for line in convert(options.source, options.target, options.to, density):
        print(line)


COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int | None]]] = {
    "generate": _generate,
    "fit": _fit,
    "evaluate": _evaluate,
    "release": _release,
    "predict": predict_command.run,
    "select": select_command.run,
    "shift": shift_command.run,
    "inspect": _inspect,
    "convert": _convert,
}


if __name__ == "__main__":
    sys.exit(main())
