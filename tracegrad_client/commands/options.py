"""Options that several commands have."""

from __future__ import annotations

import argparse


def molecule_parent() -> argparse.ArgumentParser:
    """What may be stated of structures."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--model", help="name of a checkpoint (default: the one that fits best)")
    parser.add_argument("--charge", type=int, help="total charge of all (default: what each file states, else 0)")
    parser.add_argument("--multiplicity", type=int, help="2S + 1 of all (default: what each file states, else 1)")
    return parser


def molecule_options(chosen: argparse.Namespace, *more: str) -> dict[str, str]:
    """What was stated, as form fields; ``more`` are names of the command's own options."""
    names = ("charge", "multiplicity", "xc", "basis", *more)
    return {name: str(value) for name in names if (value := getattr(chosen, name, None)) is not None}
