"""Molecules that several benchmarks take: of ASE's G2 set, and of the files in ``molecules/``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ase.build import molecule
from ase.io import read

from model.structure import Structure


def structures_of(names: Sequence[str], files: Sequence[str]) -> dict[str, Structure]:
    """By name: molecules of ASE's set, then those of files, without their suffix."""
    atoms = {name: molecule(name) for name in names}
    atoms |= {name: read(Path(__file__).parent / "molecules" / f"{name}.xyz") for name in files}
    return {name: Structure(one.numbers, one.positions) for name, one in atoms.items()}
