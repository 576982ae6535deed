"""The bands term: an error of -H has the label's own levels as its matrix, at any k, and one of -S is a shift of all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.typing import NDArray

from model.architectures.registry import ARCHITECTURES
from model.blocks.block_set import BlockSet, Spin
from model.blocks.matrices import BlochSum
from model.electronic.fermi import SMEARING_HARTREE
from model.electronic.kinetic_damping import KineticDamping
from model.electronic.overlap import OverlapFactor
from model.hamiltonian_model import HamiltonianModel
from model.network_config import NetworkConfig
from model.preparation import PairRule
from training.data import sources
from training.data.frame import DatasetError, Frame
from training.fit.config import ConfigError, LossConfig, read_run
from training.fit.losses.bands import WIDTH_HARTREE, BandsTerm
from training.fit.losses.density import DensityTerm
from training.fit.losses.errors import BatchErrors
from training.fit.losses.objective import Objective
from training.fit.run import fit
from training.fit.samples import join, make_samples
from training.fit.settings import refuse_other_settings, settings_of
from training.fit.state import BEST_FILE, read_tensors

from .test_crystal_training import LABEL_CUTOFF_ANGSTROM, SPACE, Crystals, crystal, write_run

TERM = BandsTerm(1.0)
LOSS = LossConfig(guess=0.0, trace=0.0, bands=1.0)


def frame_of(seed: int) -> Frame:
    """A crystal whose overlap is near the unit matrix."""
    frame = crystal(seed, "restricted")
    assert frame.overlap is not None
    values = 0.1 * frame.overlap.values
    on_site = frame.overlap.pairs.distances_angstrom < 1e-9
    for group in frame.overlap.groups:
        for entries in group.entries[on_site[group.pairs]]:
            values[0, np.diagonal(entries)] += 1.0
    return replace(frame, overlap=frame.overlap.with_values(values))


class Overlapping(Crystals):
    """Crystals with overlaps that are positive."""

    def frame(self, index: int, split: str) -> Frame:
        return frame_of(index)


@pytest.fixture(scope="module")
def model() -> HamiltonianModel:
    tiny: Any = ARCHITECTURES["qhnetv2"].tiny
    config = NetworkConfig.from_mapping({**tiny, "qhnetv2": tiny["qhnetv2"] | {"n_inputs": 1}})
    pairs = PairRule({f"{a}-{b}": LABEL_CUTOFF_ANGSTROM for a in "BHN" for b in "BHN" if a <= b})
    return HamiltonianModel(config, SPACE, inputs=("overlap",), source="given", pairs=pairs)


def negative(
    model: HamiltonianModel, frames: list[Frame], states_of: list[Frame], loss: LossConfig = LOSS
) -> BatchErrors:
    """Errors of a network that says zero: minus the labels; beside states of other ones."""
    objective = Objective.of(model, loss)
    labels, states = (
        join(make_samples(them, model.preparer, objective.terms, cache=None, processes=0))
        for them in (frames, states_of)
    )
    return objective.errors(
        replace(labels, extras=states.extras), torch.zeros(labels.graph.n_blocks, *model.standardisation.shape)
    )


def expected(frame: Frame, vectors: NDArray[np.float64], power: int) -> float:
    """Of an error -H (power 1) or -S (0): mean over k, 1/Å, of sqrt(sum e^2 g^4 / sum g^2)."""
    assert frame.overlap is not None
    structure, n_occupied = frame.structure, SPACE.count_electrons(frame.structure.numbers) // 2
    cell = structure.cell_angstrom
    assert cell is not None
    found = []
    for vector in vectors:
        k = cell @ vector / (2 * np.pi)
        energies = scipy.linalg.eigvalsh(BlochSum(frame.hamiltonian)(k), BlochSum(frame.overlap)(k))
        fermi = 0.5 * (energies[n_occupied - 1] + energies[n_occupied])
        shares = 1 / (1 + np.abs(energies - fermi) / WIDTH_HARTREE)
        found.append(np.sqrt(np.sum(energies ** (2 * power) * shares**4) / np.sum(shares**2)))
    return float(np.mean(found))


@pytest.mark.parametrize("power", [1, 0])
def test_the_term_is_the_error_of_levels_at_k(model: HamiltonianModel, power: int) -> None:
    """The states of a label make its own H diagonal, and S the unit matrix: any wrong phase, sign or order mixes them."""
    frames = [frame_of(index) for index in range(3)]
    wrong = frames if power else [replace(frame, hamiltonian=frame.overlap) for frame in frames]
    errors = negative(model, wrong, frames)
    found = TERM.levels(errors).tolist()
    for frame, vectors, value in zip(frames, errors.extras["k_vectors"].numpy(), found, strict=True):
        assert np.abs(vectors[0, :2]).min() > 1e-3, "a general point of the zone"
        assert np.abs(vectors[:, 2]).max() < 1e-6, "none across a slab"
        assert value == pytest.approx(expected(frame, vectors, power), rel=1e-4)


def test_the_second_point_is_where_frontier_states_are_nearest_to_each_other(model: HamiltonianModel) -> None:
    for index in range(3):
        frame = frame_of(index)
        errors = negative(model, [frame], [frame])
        cell, n_occupied = frame.structure.cell_angstrom, SPACE.count_electrons(frame.structure.numbers) // 2
        assert cell is not None
        assert frame.overlap is not None
        h_at, s_at = BlochSum(frame.hamiltonian), BlochSum(frame.overlap)

        def gap(k: NDArray[np.float64], h_at: BlochSum = h_at, s_at: BlochSum = s_at, n: int = n_occupied) -> float:
            energies = scipy.linalg.eigvalsh(h_at(k.tolist()), s_at(k.tolist()))
            return float(energies[n] - energies[n - 1])

        meshes = [np.array([a, b, 0]) / count for count in (2, 3) for a in range(count) for b in range(count)]
        taken = cell @ errors.extras["k_vectors"].numpy()[0, 1] / (2 * np.pi)
        assert gap(taken) == pytest.approx(min(map(gap, meshes)), abs=1e-6)


def test_structures_of_a_batch_do_not_touch_each_other(model: HamiltonianModel) -> None:
    frames = [frame_of(index) for index in range(3)]
    whole = TERM.levels(negative(model, frames, frames))
    alone = [TERM.levels(negative(model, [frame], [frame])) for frame in frames]
    torch.testing.assert_close(whole, torch.cat(alone))


def test_a_run_with_the_term_trains_and_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources.FORMATS, "test", lambda path: Overlapping("restricted"))  # type: ignore[arg-type]
    config = read_run(write_run(tmp_path, "guess = 0.0\nbands = 0.5\nbands_from = 0.4"))
    fit(config)
    lines = [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]
    assert 0 < lines[-1]["bands_uEh"] < lines[0]["bands_uEh"]
    _, kept = read_tensors(config.output / BEST_FILE)
    assert int(kept["step"]) == min(lines, key=lambda line: float(line["bands_uEh"]))["step"], "the best by bands"


@pytest.mark.parametrize("spin", ["spinor", "unrestricted"])
def test_labels_with_spin_are_refused(spin: Spin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources.FORMATS, "test", lambda path: Crystals(spin))  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=r"bn/\d is not a crystal with paired spins and an overlap"):
        fit(read_run(write_run(tmp_path, "guess = 0.0\nbands = 1.0")))


def test_a_setting_younger_than_a_saved_state_had_its_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources.FORMATS, "test", lambda path: Crystals("restricted"))  # type: ignore[arg-type]
    config = read_run(write_run(tmp_path, "guess = 0.0"))
    stored = settings_of(config)
    del stored["loss"]["bands"]
    refuse_other_settings(stored, config)
    with pytest.raises(ConfigError, match=r"\[loss\]\.bands was 0\.0, is 1\.0"):
        refuse_other_settings(stored, replace(config, loss=replace(config.loss, bands=1.0)))


def test_a_damped_spectrum_is_not_judged_by_what_is_left_out(model: HamiltonianModel) -> None:
    """Oracle: KineticDamping of the error itself, as if there were no kinetic energy."""
    term = BandsTerm(1.0, damping=0.3)
    assert term.name != TERM.name, "cached samples of another damping are others"
    frames = [frame_of(index) for index in range(2)]
    errors = negative(model, frames, frames, replace(LOSS, bands_damping=0.3))
    found = term.levels(errors).tolist()
    for frame, vectors, value in zip(frames, errors.extras["k_vectors"].numpy(), found, strict=True):
        assert frame.overlap is not None
        assert frame.structure.cell_angstrom is not None
        damping = KineticDamping(BlockSet.zeros(SPACE, frame.structure.numbers, frame.hamiltonian.pairs), 0.3)
        expected = []
        for k in vectors @ frame.structure.cell_angstrom.T / (2 * np.pi):
            h, s = BlochSum(frame.hamiltonian)(k), BlochSum(frame.overlap)(k)
            energies, states = scipy.linalg.eigh(h, s)
            n_occupied = SPACE.count_electrons(frame.structure.numbers) // 2
            shares = 1 / (1 + np.abs(energies - 0.5 * energies[n_occupied - 1 : n_occupied + 1].sum()) / WIDTH_HARTREE)
            mixed = shares[:, None] * (states.conj().T @ damping(h, OverlapFactor.of(s), k) @ states) * shares
            expected.append(np.linalg.norm(mixed) / np.linalg.norm(shares))
        assert value == pytest.approx(np.mean(expected), rel=1e-4)


def density_change(frame: Frame, other: BlockSet, k: Any, fermi: float) -> NDArray[np.complex128]:
    """Derivative of D(k) of H + x dH by x at 0, by central differences; in orthonormal orbitals."""
    assert frame.overlap is not None
    overlap = BlochSum(frame.overlap)(k)
    root = np.linalg.inv(np.linalg.cholesky(overlap))

    def density(step: float) -> NDArray[np.complex128]:
        matrix = root @ (BlochSum(frame.hamiltonian)(k) + step * BlochSum(other)(k)) @ root.conj().T
        energies, states = np.linalg.eigh(matrix)
        return (states / (1 + np.exp((energies - fermi) / SMEARING_HARTREE))) @ states.conj().T

    step = 1e-7
    return (density(step) - density(-step)) / (2 * step)


def test_the_density_term_is_the_first_order_change_of_the_density(model: HamiltonianModel) -> None:
    """Oracle: finite differences of D(k). The Fermi level stays, and so do fillings: they are no part of the term."""
    loss = LossConfig(guess=0.0, trace=0.0, density=1.0)
    fermi = [0.03, -0.1]
    frames = [replace(frame_of(index), fermi_energy_hartree=level) for index, level in enumerate(fermi)]
    shuffled = [frame.hamiltonian.with_values(np.roll(frame.hamiltonian.values, 1, axis=1)) for frame in frames]
    others = [replace(frame, hamiltonian=blocks.hermitised()) for frame, blocks in zip(frames, shuffled, strict=True)]
    errors = negative(model, others, frames, loss)
    found = DensityTerm(1.0)(errors).tolist()
    for frame, other, level, vectors, value in zip(
        frames, others, fermi, errors.extras["k_vectors"].numpy(), found, strict=True
    ):
        assert frame.overlap is not None
        assert frame.structure.cell_angstrom is not None
        expected = []
        for k in vectors @ frame.structure.cell_angstrom.T / (2 * np.pi):
            change = density_change(frame, other.hamiltonian, k, level)
            overlap = BlochSum(frame.overlap)(k)
            _, states = scipy.linalg.eigh(BlochSum(frame.hamiltonian)(k), overlap)
            own = np.linalg.cholesky(overlap).conj().T @ states
            mixed = own.conj().T @ change @ own
            n_bands = SPACE.count_electrons(frame.structure.numbers) // 2
            expected.append(100 * np.linalg.norm(np.triu(mixed, 1)) / np.sqrt(n_bands))
        assert value == pytest.approx(np.mean(expected), rel=1e-3)


def test_a_run_with_the_density_term_trains_and_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources.FORMATS, "test", lambda path: Overlapping("restricted"))  # type: ignore[arg-type]
    config = read_run(write_run(tmp_path, "guess = 0.0\nbands = 0.1\ndensity = 0.5"))
    fit(config)
    lines = [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]
    assert 0 < lines[-1]["density_percent"] < lines[0]["density_percent"]
