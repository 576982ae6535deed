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
from numpy.typing import NDArray

from model.blocks.assemble import BlockMap
from model.blocks.spaces import BlockSpace
from model.blocks.standardise import Encoder
from model.orbitals.space import OrbitalSpace
from model.preparation import Preparer
from model.reference.fitted import FittedReference, Reference
from training.data.sources import Frame
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


def make_sample(frame: Frame, basis: OrbitalSpace, reference: Reference) -> Sample:
    """Evaluate the reference and cut everything into coefficients."""
    structure = frame.structure
    preparer = Preparer(basis, BlockSpace.of(basis.template), cutoff_angstrom=15.0, reference=reference)
    prepared = preparer(structure)
    assert prepared.reference is not None
    block_map = BlockMap.of(structure.numbers, preparer.space)
    target = frame.fock - prepared.reference.hamiltonian
    target_diagonal, target_pair = Encoder(preparer.block_space).encode([target], prepared.blocks)
    energies, orbitals = scipy.linalg.eigh(frame.fock, np.asarray(prepared.integrals.overlap))
    single = np.float32
    return Sample(
        numbers=structure.numbers,
        positions=structure.positions_angstrom,
        diagonal=prepared.on_site.astype(single),
        pair=prepared.pair.astype(single),
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
    frames: Sequence[Frame], basis: OrbitalSpace, reference: Reference, *, cache: Path | None, processes: int
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
        state = (frame.structure.charge, frame.structure.multiplicity)
        key.update(f"{frame.molecule}/{frame.index} {state};".encode())
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
