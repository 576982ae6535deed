"""Two-centre tables: fitted to PySCF's overlaps they give PySCF's overlaps of other structures; laws of what they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene
from numpy.typing import NDArray
from pyscf.pbc import gto as periodic_gto
from scipy.spatial.transform import Rotation

from model.blocks.block_set import BlockSet
from model.blocks.matrices import cut_matrix, dense_matrix
from model.blocks.motions import turn
from model.errors import CheckpointError, IntegralError
from model.integrals import two_centre_fit
from model.integrals.pyscf_crystal import PySCFCrystal
from model.integrals.pyscf_molecule import MoleculeIntegrals, load_basis
from model.integrals.two_centre_fit import FitReport, fit_two_centre
from model.integrals.two_centre_tables import FADED_LIMIT, PairTable, TwoCentreTables
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import Structure

ROUNDING = 1e-12
"""Elements that vanish, of order one before they do."""

PREDICTED = 1e-6
"""Overlaps of new distances against PySCF."""

TURNED = 1e-10
"""Tables of a turned structure against their own turned matrix."""

SUMMED = 1e-6
"""S(k) against PySCF's lattice sums."""

LONGEST = 12.0
"""Å; from here on S of boron and nitrogen is under 1e-9."""

BASES = {"gth-szv": ((5, 7), 1.0, LONGEST, 260), "def2-svp": ((1, 8), 0.7, 7.0, 180)}
"""Elements, smallest and largest distance in Å, number of distances."""


def dimer(space: OrbitalSpace, elements: Sequence[int], distance: float, rng: np.random.Generator) -> BlockSet:
    """PySCF's S of two atoms, the bond in any direction."""
    direction = rng.normal(size=3)
    positions = np.array([np.zeros(3), distance * direction / np.linalg.norm(direction)])
    structure = Structure(np.array(elements), positions, multiplicity=1 + sum(elements) % 2)
    overlap = MoleculeIntegrals(structure, space.name).overlap
    return cut_matrix(space, structure.numbers, PairList.complete(structure), overlap)


def dimers(basis: str, n: int, seed: int, margin: float) -> list[BlockSet]:
    """Of every two elements n dimers, distances evenly spread."""
    numbers, shortest, longest, _ = BASES[basis]
    rng = np.random.default_rng(seed)
    space = load_basis(basis, numbers)
    kinds = [(a, b) for a in numbers for b in numbers if a <= b]
    distances = np.linspace(shortest + margin, longest - margin, n)
    return [dimer(space, kind, distance, rng) for kind in kinds for distance in distances]


@cache
def fit_of(basis: str) -> tuple[TwoCentreTables, FitReport]:
    return fit_two_centre(dimers(basis, BASES[basis][3], seed=0, margin=0.0))


@pytest.fixture(scope="module", params=BASES)
def fitted(request: pytest.FixtureRequest) -> tuple[str, TwoCentreTables]:
    return request.param, fit_of(request.param)[0]


@pytest.fixture(scope="module")
def boron_nitride() -> TwoCentreTables:
    return fit_of("gth-szv")[0]


def sheet(seed: int = 3) -> Structure:
    atoms: Atoms = graphene("BN", a=2.50, vacuum=6.0)
    atoms.pbc = (True, True, False)
    atoms.rattle(0.05, seed=seed)
    return Structure(atoms.numbers, atoms.positions, cell_angstrom=np.asarray(atoms.cell), pbc=(True, True, False))


def sheet_overlap(structure: Structure, cutoff: float) -> BlockSet:
    space = load_basis("gth-szv", [5, 7])
    overlap: Any = PySCFCrystal(space).integrals(structure, PairList.within(structure, cutoff), {}).overlap
    return overlap


@pytest.mark.parametrize("basis", BASES)
def test_pyscfs_overlaps_are_two_centre(basis: str) -> None:
    report = fit_of(basis)[1]
    assert report.largest_forbidden < ROUNDING
    assert 0.0 < report.mean_residual < report.largest_residual < PREDICTED
    assert all(len(pair.ranges_angstrom) == 1 for pair in report.pairs.values())
    assert sum(pair.n_pairs for pair in report.pairs.values()) == 3 * BASES[basis][3]


def test_new_dimers_are_pyscfs(fitted: tuple[str, TwoCentreTables]) -> None:
    basis, tables = fitted
    errors = []
    for new in dimers(basis, 23, seed=1, margin=0.013):
        found = tables.blocks(new.space, new.numbers, new.pairs)
        errors.append(np.abs(found.values - new.values).max())
    assert max(errors) < PREDICTED


