"""Samples and batches: nothing of F - H0 is lost between the matrix, its coefficients and the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.blocks.assemble import gather
from model.blocks.spaces import BlockSpace
from model.integrals.pyscf_molecule import integrals
from model.orbitals.space import OrbitalSpace
from model.reference.fitted import FittedReference
from training.data.sources import Frame
from training.fit.resident import collate
from training.fit.samples import Sample, make_samples

SINGLE = 2e-6
"""Rounding of float32 entries up to some 20 hartree, through two changes of basis."""


def test_target_coefficients_of_a_batch_assemble_to_fock_less_reference(
    tiny_frames: list[Frame], tiny_samples: list[Sample], basis: OrbitalSpace, tiny_reference: FittedReference
) -> None:
    batch = collate(tiny_samples, cutoff_angstrom=15.0, template=basis.template_size, device=torch.device("cpu"))
    transform = torch.from_numpy(BlockSpace.of(basis.template).matrix).float()
    coefficients = torch.cat([batch.target_diagonal, batch.target_pair])
    blocks = (coefficients @ transform.T).unflatten(1, (basis.template_size, basis.template_size))
    assembled = (gather(blocks, batch.index) * batch.mask).numpy()
    width = assembled.shape[1]
    for row, frame in enumerate(tiny_frames):
        data = integrals(frame.structure, basis.name)
        around = data
        expected = np.zeros((width, width))
        size = len(frame.fock)
        expected[:size, :size] = frame.fock - tiny_reference.evaluate(around).hamiltonian
        assert np.abs(assembled[row] - expected).max() < SINGLE
        assert np.abs(batch.target[row].numpy() - expected).max() < SINGLE
        assert int(batch.mask[row].sum()) == size**2


def test_batch_orbitals_diagonalise_the_fock_matrix(tiny_frames: list[Frame], tiny_samples: list[Sample]) -> None:
    for frame, sample in zip(tiny_frames, tiny_samples, strict=True):
        orbitals = sample.orbitals.astype(np.float64)
        overlap = integrals(frame.structure, "def2-svp").overlap
        identity = np.eye(len(overlap))
        assert np.abs(orbitals.T @ overlap @ orbitals - identity).max() < 1e-5
        assert np.abs(orbitals.T @ frame.fock @ orbitals - np.diag(sample.energies)).max() < 1e-4
        assert int(sample.n_occupied[0]) == int(frame.structure.numbers.sum()) // 2


def test_the_cache_gives_back_the_same_samples_and_only_for_the_same_frames(
    tiny_frames: list[Frame],
    tiny_samples: list[Sample],
    basis: OrbitalSpace,
    tiny_reference: FittedReference,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few, expected = tiny_frames[:2], tiny_samples[:2]
    make_samples(few, basis, tiny_reference, cache=tmp_path, processes=0)
    with monkeypatch.context() as patch:
        patch.setattr("training.fit.samples.make_sample", None)  # a second making would fail
        again = make_samples(few, basis, tiny_reference, cache=tmp_path, processes=0)
    for one, other in zip(expected, again, strict=True):
        for name in ("diagonal", "pair", "target", "orbitals", "block", "entry", "positions"):
            assert np.array_equal(getattr(one, name), getattr(other, name))
    make_samples(tiny_frames[1:2], basis, tiny_reference, cache=tmp_path, processes=0)
    assert len(list(tmp_path.iterdir())) == 2
