# PYTHON_ARGCOMPLETE_OK
"""The command ``tracegrad``: structure files in, starting guesses, energies, comparisons, jobs out.

    tracegrad guess mol.xyz -o guess.chk        the format of the answer follows the suffix of -o
    tracegrad guess xyz/ trajectory.extxyz -o guesses/ --to npz
    tracegrad guess - --format xyz -o - --to npz < mol.xyz > guess.npz
    tracegrad energies mol.xyz --unit eV
    tracegrad check run.chk                     or: tracegrad check mol.xyz fock.npz
    tracegrad bands POSCAR -o bands.png         numbers with .json, .npz, .safetensors; pictures with .png, .svg
    tracegrad dos POSCAR -o dos.png
    tracegrad jobs submit large.xyz --to chk    and: jobs list, wait, results, cancel
    tracegrad models

Exit status: 0 done, 1 refused or failed (the reason is on standard error; of many structures, at least one), 2 wrong usage.
The server and the key may also come from the environment variables TRACEGRAD_URL and TRACEGRAD_API_KEY.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Final

from tracegrad_client.client import DEFAULT_TIMEOUT_S, DEFAULT_URL, Client
from tracegrad_client.commands import check, energies, guess, jobs, models
from tracegrad_client.commands.inputs import STANDARD_STREAM
from tracegrad_client.commands.many import tell
from tracegrad_client.commands.options import molecule_parent
from tracegrad_client.endpoint import DEFAULT_MAX_WAIT_S
from tracegrad_client.errors import TraceGradError
from tracegrad_client.terminal import Printable
from tracegrad_client.version import installed_version

STANDARD_OUTPUT: Final = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; ``arguments`` defaults to those of the process. Returns the exit status."""
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks how a word may go on
        import argcomplete

        argcomplete.autocomplete(parser)
    if not (sys.argv[1:] if arguments is None else arguments):
        parser.print_help(sys.stderr)
        parser.exit(2)
    with redirect_stdout(Printable(sys.stdout)), redirect_stderr(Printable(sys.stderr)):
        return _main(parser, arguments)


def _main(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    chosen = parser.parse_args(arguments)
    if STANDARD_STREAM in getattr(chosen, "files", ()) and chosen.format is None:
        chosen.parser.error("standard input has no suffix that says which format it is; give --format.")
    try:
        key = os.environ.get("TRACEGRAD_API_KEY") or None
        with Client(chosen.url, timeout=chosen.timeout, api_key=key, max_wait=chosen.max_wait) as client:
            client.model = getattr(chosen, "model", None)
            client.on_wait = _say_wait
            status: int = chosen.run(client, chosen)
            return status
    except ValueError as error:  # a URL, time limit or key that is none
        chosen.parser.error(str(error))
    except TraceGradError as error:
        tell(error)
    except BrokenPipeError:  # whoever read standard output has enough
        # the interpreter's last flush shall not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), STANDARD_OUTPUT)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        print(f"tracegrad: {name}{error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("tracegrad: stopped", file=sys.stderr)
    return 1


def _say_wait(seconds: float, error: TraceGradError) -> None:
    print(f"tracegrad: {error.detail} Waiting {seconds:.0f} s ...", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="tracegrad", description="Ask a TraceGrad server about molecules and crystals."
    )
    parser.add_argument("--version", action="version", version=f"tracegrad-client {installed_version()}")
    server = argparse.ArgumentParser(add_help=False)
    server.add_argument(
        "--url",
        default=os.environ.get("TRACEGRAD_URL") or DEFAULT_URL,
        help="the server (default: $TRACEGRAD_URL, else %(default)s)",
    )
    server.add_argument(
        "--timeout", type=float, default=DEFAULT_TIMEOUT_S, help="seconds for a whole request (default: %(default)g)"
    )
    server.add_argument(
        "--max-wait",
        type=float,
        default=DEFAULT_MAX_WAIT_S,
        help="seconds that a request may wait for a busy server or a spent quota (default: %(default)g)",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    molecule = [server, molecule_parent()]
    guess.add(commands, molecule)
    energies.add(commands, molecule)
    check.add(commands, molecule)
    guess.add_levels(commands, molecule)
    jobs.add(commands, server)
    models.add(commands, [server])
    return parser


if __name__ == "__main__":
    sys.exit(main())
