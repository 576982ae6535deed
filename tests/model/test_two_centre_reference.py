"""The two-centre H0 of crystals: what it reproduces, what it obeys, and that it answers where its tables end."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from model.blocks.block_set import BlockSet, Spin, Values
from model.blocks.motions import turn, unfold
from model.errors import CheckpointError, IntegralError
from model.integrals.pyscf_crystal import CrystalIntegrals
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.reference.kinds import REFERENCE_KINDS
from model.reference.registry import REFERENCES
from model.reference.two_centre import TwoCentreReference
from model.structure import Structure

SPACE = OrbitalSpace("gth-szv", {5: (0, 1), 7: (0, 1)}, valence={5: 3, 7: 5})
CUTOFF = 6.0
ROUNDING = 1e-12


@dataclass
class Known:
    structure: Structure
    pairs: PairList


def sheet(seed: int, strain: float = 0.0) -> Structure:
    """A cell of boron nitride, shaken."""
    positions = np.array([[0.0, 0.0, 6.0], [1.25, 0.7217, 6.0]]) * [1 + strain, 1 + strain, 1.0]
    cell = np.array([[2.5, 0.0, 0.0], [-1.25, 2.165, 0.0], [0.0, 0.0, 12.0]]) * [1 + strain, 1 + strain, 1.0]
    shake = 0.06 * np.random.default_rng(seed).normal(size=(2, 3))
    return Structure(np.array([5, 7]), positions + shake, cell_angstrom=cell, pbc=(True, True, False))


def known(structure: Structure) -> Known:
    return Known(structure, PairList.within(structure, CUTOFF))


def label(structure: Structure) -> BlockSet:
    """T(R) of PySCF, which is made of two-centre integrals, as if it were H."""
    return CrystalIntegrals(structure, known(structure).pairs, SPACE).kinetic


@pytest.fixture(scope="module")
def reference() -> TwoCentreReference:
    structures = [sheet(seed, strain) for seed in range(12) for strain in (-0.03, -0.01, 0.01, 0.03)]
    return TwoCentreReference.fitted(SPACE, [label(structure) for structure in structures])


def of(reference: TwoCentreReference, structure: Structure) -> BlockSet:
    return reference.evaluate(known(structure)).hamiltonian


def test_a_matrix_of_two_centre_integrals_is_left_without_a_rest(reference: TwoCentreReference) -> None:
    new = sheet(99)
    rest = label(new).values - of(reference, new).values
    assert np.abs(rest).mean() < 2e-4 * np.abs(label(new).values).max()
    assert reference.evaluate(known(new)).density is None


def test_it_turns_with_the_crystal_and_is_that_of_a_supercell(reference: TwoCentreReference) -> None:
    structure = sheet(3)
    blocks = of(reference, structure)
    assert blocks.hermitian_error() < ROUNDING
    for matrix in (Rotation.random(random_state=1).as_matrix(), -Rotation.random(random_state=2).as_matrix()):
        moved = turn(blocks, matrix)
        assert structure.cell_angstrom is not None
        turned = replace(
            structure,
            positions_angstrom=structure.positions_angstrom @ matrix.T,
            cell_angstrom=structure.cell_angstrom @ matrix.T,
        )
        again = reference.evaluate(Known(turned, moved.pairs)).hamiltonian
        assert np.abs(again.values - moved.values).max() < 1e-10
    large = unfold(blocks, (2, 1, 1))
    assert structure.cell_angstrom is not None
    doubled = Structure(
        np.tile(structure.numbers, 2),
        np.concatenate([structure.positions_angstrom, structure.positions_angstrom + structure.cell_angstrom[0]]),
        cell_angstrom=structure.cell_angstrom * np.array([[2.0], [1.0], [1.0]]),
        pbc=structure.pbc,
    )
    again = reference.evaluate(Known(doubled, large.pairs)).hamiltonian
    assert np.abs(again.values - large.values).max() < 1e-10


def test_scatter_does_not_swing_between_fitted_distances() -> None:
    """Labels of surroundings scatter; between their distances the spline bridges, and does not leave their range."""
    rng = np.random.default_rng(0)
    labels = []
    for strain in (0.0, 0.2):  # nearest neighbours at 1.44 and 1.73 Å, nothing between
        for seed in range(8):
            own = label(sheet(seed, strain))
            labels.append(own.with_values(own.values + 0.02 * rng.normal(size=own.values.shape)).hermitised())
    scattered = TwoCentreReference.fitted(SPACE, labels)
    largest = max(np.abs(own.values).max() for own in labels)
    for strain in np.linspace(-0.02, 0.25, 12):
        assert np.abs(of(scattered, sheet(0, strain)).values).max() < 1.05 * largest


def test_closer_atoms_and_unknown_neighbours_are_answered(reference: TwoCentreReference) -> None:
    """They are another's to refuse: blocks stay as at the shortest distance, or zero."""

    def bond(numbers: list[int], distance: float, space: TwoCentreReference) -> NDArray[np.float64]:
        cell = np.diag([20.0, 20.0, 20.0])
        positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, distance]])
        structure = Structure(np.array(numbers), positions, cell_angstrom=cell, pbc=(True,) * 3)
        blocks = space.evaluate(known(structure)).hamiltonian
        first = blocks.pairs.first
        return np.asarray(blocks.block(int(np.flatnonzero(first != blocks.pairs.second)[0]))[0])

    shortest = reference.tables.pairs[5, 7].covered[0, 0]
    np.testing.assert_allclose(bond([5, 7], 0.5, reference), bond([5, 7], shortest, reference), atol=ROUNDING)
    assert np.abs(bond([5, 7], shortest, reference)).max() > 0.1
    alone = {pair: table for pair, table in reference.tables.pairs.items() if pair != (5, 5)}
    lacking = TwoCentreReference(SPACE, replace(reference.tables, pairs=alone))
    assert not bond([5, 5], 2.0, lacking).any()


