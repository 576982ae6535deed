"""Two-centre tables on matrices of other programs: OpenMX, CP2K, SIESTA and ABACUS have them, GPAW (PAW) has not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model.blocks.block_set import BlockSet
from model.blocks.matrices import dense_matrix
from model.errors import IntegralError
from model.formats.registry import entries, read
from model.integrals.two_centre_fit import fit_two_centre
from model.pairs.pair_list import PairList

OPENMX_FORBIDDEN = 1e-9
"""Elements between different m in the bond frame; the file itself is symmetric to 1.5e-10."""

OPENMX_PREDICTED = 1e-9
"""Pairs that were left out, where their distance was fitted."""

K_POINTS = ([0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [1 / 3, 1 / 3, 0.0])


def overlap_of(path: Path) -> BlockSet:
    overlap = read(path).overlap
    assert overlap is not None
    return overlap


def test_openmx_predicts_pairs_that_were_left_out(public: Callable[[str], Path]) -> None:
    path = public("deeph_dock/MoTe2_new")
    structure, overlap = read(path).structure, overlap_of(path)
    pairs = overlap.pairs
    forward = [pair for pair in range(pairs.n_atoms, len(pairs)) if pair < pairs.reverse[pair]]
    kept = np.random.default_rng(0).permutation(forward)[: int(0.8 * len(forward))]
    some = PairList.of(structure, pairs.first[kept], pairs.second[kept], pairs.shift[kept])
    tables, report = fit_two_centre([overlap.on_pairs(some)])
    assert report.largest_forbidden < OPENMX_FORBIDDEN
    assert report.largest_residual < OPENMX_PREDICTED
    found = tables.blocks(overlap.space, overlap.numbers, pairs)
    errors = np.maximum.reduceat(np.abs(found.values - overlap.values)[0], overlap.starts[:-1])
    left_out = np.setdiff1d(np.arange(len(pairs)), pairs.find(some))
    fitted = [pair for pair in left_out if not tables.uncovered(overlap.numbers, _alone(pairs, int(pair)))]
    assert len(fitted) > 10
    assert errors[fitted].max() < OPENMX_PREDICTED
    for k in K_POINTS:
        assert np.linalg.eigvalsh(dense_matrix(found, k)).min() > 0.0


def _alone(pairs: PairList, pair: int) -> PairList:
    """The on-site pairs, one other and its reverse."""
    return pairs.take(np.array([*range(pairs.n_atoms), *sorted((pair, int(pairs.reverse[pair])))]))


@pytest.mark.parametrize(
    ("name", "residual"),
    [("deeph_dock/Si_siesta_as_deeph", 1e-9), ("deeph_dock/MoS2_abacus_as_deeph", 1e-6)],
)
def test_other_programs_of_numerical_orbitals(public: Callable[[str], Path], name: str, residual: float) -> None:
    overlap = overlap_of(public(name))
    tables, report = fit_two_centre([overlap])
    assert report.largest_residual < residual
    found = tables.blocks(overlap.space, overlap.numbers, overlap.pairs)
    assert np.abs(found.values - overlap.values).max() < 3 * residual
    for k in K_POINTS:
        assert np.linalg.eigvalsh(dense_matrix(found, k)).min() > 0.0


def test_one_structure_of_cp2k_serves_the_others(crystals: Callable[[str], Path]) -> None:
    known = entries(crystals("cp2k_dzvp.h5"))
    overlaps = [overlap for entry in known[:8] if (overlap := entry.read().overlap) is not None]
    tables, report = fit_two_centre(overlaps[1:])
    assert report.largest_residual < 1e-7
    overlap = overlaps[0]
    found = tables.blocks(overlap.space, overlap.numbers, overlap.pairs)
    assert np.abs(found.values - overlap.values).max() < 1e-4


@pytest.mark.parametrize(("name", "figure"), [("bismuthene_soc.h5", "9.*e-04"), ("graphene_dzp.h5", "9.*e-03")])
def test_gpaws_overlaps_are_not_two_centre(crystals: Callable[[str], Path], name: str, figure: str) -> None:
    overlap = entries(crystals(name))[0].read().overlap
    assert overlap is not None
    with pytest.raises(IntegralError, match=rf"not two-centre.* off by {figure} .*GPAW"):
        fit_two_centre([overlap])
