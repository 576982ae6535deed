"""``tracegrad jobs``: structures too large to wait for; submit, list, wait, results, cancel."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any, Final

from tracegrad_client.client import Client
from tracegrad_client.commands.inputs import Input, add_files, gather
from tracegrad_client.commands.ledger import Entry, Ledger
from tracegrad_client.commands.many import add_parallel, done_for_each, summed_up, tell
from tracegrad_client.commands.options import molecule_options, molecule_parent
from tracegrad_client.commands.output import FORMATS_BY_SUFFIX, GUESS_FORMATS, Target
from tracegrad_client.errors import NotFoundError, TraceGradError
from tracegrad_client.job import JobState

_NAMED: Final = "id of a job, its beginning, or the structure's name (-- before an id that begins with a dash)"


def add(commands: Any, server: argparse.ArgumentParser) -> None:
    """The command ``jobs`` and what it consists of."""
    parser = commands.add_parser("jobs", help="submit large structures, list and wait for them, fetch results, cancel")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    submit = actions.add_parser(
        "submit", parents=[server, molecule_parent()], help="hand in structures; prints their ids"
    )
    add_files(submit)
    add_parallel(submit)
    submit.add_argument(
        "--to", choices=GUESS_FORMATS, default="npz", help="format of the result (default: %(default)s)"
    )
    submit.add_argument("--xc", help="the functional that will be used")
    submit.add_argument("--basis", help="the basis that will be used")
    submit.set_defaults(run=run_submit, parser=submit)
    listed = actions.add_parser("list", parents=[server], help="jobs submitted from here, and how far they are")
    listed.set_defaults(run=run_list, parser=listed)
    wait = actions.add_parser("wait", parents=[server], help="until jobs are finished (all, where no id is given)")
    wait.add_argument("--for", dest="seconds", type=float, default=math.inf, metavar="SECONDS", help="at most so long")
    wait.set_defaults(run=run_wait, parser=wait)
    results = actions.add_parser("results", parents=[server], help="write what finished jobs gave")
    results.add_argument(
        "-o", "--output", required=True, help="file for one job, folder for several, - for standard output"
    )
    results.set_defaults(run=run_results, parser=results)
    cancel = actions.add_parser("cancel", parents=[server], help="stop jobs and delete their data on the server")
    cancel.set_defaults(run=run_cancel, parser=cancel)
    for action in (wait, results):
        action.add_argument("ids", nargs="*", metavar="ID", help=f"{_NAMED}; none: all of `jobs list`")
    cancel.add_argument("ids", nargs="+", metavar="ID", help=_NAMED)


def run_submit(client: Client, chosen: argparse.Namespace) -> int:
    """Hand in structures."""
    inputs = gather(chosen.files, chosen.format)
    options = molecule_options(chosen)
    ledger = Ledger(client.base_url)

    def ask(each: Input) -> str:
        sent = {**options, **each.options}
        return client.submit_file(each.file_name, each.content, format_out=chosen.to, options=sent).id

    done = 0
    for each, outcome in done_for_each(inputs, ask, chosen.parallel):
        if isinstance(outcome, TraceGradError):
            tell(outcome, None if len(inputs) == 1 else each)
        else:
            done += 1
            ledger.add(outcome, each.name, each.stem, chosen.to)
            print(f"{outcome}  {each.name}")
    return summed_up(done, len(inputs))


def run_list(client: Client, chosen: argparse.Namespace) -> int:
    """Print how far each job is; what the server no longer has is forgotten."""
    ledger = Ledger(client.base_url)
    for entry in ledger.entries():
        try:
            told = _told(client.file_job(entry.id).state())
        except NotFoundError:
            ledger.forget(entry.id)
            told = "gone: its time was over, or it was cancelled"
        print(f"{entry.id}  {entry.name}  {told}")
    return 0


def run_wait(client: Client, chosen: argparse.Namespace) -> int:
    """Wait, and say how each ended; stopping this stops no job."""
    entries = Ledger(client.base_url).named(chosen.ids)
    done = 0
    for entry in entries:
        try:
            state = client.file_job(entry.id).wait(chosen.seconds, told=_progress(entry))
        except TraceGradError as error:
            _clear()
            tell(error, Input(entry.name, entry.stem))
            continue
        except KeyboardInterrupt:
            _clear()
            print(f"tracegrad: the jobs go on; `tracegrad jobs wait {entry.id}` waits again.", file=sys.stderr)
            return 1
        _clear()
        print(f"{entry.id}  {entry.name}  {state.state}")
        done += state.state == "done"
    return summed_up(done, len(entries))


def run_results(client: Client, chosen: argparse.Namespace) -> int:
    """Write the results."""
    entries = Ledger(client.base_url).named(chosen.ids)
    inputs = [Input(entry.name, entry.stem) for entry in entries]
    formats = {suffix: "result" for suffix in (Path(chosen.output).suffix.lower(), *FORMATS_BY_SUFFIX) if suffix}
    done = 0
    for each, entry in zip(inputs, entries, strict=True):
        target = Target(chosen.parser, chosen.output, entry.to or "result", inputs, formats)
        try:
            target.write(each, client.file_job(entry.id).result().body)
            done += 1
        except TraceGradError as error:
            tell(error, None if len(entries) == 1 else each)
    return summed_up(done, len(entries))


def run_cancel(client: Client, chosen: argparse.Namespace) -> int:
    """Stop and delete."""
    ledger = Ledger(client.base_url)
    entries = ledger.named(chosen.ids)
    done = 0
    for entry in entries:
        try:
            client.file_job(entry.id).delete()
        except TraceGradError as error:
            tell(error, None if len(entries) == 1 else Input(entry.name, entry.stem))
            continue
        ledger.forget(entry.id)
        print(f"{entry.id}  {entry.name}  cancelled")
        done += 1
    return summed_up(done, len(entries))


def _told(state: JobState) -> str:
    if state.state == "queued" and state.position is not None:
        return f"queued, place {state.position}"
    if state.state == "running":
        return f"running, {state.stage or 'begun'}, {100 * state.fraction:.0f} %"
    return state.state


def _progress(entry: Entry) -> Any:
    """Shows on a terminal how far a job is, in one line."""
    if not sys.stderr.isatty():
        return None
    return lambda state: print(f"\r\x1b[K{entry.name}: {_told(state)}", end="", file=sys.__stderr__, flush=True)


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.__stderr__, flush=True)
