"""Errors of the matrix: built with known parts, found again; per molecule and per entry; by shell pair."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.linalg

from model.electronic.comparison import block_errors, eigenbasis_shares
from model.integrals.pyscf_molecule import integrals
from model.orbitals.space import OrbitalSpace
from training.data.sources import Frame
from training.evaluate.errors import ShellErrors
from training.evaluate.parity import ERROR_EDGES, SIZE_EDGES, ParityCounts

ROUNDING = 1e-10
HEAVY, HYDROGEN = (0, 0, 0, 1, 1, 2), (0, 0, 1)
"""def2-SVP's shells, as PySCF lists them."""


def test_shares_of_an_error_built_in_the_eigenbasis(tiny_frames: list[Frame], rng: np.random.Generator) -> None:
    """dF = S C M C^T S has C^T dF C = M: parts of M with known norms come back as shares."""
    for frame in tiny_frames[::2]:
        overlap = integrals(frame.structure, "def2-svp").overlap
        _, orbitals = scipy.linalg.eigh(frame.fock, overlap)
        size, n = len(orbitals), frame.structure.n_electrons // 2
        built = rng.normal(size=(size, size))
        built = built + built.T
        inside = np.arange(size) < n
        both, none = np.outer(inside, inside), np.outer(~inside, ~inside)
        wanted = {"oo": 0.2, "ov": 0.5, "vv": 0.3}
        for part, mask in (("oo", both), ("vv", none), ("ov", ~(both | none))):
            built[mask] *= np.sqrt(wanted[part]) / np.linalg.norm(built[mask])
        back = overlap @ orbitals
        found = eigenbasis_shares(back @ built @ back.T, orbitals, n)
        assert found == pytest.approx((wanted["oo"], wanted["ov"], wanted["vv"]), abs=1e-8)
    assert eigenbasis_shares(np.zeros((size, size)), orbitals, n) == (0.0, 0.0, 0.0)


def test_block_errors_of_constant_blocks() -> None:
    atom = np.array([0, 0, 1])
    absolute = np.array([[1.0, 3.0, 5.0], [3.0, 1.0, 5.0], [5.0, 5.0, 8.0]])
    whole, diagonal, off = block_errors(absolute, atom)
    assert (whole, diagonal, off) == pytest.approx((36 / 9, 16 / 5, 5.0))
    assert block_errors(absolute, np.zeros(3, dtype=int))[2] == 0.0


def labels(shells: tuple[int, ...]) -> list[str]:
    """Name of the shell of each AO, counted by hand."""
    seen: dict[str, int] = {}
    names = []
    for ang in shells:
        letter = "spd"[ang]
        seen[letter] = seen.get(letter, 0) + 1
        names += [f"{letter}{seen[letter]}"] * (2 * ang + 1)
    return names


def test_a_constructed_error_is_on_its_place_in_the_map(basis: OrbitalSpace) -> None:
    """Water and HF: 7 in O's on-site s2-p1, 5 between O's p2 and H's s1, 1 elsewhere."""
    errors = ShellErrors(basis)
    for numbers in (np.array([8, 1, 1]), np.array([1, 9])):
        shell = [name for z in numbers for name in labels(HYDROGEN if z == 1 else HEAVY)]
        atom = np.repeat(np.arange(len(numbers)), [5 if z == 1 else 14 for z in numbers])
        absolute = np.ones((len(shell), len(shell)))
        for i, (at_i, shell_i) in enumerate(zip(atom, shell, strict=True)):
            for j, (at_j, shell_j) in enumerate(zip(atom, shell, strict=True)):
                if numbers[at_i] == 8 and at_i == at_j and {shell_i, shell_j} == {"s2", "p1"}:
                    absolute[i, j] = 7.0
                if {(numbers[at_i], shell_i), (numbers[at_j], shell_j)} == {(8, "p2"), (1, "s1")}:
                    absolute[i, j] = 5.0
        errors.add(numbers, absolute)
    names = list(errors.shells)
    assert names == ["s1", "s2", "s3", "p1", "p2", "d1"]
    on_site = errors.of("on-site", 8, 8)
    assert on_site[names.index("s2"), names.index("p1")] == on_site[names.index("p1"), names.index("s2")] == 7.0
    assert on_site.sum() == 36 + 2 * 6
    pair = errors.of("pair", 1, 8)
    assert pair[names.index("s1"), names.index("p2")] == 5.0
    assert np.isnan(pair[names.index("s3")]).all(), "hydrogen has no third s shell"
    assert np.array_equal(errors.of("pair", 8, 1), pair.T, equal_nan=True)
    assert np.isnan(errors.of("on-site", 6, 6)).all()
    assert np.nanmax(errors.of("pair", 1, 9)) == 1.0
    worst = errors.worst()
    assert (worst.name, worst.mae) == ("O-O on-site, s2-p1", 7.0)
    entries = 24**2 + 19**2
    extra = 6 * 2 * 3 + 4 * 2 * 2 * 3
    whole, diagonal, off = errors.entry_means()
    assert whole == pytest.approx((entries + extra) / entries)
    n_diagonal = 14**2 + 2 * 25 + 14**2 + 25
    assert diagonal == pytest.approx((n_diagonal + 36) / n_diagonal)
    assert off == pytest.approx((entries - n_diagonal + 48) / (entries - n_diagonal))
    assert errors.overall("on-site")[1, 3] == pytest.approx((3 * 7 + 3 + 3 * 3) / 15), "O, F and three H"
    stored = json.loads(json.dumps(errors.to_json(), allow_nan=False))
    assert {(e["kind"], *e["elements"]) for e in stored["elements"]} == {
        ("on-site", "H", "H"),
        ("on-site", "O", "O"),
        ("on-site", "F", "F"),
        ("pair", "H", "H"),
        ("pair", "H", "O"),
        ("pair", "H", "F"),
    }


def test_an_empty_map_has_no_worst_block(basis: OrbitalSpace) -> None:
    with pytest.raises(ValueError, match="No molecule"):
        ShellErrors(basis).worst()


def test_every_lower_triangle_element_is_counted_once(rng: np.random.Generator) -> None:
    fock = rng.normal(size=(12, 12))
    fock = fock + fock.T
    fock[3, 3] = 1e-9
    counts = ParityCounts()
    counts.add(fock, fock + 1e-4, None)
    assert counts.parity.sum() == 12 * 13 // 2
    assert counts.error.sum() == 12 * 13 // 2 - 1, "an element that is rounding has no size"
    assert not counts.error_reference.any()
    cell = int(np.searchsorted(ERROR_EDGES, 2.0 + ROUNDING)) - 1
    assert counts.error[:, cell - 1 : cell + 1].sum() == counts.error.sum(), "all errors are 100 µEh"
    cell = int(np.searchsorted(SIZE_EDGES, np.log10(abs(fock[0, 0])))) - 1
    assert counts.error[cell].sum() >= 1
