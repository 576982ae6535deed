"""``tracegrad energies``: orbital energies of one structure, frontier levels of many, or everything as JSON lines."""

from __future__ import annotations

import argparse
import json
from typing import Any

from tracegrad_client.client import Client
from tracegrad_client.commands.inputs import Input, add_files, gather
from tracegrad_client.commands.many import add_parallel, done_for_each, summed_up, tell, warn
from tracegrad_client.commands.options import molecule_options
from tracegrad_client.energies import EnergyUnit, OrbitalEnergies
from tracegrad_client.errors import TraceGradError


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """The command ``energies``."""
    parser = commands.add_parser("energies", parents=parents, help="print orbital energies")
    add_files(parser)
    add_parallel(parser)
    parser.add_argument("--unit", choices=("hartree", "eV"), default="hartree")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line for each structure, failed ones too"
    )
    parser.set_defaults(run=run, parser=parser)


def run(client: Client, chosen: argparse.Namespace) -> int:
    """Print the energies."""
    unit: EnergyUnit = "eV" if chosen.unit == "eV" else "hartree"
    options = molecule_options(chosen)
    inputs = gather(chosen.files, chosen.format)
    alone = len(inputs) == 1

    def ask(each: Input) -> OrbitalEnergies:
        sent = {**options, **each.options}
        return client.orbital_energies_of_file(each.file_name, each.content, unit=unit, options=sent)

    if not alone and not chosen.json:
        width = max(len(each.name) for each in inputs)
        print(f"{'# structure':{width}s} {'HOMO':>12s} {'LUMO':>12s} {'gap':>12s}   {unit}")
    done = 0
    for each, outcome in done_for_each(inputs, ask, chosen.parallel):
        if isinstance(outcome, TraceGradError):
            if chosen.json:
                problem = {"code": outcome.code, "detail": outcome.detail, "hint": outcome.hint}
                print(json.dumps({"name": each.name, "error": problem}))
            tell(outcome, None if alone else each)
            continue
        done += 1
        warn(outcome.warnings, None if alone else each)
        if chosen.json:
            print(json.dumps({"name": each.name, **outcome.as_dict()}))
        elif alone:
            _print_all(outcome)
        else:
            levels = " ".join(_told(getattr(outcome, name)) for name in ("homo", "lumo", "gap"))
            print(f"{each.name:{width}s} {levels}")
    return summed_up(done, len(inputs))


def _told(value: float | None) -> str:
    return f"{'none':>12s}" if value is None else f"{value:12.6f}"


def _print_all(result: OrbitalEnergies) -> None:
    print(f"# model {result.model}, energies in {result.unit}")
    print("#  orbital  occupation        energy")
    for index, (energy, occupation) in enumerate(zip(result.energies, result.occupations, strict=True)):
        print(f"{index:10d}  {occupation:10.1f}  {energy:12.6f}")
    for name, value in (("HOMO", result.homo), ("LUMO", result.lumo), ("gap", result.gap)):
        print(f"# {name:4s} {'none' if value is None else f'{value:.6f}'}")
