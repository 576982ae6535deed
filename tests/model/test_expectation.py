"""The error to expect: calibrated where the truth is known, absent out of the domain, refused of other weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.linalg

from model.checkpoint.expectation import FILE, read_expectation
from model.electronic.comparison import density_mixing
from model.errors import CheckpointError
from model.predictor import Predictor
from model.structure import Structure
from training.expectation import Case, fit_expectation

SHA = "0" * 64


def drawn(generator: np.random.Generator, count: int) -> list[Case]:
    """Errors and cycles that follow a law of two signs, with noise; a third sign tells nothing."""
    cases = []
    for number in range(count):
        a, b, c = generator.normal(size=3)
        log = -7.0 + 0.5 * a - 0.3 * b + 0.2 * generator.normal()
        ratio = 1.0 + 0.05 * log + 0.03 * generator.normal()
        cases.append(Case(f"m{number}", {"a": a, "b": b, "c": c}, float(np.exp(log)), ratio))
    return cases


def test_the_fit_finds_the_law_and_its_intervals_hold_nine_of_ten() -> None:
    generator = np.random.default_rng(3)
    found = fit_expectation(drawn(generator, 150), weights_sha256=SHA, fitted_on="drawn")
    assert np.allclose(np.divide(found.weights, found.scales), [0.5, -0.3, 0.0], atol=0.06)
    assert found.cycles_slope == pytest.approx(0.05, abs=0.02)
    inside_error, inside_cycles = 0, 0
    for case in (fresh := drawn(generator, 1000)):
        expected = found.expect(case.signs)
        error, ratio = expected.density_error_per_electron, expected.cycles_ratio
        assert error.lower < error.value < error.upper
        assert case.error is not None
        assert case.cycles_ratio is not None
        inside_error += error.lower <= case.error <= error.upper
        inside_cycles += ratio.lower <= case.cycles_ratio <= ratio.upper
    assert 0.84 < inside_error / len(fresh) < 0.96
    assert 0.84 < inside_cycles / len(fresh) < 0.96


def test_few_molecules_are_refused() -> None:
    with pytest.raises(ValueError, match="9 molecules are too few"):
        fit_expectation(drawn(np.random.default_rng(1), 9), weights_sha256=SHA, fitted_on="drawn")


def test_the_default_expects_more_of_the_usual_than_of_the_rare(
    molecule: Callable[[str], Structure], released: Predictor
) -> None:
    """Cyanogen's triple bonds side by side are its known weakness; out of the domain nothing is said."""
    usual, rare = (released.predict([molecule(name)])[0].expected for name in ("C2H6", "NCCN"))
    assert usual is not None
    assert rare is not None
    assert rare.density_error_per_electron.lower > usual.density_error_per_electron.upper
    assert rare.cycles_ratio.value > usual.cycles_ratio.value
    assert 0.3 < usual.cycles_ratio.lower < usual.cycles_ratio.value < usual.cycles_ratio.upper < 1.0
    water = molecule("H2O")
    wrong_unit = released.predict([Structure(water.numbers, 1.89 * water.positions_angstrom)])[0]
    assert not wrong_unit.in_domain
    assert wrong_unit.expected is None
    assert released.predict([water], orbitals=False)[0].expected is None


def test_the_truth_lies_inside_as_often_as_promised(released: Predictor, data_file: Path) -> None:
    """Fourteen molecules of a split that nothing was fitted to: true errors against the converged Fock matrices."""
    ratios, inside = [], 0
    with h5py.File(data_file) as file:
        names = [name for name in file if file[name].attrs["split"] == "ood67"][::2]
        for name in names:
            group = file[name]
            answer = released.predict([Structure(group["atomic_numbers"][:].astype(int), group["positions"][0])])[0]
            assert answer.guess is not None
            assert answer.expected is not None
            lower = np.zeros(answer.overlap.shape)
            lower[np.tril_indices(len(lower))] = group["fock_tril"][0]
            _, label = scipy.linalg.eigh(lower + np.tril(lower, -1).T, answer.overlap)
            n = answer.guess.orbitals.n_occupied
            error = density_mixing(answer.guess.density_matrix, answer.overlap, label, n) / np.sqrt(n)
            expected = answer.expected.density_error_per_electron
            inside += expected.lower <= error <= expected.upper
            ratios.append(error / expected.value)
    assert inside >= 0.75 * len(names)
    assert 0.8 < np.exp(np.mean(np.log(ratios))) < 1.25


@pytest.mark.parametrize(
    ("change", "message"),
    [({"weights_sha256": SHA}, "not of these"), ({"scales": []}, "cannot be read"), ({"more": 1}, "cannot be read")],
)
def test_a_file_of_other_weights_or_shape_is_refused(
    change: dict[str, object], message: str, released: Predictor, tmp_path: Path
) -> None:
    stored = json.loads((released.folder / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(stored | change))
    with pytest.raises(CheckpointError, match=message):
        read_expectation(tmp_path, released.card.weights_sha256)


def test_unknown_signs_are_refused_and_no_file_is_no_expectation(released: Predictor, tmp_path: Path) -> None:
    assert read_expectation(tmp_path, released.card.weights_sha256) is None
    shutil.copy(released.folder / FILE, tmp_path)
    found = read_expectation(tmp_path, released.card.weights_sha256)
    assert found is not None
    with pytest.raises(CheckpointError, match="'correction', which this program does not know"):
        found.expect({})
