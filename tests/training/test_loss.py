"""The loss: its density term is what a perturbation of the Fock matrix really does to the density."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from model.blocks.standardise import Standardisation
from model.integrals.pyscf_molecule import integrals
from model.network import HamiltonianNetwork
from model.network_config import NetworkConfig
from model.orbitals.space import OrbitalSpace
from model.preparation import INPUTS
from training.data.sources import Frame
from training.fit import statistics
from training.fit.config import LossConfig
from training.fit.loss import N_EMPTY_LEVELS, errors, loss
from training.fit.resident import Batch, collate
from training.fit.samples import Sample

STEP = 1e-4
"""Of the finite difference, hartree."""


def batch_of(samples: list[Sample], basis: OrbitalSpace) -> Batch:
    return collate(samples, cutoff_angstrom=15.0, template=basis.template_size, device=torch.device("cpu"))


def symmetric(size: int, rng: np.random.Generator) -> np.ndarray:
    matrix = rng.normal(size=(size, size))
    return matrix + matrix.T


def padded(matrix: np.ndarray, batch: Batch, row: int) -> Tensor:
    found = batch.target.clone()
    found[row, : len(matrix), : len(matrix)] += torch.from_numpy(matrix).float()
    return found


@pytest.mark.parametrize("index", range(0, 8, 2))
def test_density_error_is_the_change_of_density(
    index: int, tiny_frames: list[Frame], tiny_samples: list[Sample], basis: OrbitalSpace, rng: np.random.Generator
) -> None:
    """Oracle: diagonalise F + e dF and F - e dF. The density change's occupied-virtual part is what the term measures."""
    frame = tiny_frames[index]
    overlap = integrals(frame.structure, "def2-svp").overlap
    n_occupied = int(frame.structure.numbers.sum()) // 2
    change = symmetric(len(overlap), rng)

    def projector(matrix: np.ndarray) -> np.ndarray:
        occupied = scipy.linalg.eigh(matrix, overlap)[1][:, :n_occupied]
        return np.asarray(occupied @ occupied.T)

    derivative = (projector(frame.fock + STEP * change) - projector(frame.fock - STEP * change)) / (2 * STEP)
    orbitals = scipy.linalg.eigh(frame.fock, overlap)[1]
    block = orbitals[:, :n_occupied].T @ overlap @ derivative @ overlap @ orbitals[:, n_occupied:]
    batch = batch_of(tiny_samples, basis)
    found = errors(padded(change, batch, index), batch)
    expected = float(np.linalg.norm(block))
    assert float(found.density[index]) == pytest.approx(expected, rel=1e-3)
    assert float(found.density_per_electron[index]) == pytest.approx(expected / np.sqrt(n_occupied), rel=1e-3)
    assert float(found.mae[index]) == pytest.approx(np.abs(change).mean(), rel=1e-5)
    assert float(found.rmse[index]) == pytest.approx(np.sqrt((change**2).mean()), rel=1e-5)
    others = [row for row in range(len(tiny_samples)) if row != index]
    assert float(found.mae[others].max()) == 0.0, "padding and neighbours do not leak"


def test_a_change_that_mixes_no_occupied_with_virtual_orbitals_costs_no_density(
    tiny_frames: list[Frame], tiny_samples: list[Sample], basis: OrbitalSpace, rng: np.random.Generator
) -> None:
    index = 2
    frame = tiny_frames[index]
    overlap = integrals(frame.structure, "def2-svp").overlap
    orbitals = scipy.linalg.eigh(frame.fock, overlap)[1]
    n_occupied = int(frame.structure.numbers.sum()) // 2
    block = symmetric(len(overlap), rng)
    block[:n_occupied, n_occupied:] = block[n_occupied:, :n_occupied] = 0.0
    change = overlap @ orbitals @ block @ orbitals.T @ overlap
    batch = batch_of(tiny_samples, basis)
    found = errors(padded(change, batch, index), batch)
    assert float(found.density[index]) < 1e-4 * float(found.mae[index])


@pytest.fixture(scope="module")
def parts(tiny_samples: list[Sample], basis: OrbitalSpace) -> tuple[HamiltonianNetwork, Standardisation, Batch]:
    sizes = {"node_channels": 8, "pair_channels": 8, "node_layers": 1, "pair_layers": 1, "hidden": 16}
    torch.manual_seed(0)
    network = HamiltonianNetwork(NetworkConfig.from_mapping({"backbone": "qhnet", "qhnet": sizes}), basis)
    standardisation = Standardisation(basis, len(INPUTS))
    statistics.fill(standardisation, tiny_samples, basis)
    return network, standardisation, batch_of(tiny_samples, basis)


