"""``tracegrad models``: what the server has loaded."""

from __future__ import annotations

import argparse
from typing import Any

from tracegrad_client.client import Client


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """The command ``models``."""
    parser = commands.add_parser("models", parents=parents, help="list the server's models")
    parser.set_defaults(run=run, parser=parser)


def run(client: Client, chosen: argparse.Namespace) -> int:
    """Print a line for each model."""
    for card in client.models():
        elements = card.get("elements")
        made_of = " ".join(map(str, elements)) if isinstance(elements, list) else "?"
        mark = "  (default)" if card.get("default") else ""
        basis = card.get("basis")
        basis = basis.get("name", "?") if isinstance(basis, dict) else basis
        print(f"{card.get('name', '?')} {card.get('version', '?')}  {card.get('xc', '?')}/{basis}  Z = {made_of}{mark}")
    return 0
