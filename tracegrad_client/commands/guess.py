"""``tracegrad guess``, ``bands`` and ``dos``: structures in, files as the server writes them out."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any, Final

from tracegrad_client.client import Client
from tracegrad_client.commands.inputs import Input, add_files, gather
from tracegrad_client.commands.many import add_parallel, done_for_each, summed_up, tell, warn
from tracegrad_client.commands.options import molecule_options
from tracegrad_client.commands.output import FORMATS_BY_SUFFIX, GUESS_FORMATS, Target, add_output
from tracegrad_client.errors import TraceGradError
from tracegrad_client.exchange import Answer

LEVELS: Final[Mapping[str, str]] = {"bands": "the bands", "dos": "the density of states"}
LEVEL_FORMATS: Final[Mapping[str, str]] = {
    ".png": "png",
    ".svg": "svg",
    ".json": "json",
    ".npz": "npz",
    ".safetensors": "safetensors",
}


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """The command ``guess``."""
    parser = commands.add_parser("guess", parents=parents, help="write the starting guess of an SCF")
    add_files(parser)
    add_output(parser, GUESS_FORMATS)
    add_parallel(parser)
    parser.add_argument("--xc", help="the functional that will be used: the server warns if the model's is another")
    parser.add_argument("--basis", help="the basis that will be used: the server warns if no model has it")
    parser.add_argument("--orbital", help="of a cube, the orbital to draw: homo, lumo, homo-1, or a number from 0")
    parser.set_defaults(run=run, parser=parser)


def add_levels(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """The commands ``bands`` and ``dos``."""
    for name, what in LEVELS.items():
        parser = commands.add_parser(name, parents=parents, help=f"write {what} of a crystal, or a picture of it")
        add_files(parser)
        add_output(parser, tuple(LEVEL_FORMATS.values()))
        add_parallel(parser)
        parser.add_argument("--kmesh", help="k-points on which levels are filled, 12x12x1 (default: the server's)")
        parser.add_argument(
            "--window", dest="window_ev", type=float, nargs=2, metavar=("FROM", "TO"), help="eV from the Fermi level"
        )
        parser.add_argument("--energy-unit", choices=("hartree", "eV"), help="of numbers; pictures are in eV")
        if name == "bands":
            parser.add_argument("--path", help="names of special points, GMKG (default: the lattice's usual path)")
            parser.add_argument("--npoints", type=int, help="k-points of the path")
        else:
            parser.add_argument("--sigma", dest="sigma_ev", type=float, help="width of a level, eV")
        parser.set_defaults(run=run_levels, parser=parser)


def run(client: Client, chosen: argparse.Namespace) -> int:
    """Write the guesses."""
    options = molecule_options(chosen, "orbital")

    def ask(each: Input, to: str) -> Answer:
        return client.guess_file(each.file_name, each.content, format_out=to, options={**options, **each.options})

    return _written(chosen, FORMATS_BY_SUFFIX, ask)


def run_levels(client: Client, chosen: argparse.Namespace) -> int:
    """Write bands or densities of states."""
    options = molecule_options(chosen, "path", "npoints", "kmesh", "sigma_ev", "energy_unit")
    if chosen.window_ev is not None:
        options["window_ev"] = ",".join(map(str, chosen.window_ev))

    def ask(each: Input, to: str) -> Answer:
        sent = {**options, **each.options}
        return client.levels_of_file(chosen.command, each.file_name, each.content, format_out=to, options=sent)

    return _written(chosen, LEVEL_FORMATS, ask)


def _written(chosen: argparse.Namespace, formats: Mapping[str, str], ask: Callable[[Input, str], Answer]) -> int:
    inputs = gather(chosen.files, chosen.format)
    target = Target(chosen.parser, chosen.output, chosen.to, inputs, formats)
    alone = len(inputs) == 1
    done = 0
    for each, outcome in done_for_each(inputs, lambda each: ask(each, target.format), chosen.parallel):
        if isinstance(outcome, TraceGradError):
            tell(outcome, None if alone else each)
        else:
            warn(outcome.warnings, None if alone else each)
            target.write(each, outcome.body)
            done += 1
    return summed_up(done, len(inputs))
