"""The command ``tracegrad``: a structure file in, a starting guess or orbital energies out.

    tracegrad guess mol.xyz -o guess.chk        the format of the answer follows the suffix of -o
    tracegrad guess - --format xyz -o - --to npz < mol.xyz > guess.npz
    tracegrad energies mol.xyz --unit eV
    tracegrad bands POSCAR -o bands.png         numbers with .json, .npz, .safetensors; pictures with .png, .svg
    tracegrad dos POSCAR -o dos.png
    tracegrad models

Exit status: 0 done, 1 refused or failed (the reason is on standard error), 2 wrong usage. The server and the key may
also come from the environment variables TRACEGRAD_URL and TRACEGRAD_API_KEY.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Final

from tracegrad_client.client import DEFAULT_TIMEOUT_S, DEFAULT_URL, Client
from tracegrad_client.errors import TraceGradError
from tracegrad_client.files import write_atomically
from tracegrad_client.terminal import Printable
from tracegrad_client.version import installed_version

STANDARD_STREAM: Final = "-"
FORMATS_BY_SUFFIX: Final[Mapping[str, str]] = {
    ".chk": "chk",
    ".npz": "npz",
    ".molden": "molden",
    ".json": "json",
    ".safetensors": "safetensors",
    ".qcschema": "qcschema",
    ".cube": "cube",
}

LEVELS: Final[Mapping[str, str]] = {"bands": "the bands", "dos": "the density of states"}
LEVEL_FORMATS: Final[Mapping[str, str]] = {
    ".png": "png",
    ".svg": "svg",
    ".json": "json",
    ".npz": "npz",
    ".safetensors": "safetensors",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; ``arguments`` defaults to those of the process. Returns the exit status."""
    with redirect_stdout(Printable(sys.stdout)), redirect_stderr(Printable(sys.stderr)):
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        with Client(chosen.url, timeout=chosen.timeout, api_key=os.environ.get("TRACEGRAD_API_KEY") or None) as client:
            if chosen.command == "models":
                return _models(client)
            client.model = chosen.model
            file: Path = chosen.file
            options = _options(chosen)
            if chosen.command == "energies" and str(file) == STANDARD_STREAM and chosen.format is None:
                parser.error("standard input has no suffix that says which format it is; give --format.")
            if chosen.command in LEVELS:
                form = _answer_format(parser, chosen, LEVEL_FORMATS)
                return _levels(client, chosen.command, file, {**options, **_level_options(chosen)}, chosen.output, form)
            if chosen.command == "energies":
                return _energies(client, file, options, chosen.unit)
            return _guess(client, file, options, chosen.output, _answer_format(parser, chosen, FORMATS_BY_SUFFIX))
    except ValueError as error:  # a URL, time limit or key that is none
        parser.error(str(error))
    except TraceGradError as error:
        print(f"tracegrad: {error.code}: {error.detail}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        if error.request_id:
            print(f"request: {error.request_id}", file=sys.stderr)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        print(f"tracegrad: {name}{error.strerror or error}", file=sys.stderr)
    return 1


def _guess(client: Client, file: Path, options: Mapping[str, str], output: Path, format_out: str) -> int:
    answer = client.guess_file(*_structure(file), format_out=format_out, options=options)
    for text in answer.warnings:
        print(f"warning: {text}", file=sys.stderr)
    return _written(answer.body, output, format_out)


def _written(content: bytes, output: Path, format_out: str) -> int:
    """Put an answer where it was wanted, and say so; standard output has the content alone."""
    if str(output) == STANDARD_STREAM:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return 0
    write_atomically(output, content)
    print(f"{output}: {format_out}, {len(content)} bytes", file=sys.stderr if not output.is_file() else sys.stdout)
    return 0


def _structure(file: Path) -> tuple[str, bytes]:
    """Name and content of the structure file; of standard input the format decides."""
    if str(file) == STANDARD_STREAM:
        return "structure", sys.stdin.buffer.read()
    return file.name, file.read_bytes()


def _levels(client: Client, what: str, file: Path, options: Mapping[str, str], output: Path, format_out: str) -> int:
    answer = client.levels_of_file(what, *_structure(file), format_out=format_out, options=options)
    for text in answer.warnings:
        print(f"warning: {text}", file=sys.stderr)
    return _written(answer.body, output, format_out)


def _level_options(chosen: argparse.Namespace) -> dict[str, str]:
    """The options that only bands and densities of states have, as form fields."""
    given = {name: getattr(chosen, name, None) for name in ("path", "npoints", "kmesh", "sigma_ev", "energy_unit")}
    window = None if chosen.window_ev is None else ",".join(map(str, chosen.window_ev))
    return {name: str(value) for name, value in {**given, "window_ev": window}.items() if value is not None}


def _energies(client: Client, file: Path, options: Mapping[str, str], unit: str) -> int:
    result = client.orbital_energies_of_file(
        *_structure(file), unit="eV" if unit == "eV" else "hartree", options=options
    )
    for text in result.warnings:
        print(f"warning: {text}", file=sys.stderr)
    print(f"# model {result.model}, energies in {result.unit}")
    print("#  orbital  occupation        energy")
    for index, (energy, occupation) in enumerate(zip(result.energies, result.occupations, strict=True)):
        print(f"{index:10d}  {occupation:10.1f}  {energy:12.6f}")
    for name, value in (("HOMO", result.homo), ("LUMO", result.lumo), ("gap", result.gap)):
        print(f"# {name:4s} {'none' if value is None else f'{value:.6f}'}")
    return 0


def _models(client: Client) -> int:
    for card in client.models():
        elements = card.get("elements")
        made_of = " ".join(map(str, elements)) if isinstance(elements, list) else "?"
        mark = "  (default)" if card.get("default") else ""
        basis = card.get("basis")
        basis = basis.get("name", "?") if isinstance(basis, dict) else basis
        print(f"{card.get('name', '?')} {card.get('version', '?')}  {card.get('xc', '?')}/{basis}  Z = {made_of}{mark}")
    return 0


def _options(chosen: argparse.Namespace) -> dict[str, str]:
    names = ("format", "charge", "multiplicity", "xc", "basis")
    return {name: str(value) for name in names if (value := getattr(chosen, name, None)) is not None}


def _answer_format(parser: argparse.ArgumentParser, chosen: argparse.Namespace, formats: Mapping[str, str]) -> str:
    output: Path = chosen.output
    if str(chosen.file) == STANDARD_STREAM and chosen.format is None:
        parser.error("standard input has no suffix that says which format it is; give --format.")
    if output.is_file() and chosen.file.exists() and output.samefile(chosen.file):
        parser.error(f"-o {output} is the structure file itself; name another file.")
    if chosen.to is not None:
        return str(chosen.to)
    known = formats.get(output.suffix.lower())
    if known is None:
        suffixes = ", ".join(formats)
        parser.error(f"-o {output} does not say which format is wanted; use one of {suffixes}, or give --to.")
    return known


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tracegrad", description="Ask a TraceGrad server about a molecule.")
    parser.add_argument("--version", action="version", version=f"tracegrad-client {installed_version()}")
    server = argparse.ArgumentParser(add_help=False)
    server.add_argument(
        "--url",
        default=os.environ.get("TRACEGRAD_URL", DEFAULT_URL),
        help="the server (default: $TRACEGRAD_URL, else %(default)s)",
    )
    server.add_argument(
        "--timeout", type=float, default=DEFAULT_TIMEOUT_S, help="seconds for the whole request (default: %(default)g)"
    )
    molecule = argparse.ArgumentParser(add_help=False)
    molecule.add_argument(
        "file",
        type=Path,
        help="structure file: xyz, extxyz, sdf, mol, pdb, gjf ...; - reads standard input (with --format)",
    )
    molecule.add_argument("--format", help="ASE's name of the file's format, where the suffix does not tell")
    molecule.add_argument("--model", help="name of a checkpoint (default: the server's)")
    molecule.add_argument("--charge", type=int, help="total charge (default: 0)")
    molecule.add_argument("--multiplicity", type=int, help="2S + 1 (default: 1)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    guess = commands.add_parser("guess", parents=[server, molecule], help="write the starting guess of an SCF")
    guess.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="the file to write; an older one is replaced; - writes to standard output (with --to)",
    )
    guess.add_argument("--to", choices=sorted(set(FORMATS_BY_SUFFIX.values())), help="format of the output")
    guess.add_argument("--xc", help="the functional that will be used: the server warns if the model's is another")
    guess.add_argument("--basis", help="the basis that will be used: the server warns if no model has it")
    energies = commands.add_parser("energies", parents=[server, molecule], help="print orbital energies")
    energies.add_argument("--unit", choices=("hartree", "eV"), default="hartree")
    _add_levels(commands, [server, molecule])
    commands.add_parser("models", parents=[server], help="list the server's models")
    return parser


def _add_levels(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """The commands ``bands`` and ``dos``."""
    for name, what in LEVELS.items():
        parser = commands.add_parser(name, parents=parents, help=f"write {what} of a crystal, or a picture of it")
        parser.add_argument(
            "-o", "--output", type=Path, required=True, help="the file to write; an older one is replaced"
        )
        parser.add_argument("--to", choices=sorted(set(LEVEL_FORMATS.values())), help="format of the output")
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


if __name__ == "__main__":
    sys.exit(main())
