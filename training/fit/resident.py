"""Samples as tensors that stay on the device, and batches put together there.

``to_device`` does once per sample what does not depend on its batch: graph, assembly index, inverse gaps, the cut between
occupied and empty orbitals. ``join`` then only copies and adds offsets: sizes are shapes, so it reads no number back and
a GPU never has to wait for it. The samples of a set are held in float32; int64 is used only where torch wants it for
indexing (the graph, small) and inside a batch.

Memory of a sample with n atoms, p pairs, m input matrices of k coefficients a block, N atomic orbitals of which o are
occupied:

    4 (n + p) (m + 1) k  +  13 N^2  +  4 o (N - o)  +  16 n + 28 (n (n - 1) + p) + 4  bytes

(coefficients; target, index, ``in_pair`` and orbitals; inverse gaps; graph with all edges, n_occupied). On the CPU
coefficients, target and orbitals are the ``Sample``'s own memory, not a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.architectures.interface import InputCoefficients
from model.pairs.graph import AtomGraph, build_graph, join_graphs
from model.structure import Structure
from training.fit.samples import Sample


@dataclass(frozen=True)
class ResidentSample:
    """What ``Sample`` holds, as tensors on the device, ready to be joined.

    Attributes:
        graph: of this molecule alone.
        inputs: raw input coefficients.
        target_diagonal, target_pair: raw target coefficients, (block, coefficient), hartree.
        target: F - H0, (ao, ao), hartree.
        index: flat position of each entry among the molecule's diagonal blocks, or among its pair blocks, (ao, ao), int32.
        in_pair: which of the two, (ao, ao).
        occupied, virtual: reference orbitals, (ao, occupied or virtual).
        inverse_gaps: 1 / (e_a - e_i), (occupied, virtual), 1/hartree.
        n_occupied: (1,), as a number.
        block_entries: entries of a template block.
    """

    graph: AtomGraph
    inputs: InputCoefficients
    target_diagonal: Tensor
    target_pair: Tensor
    target: Tensor
    index: Tensor
    in_pair: Tensor
    occupied: Tensor
    virtual: Tensor
    inverse_gaps: Tensor
    n_occupied: Tensor
    block_entries: int

    @property
    def n_blocks(self) -> int:
        """Cost of the sample: diagonal and pair blocks."""
        return self.graph.n_atoms + self.graph.n_pairs

    @property
    def n_bytes(self) -> int:
        """Memory of all tensors."""
        of_graph = (value for value in vars(self.graph).values() if isinstance(value, Tensor))
        own = (value for value in vars(self).values() if isinstance(value, Tensor))
        return sum(value.nbytes for value in (*of_graph, *own, self.inputs.diagonal, self.inputs.pair))


@dataclass(frozen=True)
class Batch:
    """Samples of one step.

    Attributes:
        graph: atoms, edges and pairs.
        inputs: raw input coefficients.
        target_diagonal, target_pair: raw target coefficients.
        target: padded, (molecule, ao, ao).
        index: assembly index into the batch's blocks, padded with 0, (molecule, ao, ao).
        mask: real entries, (molecule, ao, ao), as numbers.
        occupied, virtual: orbitals, padded with 0, (molecule, ao, occupied or virtual).
        inverse_gaps: 1 / (e_a - e_i), padded with 0, (molecule, occupied, virtual), 1/hartree.
        n_occupied: (molecule,), as numbers.
    """

    graph: AtomGraph
    inputs: InputCoefficients
    target_diagonal: Tensor
    target_pair: Tensor
    target: Tensor
    index: Tensor
    mask: Tensor
    occupied: Tensor
    virtual: Tensor
    inverse_gaps: Tensor
    n_occupied: Tensor


def to_device(sample: Sample, *, cutoff_angstrom: float, template: int, device: torch.device) -> ResidentSample:
    """Everything of a sample that does not depend on its batch, on the device.

    Args:
        sample: one geometry.
        cutoff_angstrom: longest message edge.
        template: rows of a template block.
        device: where it stays.
    """
    n_atoms, occupied = len(sample.numbers), int(sample.n_occupied[0])
    in_pair = sample.block >= n_atoms
    place = np.where(in_pair, sample.block - n_atoms, sample.block)
    gaps = sample.energies[None, occupied:] - sample.energies[:occupied, None]

    def tensor(array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(device)

    orbitals = tensor(sample.orbitals)
    return ResidentSample(
        graph=build_graph(
            [Structure(sample.numbers, sample.positions)], cutoff_angstrom=cutoff_angstrom, device=device
        ),
        inputs=InputCoefficients(tensor(sample.diagonal), tensor(sample.pair)),
        target_diagonal=tensor(sample.target_diagonal),
        target_pair=tensor(sample.target_pair),
        target=tensor(sample.target),
        index=tensor((place * template**2 + sample.entry).astype(np.int32)),
        in_pair=tensor(in_pair),
        occupied=orbitals[:, :occupied],
        virtual=orbitals[:, occupied:],
        inverse_gaps=tensor(1.0 / gaps),
        n_occupied=tensor(sample.n_occupied.astype(np.float32)),
        block_entries=template**2,
    )


def join(samples: Sequence[ResidentSample]) -> Batch:
    """A batch of samples, on their device; waits for nothing that runs there."""
    graph = join_graphs([sample.graph for sample in samples])
    count, first = len(samples), samples[0].target
    width = max(sample.target.shape[0] for sample in samples)
    n_occupied = max(sample.occupied.shape[1] for sample in samples)
    n_virtual = max(sample.virtual.shape[1] for sample in samples)
    target, mask = first.new_zeros((2, count, width, width))
    index = first.new_zeros((count, width, width), dtype=torch.int64)
    occupied = first.new_zeros((count, width, n_occupied))
    virtual = first.new_zeros((count, width, n_virtual))
    inverse_gaps = first.new_zeros((count, n_occupied, n_virtual))
    atoms, pairs = 0, graph.n_atoms  # a batch's blocks are all atoms', then all pairs'
    for row, sample in enumerate(samples):
        size, below = sample.occupied.shape
        target[row, :size, :size] = sample.target
        mask[row, :size, :size].fill_(1.0)
        own = index[row, :size, :size]
        torch.add(sample.index, atoms * sample.block_entries, out=own)
        own.add_(sample.in_pair, alpha=(pairs - atoms) * sample.block_entries)
        occupied[row, :size, :below] = sample.occupied
        virtual[row, :size, : size - below] = sample.virtual
        inverse_gaps[row, :below, : size - below] = sample.inverse_gaps
        atoms += sample.graph.n_atoms
        pairs += sample.graph.n_pairs
    return Batch(
        graph=graph,
        inputs=InputCoefficients(
            torch.cat([sample.inputs.diagonal for sample in samples]),
            torch.cat([sample.inputs.pair for sample in samples]),
        ),
        target_diagonal=torch.cat([sample.target_diagonal for sample in samples]),
        target_pair=torch.cat([sample.target_pair for sample in samples]),
        target=target,
        index=index,
        mask=mask,
        occupied=occupied,
        virtual=virtual,
        inverse_gaps=inverse_gaps,
        n_occupied=torch.cat([sample.n_occupied for sample in samples]),
    )


def collate(samples: Sequence[Sample], *, cutoff_angstrom: float, template: int, device: torch.device) -> Batch:
    """A batch of samples that are not on the device yet."""
    return join(
        [to_device(sample, cutoff_angstrom=cutoff_angstrom, template=template, device=device) for sample in samples]
    )
