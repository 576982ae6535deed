"""When two levels of theory are the same: PySCF's libxc is the oracle for functionals, its basis library for bases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from pyscf.dft import libxc
from pyscf.gto.basis import ALIAS

from model.checkpoint.card import read_card
from model.level import SAME_FUNCTIONAL, Level, fold_basis, fold_functional, same_basis, same_functional
from tests.conftest import ROOT

B3LYP = Level("b3lyp", "def2-svp")

SAME_VALUES_RTOL = 1e-6
"""One functional under two names; the VWN variants differ by 1e-2 and more."""


def _values(name: str) -> NDArray[np.float64]:
    """Share of exact exchange, and the energy density at some densities and gradients (GGA form)."""
    density = np.array([[0.01, 0.1, 0.5, 1.0], [0.005, 0.05, 0.2, 0.3], [0.0, 0.02, 0.1, 0.2], [0.0, 0.0, 0.1, 0.1]])
    energy = libxc.eval_xc(name, density, deriv=0)[0]
    return np.append(libxc.hybrid_coeff(name), energy)


@pytest.mark.parametrize(("spelling", "name"), SAME_FUNCTIONAL.items())
def test_spellings_of_one_functional_are_one_for_libxc(spelling: str, name: str) -> None:
    np.testing.assert_allclose(_values(spelling), _values(name), rtol=SAME_VALUES_RTOL)
    assert same_functional(spelling.upper(), f" {name} ")


def test_names_that_are_told_apart_differ_for_libxc() -> None:
    names = sorted(set(SAME_FUNCTIONAL.values()))
    for one, other in itertools.combinations(names, 2):
        assert not np.allclose(_values(one), _values(other), rtol=SAME_VALUES_RTOL)
    assert not same_functional("b3lyp", "b3lyp5")


def test_what_case_blanks_and_dashes_mean_is_what_libxc_says() -> None:
    for one, other in (("CAM-B3LYP", "cam_b3lyp"), (" pbe , pbe", "PBE")):
        np.testing.assert_allclose(_values(one), _values(other), rtol=SAME_VALUES_RTOL)
        assert fold_functional(one) == fold_functional(other)


@pytest.mark.parametrize("name", ["def2-svp", "def2svp", "DEF2-SVP", "def2_SVP", "def2 svp"])
def test_one_basis_has_many_spellings(name: str) -> None:
    assert same_basis(name, "def2-svp")
    assert fold_basis(name) in ALIAS


@pytest.mark.parametrize("name", ["def2-svpd", "def2-tzvp", "", "sto-3g"])
def test_another_basis_is_another(name: str) -> None:
    assert not same_basis(name, "def2-svp")


@pytest.mark.parametrize(
    ("other", "fields"),
    [
        (Level("B3LYPG", "def2svp", program="ORCA", program_version="6"), ()),
        (Level("b3lyp5", "def2-svp"), ("xc",)),
        (Level("pbe", "cc-pvdz"), ("xc", "basis")),
        (Level("b3lyp", "def2-svp", spin="spinor"), ("spin",)),
        (Level("b3lyp", "def2-svp", potentials="gth-pbe"), ("potentials",)),
    ],
)
def test_levels_differ_in_named_fields(other: Level, fields: tuple[str, ...]) -> None:
    assert B3LYP.differences(other) == other.differences(B3LYP) == fields
    assert B3LYP.same_as(other) is (not fields)
    words = B3LYP.describe_differences(other, own="the run", others="the file")
    assert words.count(" in the run and ") == len(fields)
    assert all(f"{field} is " in words for field in fields)


def test_words_name_both_sides() -> None:
    theirs = Level("pbe", "def2-svp", potentials="gth-pbe")
    assert B3LYP.describe_differences(theirs, own="the run", others="the file") == (
        "xc is b3lyp in the run and pbe in the file; potentials is none in the run and gth-pbe in the file"
    )
    assert str(theirs) == "pbe/def2-svp, gth-pbe"


def test_a_card_has_its_level() -> None:
    card = read_card(ROOT / "checkpoints" / "default" / "card.json")
    assert card.level.same_as(B3LYP)
    assert "libxc 402" in card.level.note
