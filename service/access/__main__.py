"""``python -m service.access new NAME``: make an API key.

The key goes to standard error, once; its table for the keys file goes to standard output, so that

    python -m service.access new alice >> keys.toml

adds the hash to the file and shows the key to whoever is to have it. Exit codes: 0 done, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import date

from service.access.key_ring import MAX_REQUESTS_PER_MINUTE
from service.access.new_key import NAME_RULE, is_name, new_key, table_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; ``arguments`` defaults to those of the process. Returns the exit code."""
    chosen = _parser().parse_args(arguments)
    key = new_key()
    print(f"The key of {chosen.name}. It is shown now and never again; only its hash is stored:", file=sys.stderr)
    print(key, file=sys.stderr, flush=True)
    print(
        table_of(
            chosen.name,
            key,
            admin=chosen.admin,
            requests_per_minute=chosen.requests_per_minute,
            expires=chosen.expires,
        )
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service.access", description="API keys of the service.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    new = commands.add_parser("new", help="make a key, and the table for the file that TRACEGRAD_API_KEYS_FILE names")
    new.add_argument("name", type=_name, metavar="NAME", help="its owner, in logs and in the file")
    new.add_argument("--admin", action="store_true", help="open the admin routes too")
    new.add_argument("--requests-per-minute", type=_requests_per_minute, metavar="N", help="the quota (default: none)")
    new.add_argument(
        "--expires",
        type=_date,
        metavar="YYYY-MM-DD",
        help="first day, in UTC, on which it opens nothing (default: none)",
    )
    return parser


def _name(text: str) -> str:
    if not is_name(text):
        raise argparse.ArgumentTypeError(NAME_RULE)
    return text


def _requests_per_minute(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_REQUESTS_PER_MINUTE):
        raise argparse.ArgumentTypeError(f"a whole number from 1 to {MAX_REQUESTS_PER_MINUTE} is wanted")
    return int(text)


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("a date is wanted, such as 2027-01-01") from None


if __name__ == "__main__":
    sys.exit(main())
