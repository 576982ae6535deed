"""Frames -> samples: everything a training step needs of a labelled geometry, made once and kept in memory.

A sample holds raw input coefficients (overlap, reference, its density), the target matrix F - H0, the index that
assembles blocks into that matrix, and the reference orbitals for the guess term. Samples are cached on disk as npz
(plain arrays), keyed by data, basis and reference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.backbone.interface import InputCoefficients
from model.basis import AOBasis
from model.electronic.molecule import integrals
from model.graph import AtomGraph, build_graph
from model.hamiltonian.blocks import BlockMap
from model.hamiltonian.encoding import Encoder
from model.hamiltonian.reference import FittedReference, Reference, input_matrices
from model.structure import Structure
from model.surroundings import surroundings
from training.datasets import Frame
from training.pool import parallel_map


@dataclass(frozen=True)
class Sample:
    """One geometry, ready for training.

    Attributes:
        numbers, positions: the structure, Å.
        diagonal, pair: raw input coefficients, (block, matrix, coefficient), float32.
        target_diagonal, target_pair: raw target coefficients, (block, coefficient), float32, hartree.
        target: F - H0, (ao, ao), float32, hartree.
        block, entry: assembly index (``BlockMap``), (ao, ao), int32.
        orbitals: reference orbitals, (ao, ao), float32; the first ``n_occupied`` are occupied.
        energies: their energies, (ao,), float32, hartree.
        n_occupied: (1,).
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    diagonal: NDArray[np.float32]
    pair: NDArray[np.float32]
    target_diagonal: NDArray[np.float32]
    target_pair: NDArray[np.float32]
    target: NDArray[np.float32]
    block: NDArray[np.int32]
    entry: NDArray[np.int32]
    orbitals: NDArray[np.float32]
    energies: NDArray[np.float32]
    n_occupied: NDArray[np.int64]

    @property
    def n_blocks(self) -> int:
        """Cost of the sample: diagonal and pair blocks."""
        return len(self.diagonal) + len(self.pair)


def make_sample(frame: Frame, basis: AOBasis, reference: Reference) -> Sample:
    """Evaluate the reference and cut everything into coefficients."""
    structure = frame.structure
    data = integrals(structure, basis.name)
    result = reference.evaluate(surroundings(structure, data, reference.exponents))
    block_map = BlockMap.of(structure.numbers, basis)
    encoder = Encoder(basis)
    target = frame.fock - result.hamiltonian
    diagonal, pair = encoder.encode(input_matrices(data.overlap, result), block_map)
    target_diagonal, target_pair = encoder.encode([target], block_map)
    energies, orbitals = scipy.linalg.eigh(frame.fock, data.overlap)
    single = np.float32
    return Sample(
        numbers=structure.numbers,
        positions=structure.positions_angstrom,
        diagonal=diagonal.astype(single),
        pair=pair.astype(single),
        target_diagonal=target_diagonal[:, 0].astype(single),
        target_pair=target_pair[:, 0].astype(single),
        target=target.astype(single),
        block=block_map.block.astype(np.int32),
        entry=block_map.entry.astype(np.int32),
        orbitals=orbitals.astype(single),
        energies=energies.astype(single),
        n_occupied=np.array([structure.n_electrons // 2]),
    )


def make_samples(
    frames: Sequence[Frame], basis: AOBasis, reference: Reference, *, cache: Path | None, processes: int
) -> list[Sample]:
    """Samples of many frames, in order; read from ``cache`` where they were made before.

    Args:
        cache: folder, made if needed; None keeps nothing.
        processes: worker processes.
    """
    key = hashlib.sha256(basis.fingerprint.encode())
    if isinstance(reference, FittedReference):
        key.update(np.concatenate([reference.exponents, reference.step1, reference.step2]).tobytes())
    for frame in frames:
        key.update(f"{frame.molecule}/{frame.index};".encode())
        key.update(frame.structure.positions_angstrom.tobytes())
    path = None if cache is None else cache / f"{key.hexdigest()[:16]}.npz"
    if path is not None and path.is_file():
        return _load(path)
    work = partial(make_sample, basis=basis, reference=reference)
    samples = list(parallel_map(work, frames, total=len(frames), processes=processes, title="samples", chunk=8))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(path, samples)
    return samples


def _save(path: Path, samples: Sequence[Sample]) -> None:
    arrays = {
        f"{index}/{field.name}": getattr(sample, field.name)
        for index, sample in enumerate(samples)
        for field in fields(Sample)
    }
    partial_path = path.with_suffix(".part.npz")
    np.savez(partial_path, **arrays)
    partial_path.replace(path)


def _load(path: Path) -> list[Sample]:
    names = [field.name for field in fields(Sample)]
    with np.load(path, allow_pickle=False) as data:
        count = len(data.files) // len(names)
        return [Sample(**{name: data[f"{index}/{name}"] for name in names}) for index in range(count)]


@dataclass(frozen=True)
class Batch:
    """Samples as tensors on the device.

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


def collate(samples: Sequence[Sample], *, cutoff_angstrom: float, template: int, device: torch.device) -> Batch:
    """Samples of one step as a batch."""
    graph = build_graph(
        [Structure(sample.numbers, sample.positions) for sample in samples],
        cutoff_angstrom=cutoff_angstrom,
        device=device,
    )
    count = len(samples)
    width = max(len(sample.energies) for sample in samples)
    n_occ = max(int(sample.n_occupied[0]) for sample in samples)
    n_virt = max(len(sample.energies) - int(sample.n_occupied[0]) for sample in samples)
    target = np.zeros((count, width, width), dtype=np.float32)
    index = np.zeros((count, width, width), dtype=np.int64)
    mask = np.zeros((count, width, width), dtype=np.float32)
    occupied = np.zeros((count, width, n_occ), dtype=np.float32)
    virtual = np.zeros((count, width, n_virt), dtype=np.float32)
    inverse = np.zeros((count, n_occ, n_virt), dtype=np.float32)
    atoms = pairs = 0
    total_atoms = graph.n_atoms
    for row, sample in enumerate(samples):
        n, o = len(sample.energies), int(sample.n_occupied[0])
        target[row, :n, :n] = sample.target
        own_atoms = len(sample.numbers)
        shift = np.where(sample.block < own_atoms, atoms, total_atoms + pairs - own_atoms)
        index[row, :n, :n] = (sample.block + shift) * template**2 + sample.entry
        mask[row, :n, :n] = 1.0
        occupied[row, :n, :o] = sample.orbitals[:, :o]
        virtual[row, :n, : n - o] = sample.orbitals[:, o:]
        inverse[row, :o, : n - o] = 1.0 / (sample.energies[None, o:] - sample.energies[:o, None])
        atoms += own_atoms
        pairs += len(sample.pair)

    def tensor(array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(device)

    return Batch(
        graph=graph,
        inputs=InputCoefficients(
            tensor(np.concatenate([sample.diagonal for sample in samples])),
            tensor(np.concatenate([sample.pair for sample in samples])),
        ),
        target_diagonal=tensor(np.concatenate([sample.target_diagonal for sample in samples])),
        target_pair=tensor(np.concatenate([sample.target_pair for sample in samples])),
        target=tensor(target),
        index=tensor(index),
        mask=tensor(mask),
        occupied=tensor(occupied),
        virtual=tensor(virtual),
        inverse_gaps=tensor(inverse),
        n_occupied=torch.tensor([float(sample.n_occupied[0]) for sample in samples], device=device),
    )
