"""Samples and batches: nothing of F - H0 is lost, joining is one construction, and nothing waits for the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.blocks.spaces import BlockSpace
from model.blocks.template import TemplateMap
from model.integrals.pyscf_molecule import integrals
from model.orbitals.space import OrbitalSpace
from model.pairs.graph import build_graph
from model.pairs.pair_list import PairList
from model.preparation import Preparer
from model.reference.fitted import FittedReference
from training.data.sources import DatasetError, Frame
from training.fit.config import LossConfig
from training.fit.losses.errors import Assembler, BatchErrors
from training.fit.losses.objective import measured_terms, terms_of
from training.fit.samples import Batch, Sample, join, make_samples

SINGLE = 2e-6
"""Rounding of float32 entries up to some 20 hartree, through two changes of basis."""

GROUPS = [[2], [0, 1, 2, 3, 4, 5, 6, 7], [7, 2, 0, 5], [0, 4], [4, 0, 4, 4]]
"""Frames of H2, H2O, CH4 and NH3: alone, all, small between large, and one of them several times."""


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Tensors and numbers of a batch or a sample with dotted names."""
    if dataclasses.is_dataclass(value):
        for item in dataclasses.fields(value):
            yield from leaves(getattr(value, item.name), f"{prefix}{item.name}.")
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, f"{prefix}{name}.")
    else:
        yield prefix.removesuffix("."), value


def assert_same(one: Any, other: Any) -> None:
    first, second = dict(leaves(one)), dict(leaves(other))
    assert first.keys() == second.keys()
    for name, value in first.items():
        same = torch.equal(value, second[name]) if isinstance(value, Tensor) else value == second[name]
        assert same, name


def blocks_of(batch: Batch, space: OrbitalSpace) -> Tensor:
    """The batch's target as template blocks."""
    transform = torch.from_numpy(BlockSpace.of(space.template).matrix).float()
    return (batch.target @ transform.T).unflatten(1, (1, space.template_size, space.template_size))


def errors_of(batch: Batch, space: OrbitalSpace, blocks: Tensor) -> BatchErrors:
    """The error of a batch from its blocks."""
    assembler = Assembler(space, BlockSpace.of(space.template))
    return BatchErrors(assembler, blocks, batch.graph, batch.partner, batch.extras)


def standard_order(frame: Frame, space: OrbitalSpace) -> np.ndarray:
    """Program's index of each orbital, ordered by atom and template row."""
    offsets = space.atom_offsets(frame.structure.numbers)
    return np.concatenate(
        [
            start + np.argsort(space.template_rows(int(z)))
            for z, start in zip(frame.structure.numbers, offsets, strict=False)
        ]
    )


@pytest.mark.parametrize("group", GROUPS)
def test_a_batch_assembles_to_fock_less_reference(
    group: list[int],
    tiny_frames: list[Frame],
    tiny_samples: list[Sample],
    basis: OrbitalSpace,
    tiny_reference: FittedReference,
) -> None:
    """Oracle: the dense matrices, before anything was cut, orbitals sorted by atom and template row."""
    batch = join([tiny_samples[index] for index in group])
    assembled = errors_of(batch, basis, blocks_of(batch, basis)).matrix.numpy()
    for row, index in enumerate(group):
        frame = tiny_frames[index]
        order = standard_order(frame, basis)
        around = integrals(frame.structure, basis.name)
        expected = np.zeros(assembled.shape[1:])
        expected[: len(order), : len(order)] = (frame.fock - tiny_reference.evaluate(around).hamiltonian)[
            np.ix_(order, order)
        ]
        assert np.abs(assembled[row] - expected).max() < SINGLE


