"""The command line of ``python -m training shift``; cheap to import."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be said to it."""
    parser.add_argument("checkpoint", type=Path, help="checkpoint folder; shifts.json is written into it")
    parser.add_argument(
        "data", type=Path, help="labelled molecules of the checkpoint's level: only geometries are taken"
    )
    parser.add_argument("--xc", nargs="+", required=True, metavar="NAME", help="functionals as PySCF names them, or hf")
    parser.add_argument(
        "--labels", type=Path, required=True, metavar="FOLDER", help="keeps the SCF runs; again: goes on"
    )
    parser.add_argument("--molecules", type=int, default=100, help="to fit to, of the split train (%(default)s)")
    parser.add_argument("--test", type=int, default=25, help="to measure on, of the split val (%(default)s)")
    parser.add_argument("--largest", type=int, default=95, help="orbitals of a molecule, at most (%(default)s)")
    parser.add_argument(
        "--density-weight", type=float, default=3.0, help="of the first-order density error, hartree^2 (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="workers of one thread; 0 works in this process")


def run(options: argparse.Namespace) -> int:
    """Fit, write, and say what it brings."""
    from training.shift.fit import fit_shifts
    from training.tables import ConfigError

    if min(options.molecules, options.test, options.largest) < 1 or not options.density_weight > 0:
        raise ConfigError("--molecules, --test, --largest and --density-weight must be above 0.")
    fit_shifts(options)
    return 0