@pytest.mark.parametrize("spin", ["unrestricted", "spinor"])
def test_both_spins_of_a_label_have_the_same_reference(reference: TwoCentreReference, spin: Spin) -> None:
    one = label(sheet(0))
    split = 0.3 * one.values
    zero = np.zeros_like(one.values)
    parts: list[Values] = [one.values + split, one.values - split]
    if spin == "spinor":
        parts = [parts[0] + 0j, zero + 1j * split, zero - 1j * split, parts[1] + 0j]
    both = BlockSet(one.space, one.numbers, one.pairs, np.concatenate(parts), spin)
    np.testing.assert_allclose(both.without_spin().values, one.values, atol=ROUNDING)
    rest = both.plus_shared(one, -1.0)
    np.testing.assert_allclose(rest.values[0], split[0], atol=ROUNDING)
    np.testing.assert_allclose(rest.values[-1], -split[0], atol=ROUNDING)
    assert not rest.without_spin().values.round(12).any()


def test_every_kind_has_its_name_where_cards_are_read() -> None:
    assert set(REFERENCE_KINDS) == set(REFERENCES)


def test_it_is_stored_and_read_and_refuses_what_does_not_fit(reference: TwoCentreReference) -> None:
    stored = reference.tensors()
    assert TwoCentreReference.shapes(SPACE, stored) == {name: value.shape for name, value in stored.items()}
    again = TwoCentreReference.from_tensors(SPACE, stored)
    np.testing.assert_array_equal(of(again, sheet(5)).values, of(reference, sheet(5)).values)
    with pytest.raises(CheckpointError, match="other elements or shells"):
        TwoCentreReference(OrbitalSpace("other", {5: (0, 1), 6: (0, 1)}), reference.tables)
    with pytest.raises(IntegralError, match="no matrices"):
        TwoCentreReference.fitted(SPACE, [])