def test_a_matrix_that_is_not_hermitian_is_averaged_as_the_model_does(
    tiny_frames: list[Frame], tiny_samples: list[Sample], basis: OrbitalSpace, rng: np.random.Generator
) -> None:
    """Oracle: ``TemplateMap.to_blocks``, which makes the service's matrices."""
    batch = join(tiny_samples)
    blocks = torch.from_numpy(rng.normal(size=blocks_of(batch, basis).shape)).float()
    found = errors_of(batch, basis, blocks)
    atoms, pairs = 0, batch.graph.n_atoms
    for row, frame in enumerate(tiny_frames):
        template = TemplateMap(basis, frame.structure.numbers, PairList.complete(frame.structure))
        n_atoms, n_pairs = len(frame.structure), len(template.listed)
        own = np.concatenate([blocks[atoms : atoms + n_atoms], blocks[pairs : pairs + n_pairs]]).astype(np.float64)
        expected = dataclasses.replace(frame, hamiltonian=template.to_blocks(own, BlockSpace.of(basis.template))).fock
        order = standard_order(frame, basis)
        size = len(order)
        assert np.array_equal(
            found.matrix[row, :size, :size].numpy(), expected[np.ix_(order, order)].astype(np.float32)
        )
        assert not found.matrix[row, size:].any()
        assert not found.matrix[row, :, size:].any()
        assert float(found.mae[row]) == pytest.approx(np.abs(expected).mean(), rel=1e-5)
        assert float(found.rmse[row]) == pytest.approx(np.sqrt(np.square(expected).mean()), rel=1e-5)
        atoms, pairs = atoms + n_atoms, pairs + n_pairs


def test_orbitals_of_a_sample_diagonalise_the_fock_matrix(
    tiny_frames: list[Frame], tiny_samples: list[Sample], basis: OrbitalSpace
) -> None:
    for frame, sample in zip(tiny_frames, tiny_samples, strict=True):
        order = standard_order(frame, basis)
        overlap = integrals(frame.structure, "def2-svp").overlap[np.ix_(order, order)]
        fock = frame.fock[np.ix_(order, order)]
        orbitals = torch.cat([sample.extras["occupied"], sample.extras["virtual"]], dim=1).double().numpy()
        energies = np.diag(orbitals.T @ fock @ orbitals)
        assert np.abs(orbitals.T @ overlap @ orbitals - np.eye(len(overlap))).max() < 1e-5
        assert np.abs(orbitals.T @ fock @ orbitals - np.diag(energies)).max() < 1e-4
        count = int(sample.extras["n_occupied"])
        assert count == frame.structure.n_electrons // 2
        gaps = energies[None, count:] - energies[:count, None]
        assert np.abs(sample.extras["inverse_gaps"].numpy() * gaps - 1.0).max() < 1e-4


def test_what_no_term_asks_for_is_not_made(tiny_frames: list[Frame], tiny_preparer: Preparer) -> None:
    """Oracle: the terms' own lists."""
    for config, names in (
        (LossConfig(guess=0.0), set()),
        (LossConfig(guess=1.0), {"occupied", "virtual", "inverse_gaps", "n_occupied"}),
        (LossConfig(guess=0.0, spectral=1.0), {"occupied", "lowest_empty", "n_occupied"}),
    ):
        (sample,) = make_samples(tiny_frames[:1], tiny_preparer, terms_of(config), cache=None, processes=0)
        assert set(sample.extras) == names


@pytest.mark.parametrize("group", GROUPS)
def test_a_joined_graph_is_the_one_built_in_one_go(
    group: list[int], tiny_frames: list[Frame], tiny_samples: list[Sample], tiny_preparer: Preparer
) -> None:
    structures = [tiny_frames[index].structure for index in group]
    batch = join([tiny_samples[index] for index in group])
    assert_same(batch.graph, build_graph(structures, cutoff_angstrom=tiny_preparer.cutoff_angstrom))
    row, column = batch.graph.pair_index
    listed = batch.partner >= 0
    assert torch.equal(listed, batch.graph.numbers[row] == batch.graph.numbers[column])
    assert torch.equal(row[listed], column[batch.partner[listed]])
    assert torch.equal(column[listed], row[batch.partner[listed]])


def test_joining_leaves_the_samples_as_they_were(tiny_samples: list[Sample]) -> None:
    """They are joined again in every epoch, and on the CPU they share memory with the arrays."""
    expected = join(tiny_samples)
    for group in GROUPS:
        for _, value in leaves(join([tiny_samples[index] for index in group])):
            if isinstance(value, Tensor):
                value.zero_()
    assert_same(join(tiny_samples), expected)


