"""Files of matrices that nobody here made, where they are; and small structures with random matrices that tests write."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.blocks.block_set import BlockSet, Spin
from model.formats.matrices import Matrices
from model.formats.rearrange import structure_of
from model.formats.units import HARTREE
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList

ROOT = Path(__file__).resolve().parents[3]
CRYSTALS = Path(os.environ.get("TRACEGRAD_CRYSTALS", ROOT.parent / "shared" / "data" / "crystals"))


def find(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        pytest.skip(f"{name} is not there (set TRACEGRAD_CRYSTALS to a folder of crystals; docs/datasets.md)")
    return path


@pytest.fixture(scope="session")
def public() -> Callable[[str], Path]:
    """Path of a public file, or the test is skipped."""
    return lambda name: find(CRYSTALS / "public", name)


@pytest.fixture(scope="session")
def crystals() -> Callable[[str], Path]:
    """Path of a file of the project's own crystals, or the test is skipped."""
    return lambda name: find(CRYSTALS, name)


def made_up(spin: Spin = "restricted", *, order: str = "e3nn", seed: int = 0) -> Matrices:
    """A slab of three atoms of two elements, atoms of one element apart, one of them outside the cell; random hermitian
    H, a diagonally dominant S and a density matrix."""
    rng = np.random.default_rng(seed)
    cell = np.array([[3.1, 0.2, 0.0], [-1.4, 2.9, 0.1], [0.0, 0.0, 15.0]])
    positions = np.array([[0.1, 0.2, 7.0], [1.5, 0.9, 8.1], [0.4, -0.3, 5.6]])
    numbers = np.array([7, 5, 7])
    shells = {5: (0, 0, 1, 2), 7: (0, 1, 1, 3)}
    space = OrbitalSpace("made up", shells, order=order)
    periodic = replace(structure_of(numbers, positions, cell), pbc=(True, True, False))
    pairs = PairList.within(periodic, 4.0)

    def random(kind: Spin) -> BlockSet:
        blocks = BlockSet.zeros(space, numbers, pairs, kind)
        values = rng.normal(size=blocks.values.shape)
        if kind == "spinor":
            values = values + 1j * rng.normal(size=values.shape)
        return blocks.with_values(values).hermitised()

    overlap = random("restricted")
    values = 0.02 * overlap.values
    for atom in range(len(numbers)):
        size = int(np.sqrt(overlap.starts[atom + 1] - overlap.starts[atom]))
        values[0, overlap.starts[atom] : overlap.starts[atom + 1]] = np.eye(size).ravel()
    return Matrices(
        periodic, random(spin), overlap.with_values(values), random(spin), 0.125, 16.0, "made up", HARTREE, ()
    )


def largest_difference(first: BlockSet, second: BlockSet) -> float:
    """Largest difference of two BlockSets in the same order, over the pairs of either."""
    assert first.space.order == second.space.order
    keys = {tuple(key) for key in second.pairs.keys.tolist()}
    pairs = first.pairs if len(first.pairs) >= len(keys) else second.pairs
    return float(np.abs(first.on_pairs(pairs).values - second.on_pairs(pairs).values).max())