@pytest.mark.parametrize("index", range(0, 8, 3))
def test_level_error_is_the_change_of_orbital_energies(
    index: int, tiny_frames: list[Frame], tiny_samples: list[Sample], basis: OrbitalSpace, rng: np.random.Generator
) -> None:
    """Oracle: eigenvalues of F + e dF and F - e dF, for the occupied orbitals and the lowest empty ones."""
    frame = tiny_frames[index]
    overlap = integrals(frame.structure, "def2-svp").overlap
    counted = int(frame.structure.numbers.sum()) // 2 + N_EMPTY_LEVELS
    change = symmetric(len(overlap), rng)
    plus, minus = (scipy.linalg.eigvalsh(frame.fock + sign * STEP * change, overlap) for sign in (1, -1))
    expected = np.abs((plus - minus) / (2 * STEP))[:counted].mean()
    batch = batch_of(tiny_samples, basis)
    found = errors(padded(change, batch, index), batch)
    if np.diff(scipy.linalg.eigvalsh(frame.fock, overlap)[: counted + 1]).min() < 100 * STEP:
        pytest.skip("degenerate levels turn into each other; their sum, not each, is first order")
    assert float(found.levels[index]) == pytest.approx(expected, rel=1e-2)


def test_trace_term_is_balanced_and_ramped(parts: tuple[HamiltonianNetwork, Standardisation, Batch]) -> None:
    """mu makes the trace term as large as the main one: L = (1 + ramp * lambda) L_Q, whatever the trace error is."""
    network, standardisation, batch = parts
    main, _ = loss(network, standardisation, batch, LossConfig(trace=0.0), step=0)
    for step, ramp in ((0, 0.0), (5, 0.5), (10, 1.0), (1000, 1.0)):
        total, found = loss(network, standardisation, batch, LossConfig(trace=0.3, trace_ramp_steps=10), step=step)
        assert float(total.detach()) == pytest.approx((1 + 0.3 * ramp) * float(main.detach()), rel=1e-5)
        assert found["trace"] > 0


def test_main_loss_is_the_weighted_sum_of_the_reported_errors(
    parts: tuple[HamiltonianNetwork, Standardisation, Batch],
) -> None:
    network, standardisation, batch = parts
    only_mae, found = loss(network, standardisation, batch, LossConfig(mae=2.0, rmse=0.0, guess=0.0, trace=0.0), 0)
    assert float(only_mae.detach()) == pytest.approx(2.0 * found["mae_uEh"] / 1000, rel=1e-5)
    only_guess, found = loss(network, standardisation, batch, LossConfig(mae=0.0, rmse=0.0, guess=3.0, trace=0.0), 0)
    assert float(only_guess.detach()) == pytest.approx(300.0 * found["density_per_electron"], rel=1e-5)


def test_terms_that_enter_late(parts: tuple[HamiltonianNetwork, Standardisation, Batch]) -> None:
    network, standardisation, batch = parts
    config = LossConfig(trace=0.0, guess=2.0, guess_from=0.5, spectral=1.0, spectral_from=0.8)
    early, found = loss(network, standardisation, batch, config, 0, 0.4)
    middle, _ = loss(network, standardisation, batch, config, 0, 0.5)
    late, _ = loss(network, standardisation, batch, config, 0, 0.9)
    assert float((middle - early).detach()) == pytest.approx(200.0 * found["density_per_electron"], rel=1e-4)
    assert float((late - middle).detach()) == pytest.approx(found["levels_uEh"] / 1000, rel=1e-3)


def test_gradients_are_finite_for_a_perfect_prediction(tiny_samples: list[Sample], basis: OrbitalSpace) -> None:
    """Norms are not squared, so zero error is a kink; it must not give NaN."""
    batch = batch_of(tiny_samples, basis)
    predicted = batch.target.clone().requires_grad_()
    found = errors(predicted, batch)
    (found.mae + found.rmse + found.density_per_electron).sum().backward()
    assert predicted.grad is not None
    assert bool(predicted.grad.isfinite().all())
    assert float(found.density.detach().max()) < 1e-6
