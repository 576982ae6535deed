"""Batches put together on the device: what is joined is what one construction from NumPy arrays gives, to the bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.pairs.graph import build_graph
from model.structure import Structure
from training.fit.resident import Batch, collate, join, to_device
from training.fit.samples import Sample

CPU = torch.device("cpu")
TEMPLATE = 14
"""Rows of def2-SVP's template block."""

GROUPS = [[2], [0, 1, 2, 3, 4, 5, 6, 7], [7, 2, 0, 5], [0, 4], [4, 0, 4, 4]]
"""Frames of H2, H2O, CH4 and NH3: alone, all, small between large, and one of them several times."""


def by_numpy(samples: Sequence[Sample], cutoff_angstrom: float) -> dict[str, Any]:
    """A batch built from its samples in one go, entry by entry from its definition."""
    graph = build_graph([Structure(s.numbers, s.positions) for s in samples], cutoff_angstrom=cutoff_angstrom)
    count = len(samples)
    width = max(len(s.energies) for s in samples)
    most_occupied = max(int(s.n_occupied[0]) for s in samples)
    most_virtual = max(len(s.energies) - int(s.n_occupied[0]) for s in samples)
    real = np.float32
    target, mask = np.zeros((2, count, width, width), dtype=real)
    index = np.zeros((count, width, width), dtype=np.int64)
    occupied = np.zeros((count, width, most_occupied), dtype=real)
    virtual = np.zeros((count, width, most_virtual), dtype=real)
    inverse = np.zeros((count, most_occupied, most_virtual), dtype=real)
    atoms = pairs = 0
    for row, s in enumerate(samples):
        n, o = len(s.energies), int(s.n_occupied[0])
        own_atoms = len(s.numbers)
        shift = np.where(s.block < own_atoms, atoms, graph.n_atoms + pairs - own_atoms)
        index[row, :n, :n] = (s.block + shift) * TEMPLATE**2 + s.entry
        target[row, :n, :n] = s.target
        mask[row, :n, :n] = 1.0
        occupied[row, :n, :o] = s.orbitals[:, :o]
        virtual[row, :n, : n - o] = s.orbitals[:, o:]
        inverse[row, :o, : n - o] = 1.0 / (s.energies[None, o:] - s.energies[:o, None])
        atoms += own_atoms
        pairs += len(s.pair)
    arrays = {
        "inputs.diagonal": np.concatenate([s.diagonal for s in samples]),
        "inputs.pair": np.concatenate([s.pair for s in samples]),
        "target_diagonal": np.concatenate([s.target_diagonal for s in samples]),
        "target_pair": np.concatenate([s.target_pair for s in samples]),
        "target": target,
        "index": index,
        "mask": mask,
        "occupied": occupied,
        "virtual": virtual,
        "inverse_gaps": inverse,
        "n_occupied": np.array([s.n_occupied[0] for s in samples], dtype=real),
    }
    return {f"graph.{f.name}": getattr(graph, f.name) for f in dataclasses.fields(graph)} | {
        name: torch.from_numpy(array) for name, array in arrays.items()
    }


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Tensors and numbers of a batch with dotted names."""
    for item in dataclasses.fields(value):
        inner = getattr(value, item.name)
        if dataclasses.is_dataclass(inner):
            yield from leaves(inner, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", inner


def assert_is(batch: Batch, expected: dict[str, Any]) -> None:
    found = dict(leaves(batch))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, Tensor):
            assert found[name].dtype == value.dtype, name
            assert torch.equal(found[name], value), name
        else:
            assert found[name] == value, name


@pytest.mark.parametrize("cutoff_angstrom", [15.0, 1.3, 0.1])
@pytest.mark.parametrize("group", GROUPS)
def test_a_joined_batch_is_the_one_built_in_one_go(
    group: list[int], cutoff_angstrom: float, tiny_samples: list[Sample]
) -> None:
    """With all edges, with those of bonds to hydrogen, and with none."""
    samples = [tiny_samples[index] for index in group]
    expected = by_numpy(samples, cutoff_angstrom)
    assert_is(collate(samples, cutoff_angstrom=cutoff_angstrom, template=TEMPLATE, device=CPU), expected)


def test_joining_leaves_the_samples_as_they_were(tiny_samples: list[Sample]) -> None:
    """They are joined again in every epoch, and on the CPU they share memory with the NumPy arrays."""
    residents = [to_device(sample, cutoff_angstrom=15.0, template=TEMPLATE, device=CPU) for sample in tiny_samples]
    for group in GROUPS:
        batch = join([residents[index] for index in group])
        for _, value in leaves(batch):
            if isinstance(value, Tensor):
                value.zero_()
    assert_is(join(residents), by_numpy(tiny_samples, 15.0))


def test_joining_reads_no_number_from_the_device(tiny_samples: list[Sample]) -> None:
    """Tensors without data have shapes only: code that needs a value, and would make a GPU wait, fails on them."""
    nowhere = torch.device("meta")
    residents = [to_device(sample, cutoff_angstrom=15.0, template=TEMPLATE, device=nowhere) for sample in tiny_samples]
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        residents[0].n_occupied.item()
    found = dict(leaves(join(residents)))
    for name, value in by_numpy(tiny_samples, 15.0).items():
        if isinstance(value, Tensor):
            assert (found[name].device, found[name].shape, found[name].dtype) == (nowhere, value.shape, value.dtype)


def test_memory_is_what_the_module_says(tiny_samples: list[Sample]) -> None:
    for sample in tiny_samples:
        resident = to_device(sample, cutoff_angstrom=15.0, template=TEMPLATE, device=CPU)
        n, p, size, o = len(sample.numbers), len(sample.pair), len(sample.energies), int(sample.n_occupied[0])
        m, k = sample.diagonal.shape[1:]
        graph = 16 * n + 28 * (n * (n - 1) + p)
        assert resident.n_bytes == 4 * (n + p) * (m + 1) * k + 13 * size**2 + 4 * o * (size - o) + graph + 4
        assert resident.n_blocks == sample.n_blocks