@pytest.mark.parametrize("order", ["pyscf", "openmx", "siesta"])
def test_it_turns_with_the_structure_in_every_order(fitted: tuple[str, TwoCentreTables], order: str) -> None:
    basis, tables = fitted
    a, b = BASES[basis][0]
    space = replace(load_basis(basis, [a, b]), order=order)
    positions = np.array([[0.0, 0.0, 0.0], [1.1, 0.2, -0.3], [-0.4, 1.5, 0.9]])
    improper = -Rotation.random(random_state=4).as_matrix()
    overlaps = []
    for moved in (positions, positions @ improper.T):
        structure = Structure(np.array([a, b, b]), moved, multiplicity=1 + a % 2)
        overlaps.append(tables.blocks(space, structure.numbers, PairList.complete(structure)))
    assert np.abs(turn(overlaps[0], improper).values - overlaps[1].values).max() < TURNED
    standard = tables.blocks(replace(space, order="e3nn"), overlaps[0].numbers, overlaps[0].pairs)
    assert np.array_equal(standard.in_order(order).values, overlaps[0].values)
    assert overlaps[0].hermitian_error() == 0.0


def test_bloch_sums_are_pyscfs(boron_nitride: TwoCentreTables) -> None:
    structure = sheet()
    pairs = PairList.within(structure, LONGEST)
    space = load_basis("gth-szv", [5, 7])
    found = boron_nitride.blocks(space, structure.numbers, pairs)
    cell: Any = periodic_gto.Cell(
        a=structure.cell_angstrom, unit="Angstrom", basis="gth-szv", pseudo="gth-pade", verbose=0, precision=1e-10
    )
    cell.atom = [
        ("BN"[int(z == 7)], tuple(x)) for z, x in zip(structure.numbers, structure.positions_angstrom, strict=True)
    ]
    cell.build(dump_input=False, parse_arg=False)
    for k in ([0.0, 0.0, 0.0], [1 / 3, 1 / 3, 0.0], [0.2, -0.4, 0.0]):
        expected: NDArray[np.complex128] = cell.pbc_intor("int1e_ovlp", kpts=cell.get_abs_kpts([k]))[0]
        assert np.abs(dense_matrix(found, k) - expected).max() < SUMMED
        assert np.linalg.eigvalsh(dense_matrix(found, k)).min() > 0.0


def test_a_crystal_of_a_few_structures_serves_another(boron_nitride: TwoCentreTables) -> None:
    """Gaps between shells of neighbours are bridged, named, and S(k) stays positive where the tables were fitted."""
    known = [sheet_overlap(sheet(seed), 9.0) for seed in range(6)]
    tables, report = fit_two_centre(known)
    assert report.largest_residual < PREDICTED
    assert len(report.pairs["B-N"].ranges_angstrom) > 1
    for overlap in known:
        found = tables.blocks(overlap.space, overlap.numbers, overlap.pairs)
        assert np.abs(found.values - overlap.values).max() < PREDICTED
        assert tables.uncovered(overlap.numbers, overlap.pairs) == ()
        for k in ([0.0, 0.0, 0.0], [1 / 3, 1 / 3, 0.0], [0.5, 0.0, 0.0]):
            assert np.linalg.eigvalsh(dense_matrix(found, k)).min() > 0.0
    gap = 0.5 * (report.pairs["B-N"].ranges_angstrom[0][1] + report.pairs["B-N"].ranges_angstrom[1][0])
    between = Structure.from_symbols(["B", "N"], [[0.0, 0.0, 0.0], [gap, 0.0, 0.0]])
    sentences = tables.uncovered(between.numbers, PairList.complete(between))
    assert [f"1 overlaps of B-N at {gap:.2f}" in sentence for sentence in sentences] == [True]


def test_beyond_the_longest_distance_it_goes_smoothly_to_zero() -> None:
    """Fitted to 4 Å, where overlaps are far from zero: the table ends half an ångström later, without a step or a kink."""
    space = load_basis("gth-szv", [5])
    rng = np.random.default_rng(0)
    tables, _ = fit_two_centre([dimer(space, (5, 5), r, rng) for r in np.linspace(1.2, 4.0, 60)])
    table = tables.pairs[5, 5]
    assert 4.0 + two_centre_fit.FADE_ANGSTROM <= table.end_angstrom < 4.0 + two_centre_fit.FADE_ANGSTROM + 0.06
    step = 1e-3
    distances = np.arange(3.8, 5.0, step)
    values = table(distances)
    slopes = np.diff(values, axis=0) / step
    assert np.abs(values[0]).max() > 0.01
    assert (values[distances >= table.end_angstrom] == 0.0).all()
    needed = 4.0 * np.abs(values).max() / two_centre_fit.FADE_ANGSTROM**2  # two parabolas from there to zero
    assert np.abs(np.diff(slopes, axis=0) / step).max() < 2.0 * needed
    longer = np.array([3.9, 4.2, 6.0])
    assert table.outside(longer).tolist() == [False, True, False]


