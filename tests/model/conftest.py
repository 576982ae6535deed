"""Fixtures of the model's tests: stored crystals that other programs made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model.blocks.block_set import BlockSet, stack_blocks
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import Structure

CRYSTALS = Path(__file__).resolve().parents[3] / "shared" / "data" / "crystals"


@pytest.fixture(scope="session")
def bismuthene() -> list[tuple[BlockSet, BlockSet]]:
    """H(R) in eV with spin-orbit coupling, and S(R), of buckled bismuthene by GPAW; the file has each pair once."""
    path = CRYSTALS / "bismuthene_soc.h5"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there")
    h5py = pytest.importorskip("h5py")
    found = []
    with h5py.File(path) as file:
        for name in list(file)[:3]:
            group = file[name]
            numbers, cell = group["atomic_numbers"][:], group["cell"][:]
            structure = Structure(numbers, group["positions"][:], cell_angstrom=cell, pbc=(True, True, False))
            shells = tuple(json.loads(group.attrs["orbital_types"])[0])
            space = OrbitalSpace("gpaw dzp", {83: shells}, order="openmx", valence={83: 15})
            keys = group["pairs"][:].astype(np.int64)[:, [3, 4, 0, 1, 2]]
            pairs = PairList.of(structure, keys[:, 0], keys[:, 1], keys[:, 2:])
            n = 23
            spinors = group["hamiltonian_eV"][:].reshape(-1, 2, n, 2, n).transpose(0, 1, 3, 2, 4).reshape(-1, 4, n, n)
            overlaps = group["overlap"][:].reshape(-1, n, n)
            place = {tuple(key): index for index, key in enumerate(keys.tolist())}
            hamiltonian, overlap = [], []
            for i, j, *shift in pairs.keys.tolist():
                at = place.get((i, j, *shift))
                if at is None:
                    at = place[j, i, -shift[0], -shift[1], -shift[2]]
                    hamiltonian.append(spinors[at].conj().transpose(0, 2, 1)[[0, 2, 1, 3]])
                    overlap.append(overlaps[at].T)
                else:
                    hamiltonian.append(spinors[at])
                    overlap.append(overlaps[at])
            both = (
                stack_blocks(space, numbers, pairs, hamiltonian, "spinor"),
                stack_blocks(space, numbers, pairs, overlap),
            )
            found.append(both)
    return found
