"""The loss: its density term is what a perturbation of the Fock matrix really does to the density."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from model.blocks.spaces import BlockSpace
from model.hamiltonian_model import HamiltonianModel
from model.integrals.pyscf_molecule import integrals
from model.network_config import NetworkConfig
from model.orbitals.space import OrbitalSpace
from model.reference.fitted import FittedReference
from training.data.sources import Frame
from training.fit import statistics
from training.fit.config import LossConfig
from training.fit.losses.errors import BatchErrors
from training.fit.losses.guess import GuessTerm
from training.fit.losses.objective import Objective, terms_of
from training.fit.losses.spectral import N_EMPTY_LEVELS, SpectralTerm
from training.fit.samples import Batch, Sample, join

from .test_samples import errors_of, standard_order

STEP = 1e-4
"""Of the finite difference, hartree."""

STORED = Path(__file__).parent / "stored" / "loss_values.json"
"""Values of version 0.6.0 for the tiny data set and a pseudo-random error, two batches of four frames."""


def symmetric(size: int, rng: np.random.Generator) -> np.ndarray:
    matrix = rng.normal(size=(size, size))
    return matrix + matrix.T


def errors_by(change: np.ndarray, index: int, frame: Frame, batch: Batch, space: OrbitalSpace) -> BatchErrors:
    """Errors of a batch in which one molecule's matrix is wrong by ``change`` (program's order), the others right."""
    errors = errors_of(batch, space, torch.zeros(batch.graph.n_blocks, 1, space.template_size, space.template_size))
    matrix = torch.zeros_like(errors.matrix)
    order = standard_order(frame, space)
    matrix[index, : len(order), : len(order)] = torch.from_numpy(change[np.ix_(order, order)]).float()
    # the cached matrix is what all terms of orbitals read
    errors.__dict__["matrix"] = matrix
    return errors


GUESS, SPECTRAL = GuessTerm(1.0), SpectralTerm(1.0)


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
    found = GUESS.measures(errors_by(change, index, frame, join(tiny_samples), basis))
    expected = float(np.linalg.norm(block))
    assert float(found["density"][index]) == pytest.approx(expected, rel=1e-3)
    assert float(found["density_per_electron"][index]) == pytest.approx(expected / np.sqrt(n_occupied), rel=1e-3)
    others = [row for row in range(len(tiny_samples)) if row != index]
    assert float(found["density"][others].max()) < 1e-7, "padding and neighbours do not leak"


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
    found = GUESS.measures(errors_by(change, index, frame, join(tiny_samples), basis))
    assert float(found["density"][index]) < 1e-4 * np.abs(change).mean()


@pytest.fixture(scope="module")
def model(tiny_samples: list[Sample], basis: OrbitalSpace, tiny_reference: FittedReference) -> HamiltonianModel:
    sizes = {"node_channels": 8, "pair_channels": 8, "node_layers": 1, "pair_layers": 1, "hidden": 16}
    torch.manual_seed(0)
    config = NetworkConfig.from_mapping({"backbone": "qhnet", "qhnet": sizes})
    model = HamiltonianModel(config, basis, reference=tiny_reference)
    statistics.fill(model.standardisation, tiny_samples, basis)
    return model


@pytest.fixture(scope="module")
def batch(tiny_samples: list[Sample]) -> Batch:
    return join(tiny_samples)


def loss(
    model: HamiltonianModel, batch: Batch, config: LossConfig, step: int = 0, progress: float = 1.0
) -> tuple[torch.Tensor, dict[str, float]]:
    return Objective.of(model, config)(batch, step, progress)


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
    found = SPECTRAL.levels(errors_by(change, index, frame, join(tiny_samples), basis))
    if np.diff(scipy.linalg.eigvalsh(frame.fock, overlap)[: counted + 1]).min() < 100 * STEP:
        pytest.skip("degenerate levels turn into each other; their sum, not each, is first order")
    assert float(found[index]) == pytest.approx(expected, rel=1e-2)


def test_trace_term_is_balanced_and_ramped(model: HamiltonianModel, batch: Batch) -> None:
    """mu makes the trace term as large as the main one: L = (1 + ramp * lambda) L_Q, whatever the trace error is."""
    main, _ = loss(model, batch, LossConfig(trace=0.0), step=0)
    for step, ramp in ((0, 0.0), (5, 0.5), (10, 1.0), (1000, 1.0)):
        total, found = loss(model, batch, LossConfig(trace=0.3, trace_ramp_steps=10), step=step)
        assert float(total.detach()) == pytest.approx((1 + 0.3 * ramp) * float(main.detach()), rel=1e-5)
        assert found["trace"] > 0


def test_main_loss_is_the_weighted_sum_of_the_reported_errors(model: HamiltonianModel, batch: Batch) -> None:
    only_mae, found = loss(model, batch, LossConfig(mae=2.0, rmse=0.0, guess=0.0, trace=0.0), 0)
    assert float(only_mae.detach()) == pytest.approx(2.0 * found["mae_uEh"] / 1000, rel=1e-5)
    only_guess, found = loss(model, batch, LossConfig(mae=0.0, rmse=0.0, guess=3.0, trace=0.0), 0)
    assert float(only_guess.detach()) == pytest.approx(300.0 * found["density_per_electron"], rel=1e-5)


def test_terms_that_enter_late(model: HamiltonianModel, batch: Batch) -> None:
    config = LossConfig(trace=0.0, guess=2.0, guess_from=0.5, spectral=1.0, spectral_from=0.8)
    early, found = loss(model, batch, config, 0, 0.4)
    middle, _ = loss(model, batch, config, 0, 0.5)
    late, _ = loss(model, batch, config, 0, 0.9)
    assert float((middle - early).detach()) == pytest.approx(200.0 * found["density_per_electron"], rel=1e-4)
    assert float((late - middle).detach()) == pytest.approx(found["levels_uEh"] / 1000, rel=1e-3)


def test_gradients_are_finite_for_a_perfect_prediction(batch: Batch, basis: OrbitalSpace) -> None:
    """Norms are not squared, so zero error is a kink; it must not give NaN."""
    shape = batch.graph.n_blocks, 1, basis.template_size, basis.template_size
    blocks = torch.zeros(shape, requires_grad=True)
    errors = errors_of(batch, basis, blocks)
    (errors.mae + errors.rmse + GUESS(errors) + SPECTRAL(errors)).sum().backward()
    assert blocks.grad is not None
    assert bool(blocks.grad.isfinite().all())


@pytest.mark.parametrize("number", [0, 1])
def test_values_and_gradients_are_those_of_the_earlier_loss(
    number: int, tiny_samples: list[Sample], basis: OrbitalSpace
) -> None:
    """Oracle: stored numbers of the code that assembled whole matrices; to rounding of float32 and of the labels' SCF."""
    stored = json.loads(STORED.read_text(encoding="utf-8"))[number]
    batch = join([tiny_samples[index] for index in stored["frames"]])
    transform = torch.from_numpy(BlockSpace.of(basis.template).matrix).float()
    noise = np.random.default_rng(number).normal(size=(batch.graph.n_blocks, transform.shape[1]))
    coefficients = torch.from_numpy(1e-3 * noise).float().requires_grad_()
    blocks = (coefficients @ transform.T).unflatten(1, (1, basis.template_size, basis.template_size))
    errors = errors_of(batch, basis, blocks)
    density = GUESS.measures(errors)
    for name, value in {"mae": errors.mae, "rmse": errors.rmse, **density, "levels": SPECTRAL.levels(errors)}.items():
        assert value.tolist() == pytest.approx(stored[name], rel=2e-5), name
    for name, config in (
        ("default", LossConfig(mae=1.0, rmse=1.0, guess=3.0)),
        ("all", LossConfig(mae=1.0, rmse=0.5, mse=2.0, guess=1.0, spectral=2.0)),
    ):
        total = torch.stack([term.weight(1.0) * term(errors) for term in terms_of(config)]).sum(dim=0).mean()
        (gradient,) = torch.autograd.grad(total, coefficients, retain_graph=True)
        assert float(total.detach()) == pytest.approx(stored[name]["loss"], rel=2e-5)
        assert float(gradient.double().norm()) == pytest.approx(stored[name]["gradient_norm"], rel=1e-4)