def test_joining_reads_no_number_from_the_device(tiny_samples: list[Sample]) -> None:
    """Tensors without data have shapes only: code that needs a value, and would make a GPU wait, fails on them."""
    nowhere = torch.device("meta")
    moved = [sample.to(nowhere) for sample in tiny_samples]
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        moved[0].extras["n_occupied"].item()
    found = dict(leaves(join(moved)))
    for name, value in leaves(join(tiny_samples)):
        if isinstance(value, Tensor):
            assert (found[name].device, found[name].shape, found[name].dtype) == (nowhere, value.shape, value.dtype)


def test_memory_is_what_the_module_says(tiny_frames: list[Frame], tiny_preparer: Preparer) -> None:
    samples = make_samples(tiny_frames, tiny_preparer, terms_of(LossConfig(guess=1.0)), cache=None, processes=0)
    for frame, sample in zip(tiny_frames, samples, strict=True):
        n, p, size = sample.graph.n_atoms, sample.graph.n_pairs, len(frame.fock)
        o = int(sample.extras["n_occupied"])
        m, k = sample.inputs.diagonal.shape[1:]
        blocks = 4 * (n + p) * (m + 1) * k + 16 * n + 28 * (n * (n - 1) + p) + 8 * p
        assert sample.n_bytes == blocks + 4 * size**2 + 4 * o * (size - o) + 4
        assert sample.n_blocks == n + p


def test_the_cache_gives_back_the_same_samples_and_only_for_the_same_frames(
    tiny_frames: list[Frame],
    tiny_samples: list[Sample],
    tiny_preparer: Preparer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terms = measured_terms(molecular=True)
    make_samples(tiny_frames[:2], tiny_preparer, terms, cache=tmp_path, processes=0)
    with monkeypatch.context() as patch:
        patch.setattr("training.fit.samples.sample_arrays", None)  # a second making would fail
        again = make_samples(tiny_frames[:2], tiny_preparer, terms, cache=tmp_path, processes=0)
    for one, other in zip(tiny_samples[:2], again, strict=True):
        assert_same(one, other)
    frame = tiny_frames[0]
    shifted = dataclasses.replace(frame, hamiltonian=frame.hamiltonian.with_values(frame.hamiltonian.values + 1.0))
    make_samples(tiny_frames[1:2], tiny_preparer, terms, cache=tmp_path, processes=0)
    make_samples([shifted, tiny_frames[1]], tiny_preparer, terms, cache=tmp_path, processes=0)
    make_samples(tiny_frames[:2], tiny_preparer, terms[:1], cache=tmp_path, processes=0)
    make_samples(
        tiny_frames[:2], dataclasses.replace(tiny_preparer, cutoff_angstrom=3.0), terms, cache=tmp_path, processes=0
    )
    assert len(list(tmp_path.iterdir())) == 5, "other frames, other labels, other terms, another network"


@pytest.mark.parametrize("order", ["openmx", "siesta", "orca"])
def test_labels_of_any_order_give_the_same_sample(
    order: str, tiny_frames: list[Frame], tiny_samples: list[Sample], tiny_preparer: Preparer
) -> None:
    """Oracle: the sample of the same label in the model's own order; signs and places are turned exactly."""
    frame = tiny_frames[4]
    turned = dataclasses.replace(frame, hamiltonian=frame.hamiltonian.in_order(order))
    assert not np.array_equal(turned.fock, frame.fock)
    (found,) = make_samples([turned], tiny_preparer, measured_terms(molecular=True), cache=None, processes=0)
    assert_same(found, tiny_samples[4])


def test_labels_of_other_shells_are_refused_by_name(tiny_frames: list[Frame], tiny_preparer: Preparer) -> None:
    """A file that says def2-SVP and holds another basis' matrices."""
    space = dataclasses.replace(tiny_preparer.space, shells=dict(tiny_preparer.space.shells) | {8: (0, 0, 1)})
    with pytest.raises(
        DatasetError, match=r"O has the shells \(0, 0, 0, 1, 1, 2\) in the data, \(0, 0, 1\) in the model"
    ):
        tiny_frames[4].in_space(space)
    with pytest.raises(DatasetError, match=r"O has the shells .* in the data, none in the model"):
        tiny_frames[4].in_space(dataclasses.replace(space, shells={1: (0, 0, 1)}))
