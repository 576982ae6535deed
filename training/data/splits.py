"""The published splits as index arrays; nothing here reads a file.

QH9 (Yu et al., arXiv:2306.09549; divelab/AIRS, OpenDFT/QHBench/QH9/datasets.py, and its README for the counts):

* stable, ``random``: ``RandomState(43).permutation(n)``, first 80 %, next 10 %, rest: 104,664 / 13,083 / 13,084;
* stable, ``size_ood``: atoms, hydrogens included, <= 20 / 21-22 / >= 23, in file order: 104,001 / 17,495 / 9,335;
* dynamic, ``geometry``: per molecule of 100 consecutive rows a ``RandomState(last row).permutation(100)``, 80 / 10 / 10;
* dynamic, ``molecule``: ``random.Random(43).shuffle`` of the molecules' numbers, 80 % / 10 % / rest, rows in file order.
  999 molecules: 79,900 / 9,900 / 10,100; 2,998: 239,800 / 29,900 / 30,100.

MD17 (QHNet, arXiv:2306.04922; divelab/AIRS, OpenDFT/QHNet/ori_dataset.py and config/): ``RandomState(42).permutation(n)``,
500 (water) or 25,000 training frames, 500 for validation, all others for the test. SchNOrb and PhiSNet used the same
sizes with other random numbers. The papers print 3,900 / 4,500 / 1,478 / 4,500 test frames (water, ethanol, malonaldehyde,
uracil); PhiSNet's converted water file is named after 4,999 frames, which leaves 3,999. Not verified on the file.

Both random generators (NumPy's legacy ``RandomState``, Python's Mersenne twister) are frozen by their projects: the same
seed gives the same order in every version.
"""

from __future__ import annotations

import random
from typing import Final

import numpy as np
from numpy.typing import NDArray

Splits = dict[str, NDArray[np.int64]]

NAMES: Final = ("train", "val", "test")
QH9_SEED: Final = 43
GEOMETRIES_PER_MOLECULE: Final = 100
LARGEST_TRAINING_MOLECULE: Final = 20
LARGEST_VALIDATION_MOLECULE: Final = 22
MD17_SEED: Final = 42
MD17_SIZES: Final = {
    "water": (500, 500),
    "ethanol": (25_000, 500),
    "malonaldehyde": (25_000, 500),
    "uracil": (25_000, 500),
}
"""Training and validation frames."""


def stable_random(n_rows: int) -> Splits:
    """QH9-stable-id."""
    order = np.random.RandomState(QH9_SEED).permutation(n_rows)
    return _cut(order, int(n_rows * 0.8), int(n_rows * 0.1))


def stable_size(n_atoms: NDArray[np.int64]) -> Splits:
    """QH9-stable-ood, from the number of atoms of each row."""
    train = n_atoms <= LARGEST_TRAINING_MOLECULE
    test = n_atoms > LARGEST_VALIDATION_MOLECULE
    masks = (train, ~train & ~test, test)
    return {name: np.flatnonzero(mask).astype(np.int64) for name, mask in zip(NAMES, masks, strict=True)}


def dynamic_geometry(n_molecules: int) -> Splits:
    """QH9-dynamic-geo: every molecule in every split."""
    parts: dict[str, list[NDArray[np.int64]]] = {name: [] for name in NAMES}
    size = GEOMETRIES_PER_MOLECULE
    for molecule in range(n_molecules):
        last_row = (molecule + 1) * size - 1
        own = _cut(np.random.RandomState(last_row).permutation(size), int(size * 0.8), int(size * 0.1))
        for name in NAMES:
            parts[name].append(molecule * size + own[name])
    return {name: np.concatenate(parts[name] or [np.zeros(0, dtype=np.int64)]) for name in NAMES}


def dynamic_molecule(n_molecules: int) -> Splits:
    """QH9-dynamic-mol: no molecule in two splits."""
    order = list(range(n_molecules))
    random.Random(QH9_SEED).shuffle(order)
    chosen = _cut(np.array(order, dtype=np.int64), int(n_molecules * 0.8), int(n_molecules * 0.1))
    molecule_of = np.arange(n_molecules * GEOMETRIES_PER_MOLECULE) // GEOMETRIES_PER_MOLECULE
    return {name: np.flatnonzero(np.isin(molecule_of, chosen[name])).astype(np.int64) for name in NAMES}


def md17_random(n_rows: int, n_train: int, n_validation: int) -> Splits:
    """MD17 as QHNet splits it."""
    return _cut(np.random.RandomState(MD17_SEED).permutation(n_rows), n_train, n_validation)


def _cut(order: NDArray[np.int64], n_train: int, n_validation: int) -> Splits:
    parts = np.split(order.astype(np.int64), [n_train, n_train + n_validation])
    return dict(zip(NAMES, parts, strict=True))