def test_overlaps_that_have_faded_need_no_warning(boron_nitride: TwoCentreTables) -> None:
    far = Structure.from_symbols(["B", "N"], [[0.0, 0.0, 0.0], [LONGEST + 0.2, 0.0, 0.0]])
    pairs = PairList.complete(far)
    overlap = boron_nitride.blocks(load_basis("gth-szv", [5, 7]), far.numbers, pairs)
    assert np.abs(overlap.values[0, overlap.starts[2] :]).max() < FADED_LIMIT
    assert boron_nitride.uncovered(far.numbers, pairs) == ()


def test_atoms_closer_than_ever_and_unknown_neighbours_are_refused(boron_nitride: TwoCentreTables) -> None:
    space = load_basis("gth-szv", [5, 7])
    close = Structure.from_symbols(["B", "N"], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.9]])
    with pytest.raises(IntegralError, match=r"B-N atoms are 0\.900 Å apart; the two-centre tables begin at 1\.000 Å"):
        boron_nitride.blocks(space, close.numbers, PairList.complete(close))
    alone = TwoCentreTables(boron_nitride.shells, boron_nitride.on_site, {(5, 7): boron_nitride.pairs[5, 7]})
    three = Structure.from_symbols(["B", "N", "N"], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.4], [0.0, 1.4, 0.0]], charge=1)
    with pytest.raises(IntegralError, match=r"no overlap of N-N.*Allowed: B-N"):
        alone.blocks(space, three.numbers, PairList.complete(three))


def test_overlaps_that_are_not_two_centre_are_refused() -> None:
    overlap = sheet_overlap(sheet(), 5.0)
    fit_two_centre([overlap])
    rng = np.random.default_rng(0)
    noise = overlap.with_values(3e-5 * rng.normal(size=overlap.values.shape)).hermitised()
    disturbed = overlap.with_values(overlap.values + noise.values)
    with pytest.raises(IntegralError, match=r"not two-centre integrals.*allowed is 1e-05.*GPAW"):
        fit_two_centre([disturbed])
    assert 1e-5 < fit_two_centre([disturbed], tolerance=1e-3)[1].largest_forbidden < 3e-4
    mislabelled = replace(overlap, space=replace(overlap.space, order="e3nn"))
    with pytest.raises(IntegralError, match="check the orbital order"):
        fit_two_centre([mislabelled])


def test_overlaps_of_two_bases_are_refused() -> None:
    rng = np.random.default_rng(0)
    small, other = load_basis("gth-szv", [5]), load_basis("gth-szv-molopt-sr", [5])
    assert small.shells == other.shells
    mixed = [dimer(space, (5, 5), 1.6, rng) for space in (small, other)]
    with pytest.raises(IntegralError, match=r"B-B are no function of the distance: at 1\.600 Å"):
        fit_two_centre(mixed)
    with pytest.raises(IntegralError, match="tables are of one basis"):
        fit_two_centre([mixed[0], dimer(load_basis("def2-svp", [5]), (5, 5), 1.6, rng)])
    with pytest.raises(IntegralError, match="no overlaps"):
        fit_two_centre([])


def test_arrays_and_back(fitted: tuple[str, TwoCentreTables]) -> None:
    basis, tables = fitted
    arrays = tables.to_arrays()
    again = TwoCentreTables.from_arrays(tables.shells, arrays)
    new = dimers(basis, 2, seed=2, margin=0.5)[1]
    values = [found.blocks(new.space, new.numbers, new.pairs).values for found in (tables, again)]
    assert np.array_equal(values[0], values[1])
    name = next(name for name in arrays if name.endswith("/coefficients"))
    pair = name.partition("/")[0]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({name: arrays[name][:, 1:]}, r"coefficients.*the basis needs"),
        ({name: arrays[name][0, 0]}, r"coefficients.*of shape \(\)"),
        ({f"{pair}/grid": np.array([0.5, -0.05])}, "do not fit each other"),
        ({f"{pair}/covered": arrays[f"{pair}/covered"] + 50.0}, "do not fit each other"),
        ({f"{pair}/covered": np.zeros(2)}, "covered"),
        ({f"{pair}/more": np.zeros(2)}, "was not expected"),
        ({"Xe/on_site": np.zeros(2)}, "was not expected"),
    ]
    for change, message in wrong:
        with pytest.raises(CheckpointError, match=message):
            TwoCentreTables.from_arrays(tables.shells, arrays | change)
    for left_out in (name, f"{pair}/grid", f"{pair}/covered", next(n for n in arrays if n.endswith("/on_site"))):
        with pytest.raises(CheckpointError, match="is missing"):
            TwoCentreTables.from_arrays(tables.shells, {n: v for n, v in arrays.items() if n != left_out})


def test_a_table_needs_ascending_ranges() -> None:
    with pytest.raises(CheckpointError, match="do not fit"):
        PairTable(0.0, 0.1, np.zeros((40, 1)), np.array([[1.0, 2.0], [1.5, 3.0]]))
