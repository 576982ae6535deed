"""Blocks with their cells R on the wire: a list of matrices in JSON, flat arrays elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet

FLAT_NAMES: Final[Mapping[str, str]] = {
    "blocks": "hamiltonian",
    "overlap_blocks": "overlap",
    "density_blocks": "density",
}
"""Name of an output's flat array in binary answers."""


def listed_blocks(blocks: BlockSet, *, matrices: bool) -> list[dict[str, Any]]:
    """The entries of JSON: atoms, cell and matrix of each pair.

    Args:
        blocks: of any spin treatment.
        matrices: whether to write them, or pairs only.
    """
    pairs = blocks.pairs
    rows = zip(pairs.first.tolist(), pairs.second.tolist(), pairs.shift.tolist(), blocks, strict=True)
    single = len(blocks.values) == 1
    return [
        {"i": i, "j": j, "shift": shift}
        | ({"matrix": np.ascontiguousarray(real_parts(block[0] if single else block))} if matrices else {})
        for i, j, shift, block in rows
    ]


def flat_arrays(blocks: Mapping[str, BlockSet]) -> dict[str, NDArray[Any]]:
    """The arrays of binary answers: ``pairs``, ``shapes``, and the entries of each matrix, pair after pair, row by row."""
    if not blocks:
        return {}
    first = next(iter(blocks.values()))
    sizes = np.diff(first.atom_offsets)
    pairs = first.pairs
    arrays: dict[str, NDArray[Any]] = {
        "pairs": np.concatenate([pairs.shift, pairs.first[:, None], pairs.second[:, None]], axis=1),
        "shapes": np.stack([sizes[pairs.first], sizes[pairs.second]], axis=1),
    }
    for name, found in blocks.items():
        values = found.values[0] if len(found.values) == 1 else found.values
        arrays[FLAT_NAMES[name]] = np.ascontiguousarray(real_parts(values))
    return arrays


def real_parts(values: NDArray[Any]) -> NDArray[np.float64]:
    """Real numbers as they are; complex ones with a last axis of real and imaginary part."""
    if not np.iscomplexobj(values):
        return np.asarray(values, dtype=np.float64)
    return np.stack([values.real, values.imag], axis=-1)
