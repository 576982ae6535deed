"""The published splits: seeds, order and counts, from index arrays alone."""

from __future__ import annotations

import random

import numpy as np
import pytest

from training.data import splits


def counts(found: splits.Splits) -> tuple[int, ...]:
    return tuple(len(found[name]) for name in splits.NAMES)


def assert_partition(found: splits.Splits, n_rows: int) -> None:
    together = np.concatenate([found[name] for name in splits.NAMES])
    assert np.array_equal(np.sort(together), np.arange(n_rows))


PUBLISHED = [
    ("stable-id", lambda: splits.stable_random(130_831), 130_831, (104_664, 13_083, 13_084)),
    ("dynamic-100k-geo", lambda: splits.dynamic_geometry(999), 99_900, (79_920, 9_990, 9_990)),
    ("dynamic-100k-mol", lambda: splits.dynamic_molecule(999), 99_900, (79_900, 9_900, 10_100)),
    ("dynamic-300k-geo", lambda: splits.dynamic_geometry(2998), 299_800, (239_840, 29_980, 29_980)),
    ("dynamic-300k-mol", lambda: splits.dynamic_molecule(2998), 299_800, (239_800, 29_900, 30_100)),
    ("ethanol", lambda: splits.md17_random(30_000, *splits.MD17_SIZES["ethanol"]), 30_000, (25_000, 500, 4_500)),
    ("malonaldehyde", lambda: splits.md17_random(26_978, *splits.MD17_SIZES["malonaldehyde"]), 26_978, (25_000, 500, 1_478)),
    ("uracil", lambda: splits.md17_random(30_000, *splits.MD17_SIZES["uracil"]), 30_000, (25_000, 500, 4_500)),
    ("water", lambda: splits.md17_random(4_900, *splits.MD17_SIZES["water"]), 4_900, (500, 500, 3_900)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "n_rows", "expected"), [case[1:] for case in PUBLISHED], ids=[c[0] for c in PUBLISHED]
)
def test_splits_have_the_published_counts(make: object, n_rows: int, expected: tuple[int, ...]) -> None:
    found = make()  # type: ignore[operator]
    assert counts(found) == expected
    assert_partition(found, n_rows)


def test_stable_ood_is_by_size_in_file_order() -> None:
    n_atoms = np.array([29, 20, 21, 3, 22, 23, 20])
    found = splits.stable_size(n_atoms)
    assert [found[name].tolist() for name in splits.NAMES] == [[1, 3, 6], [2, 4], [0, 5]]


def test_the_random_stable_split_is_one_permutation_of_seed_43() -> None:
    found = splits.stable_random(130_831)
    expected = np.random.RandomState(seed=43).permutation(130_831)
    assert np.array_equal(np.concatenate([found[name] for name in splits.NAMES]), expected)


def test_geometries_of_a_molecule_are_permuted_by_the_seed_of_its_last_row() -> None:
    found = splits.dynamic_geometry(3)
    for molecule, seed in enumerate((99, 199, 299)):
        order = np.random.RandomState(seed=seed).permutation(100) + 100 * molecule
        assert np.array_equal(found["train"][80 * molecule : 80 * (molecule + 1)], order[:80])
        assert np.array_equal(found["val"][10 * molecule : 10 * (molecule + 1)], order[80:90])
        assert np.array_equal(found["test"][10 * molecule : 10 * (molecule + 1)], order[90:])


def test_molecules_are_shuffled_with_seed_43_and_never_shared() -> None:
    found = splits.dynamic_molecule(999)
    names = list(range(999))
    state = random.getstate()
    random.seed(43)
    random.shuffle(names)
    random.setstate(state)
    owners = {name: set((found[name] // 100).tolist()) for name in splits.NAMES}
    assert owners == {"train": set(names[:799]), "val": set(names[799:898]), "test": set(names[898:])}
    assert all(np.all(np.diff(found[name]) > 0) for name in splits.NAMES), "rows stay in file order"


def test_md17_is_one_permutation_of_seed_42() -> None:
    found = splits.md17_random(26_978, 25_000, 500)
    expected = np.random.RandomState(seed=42).permutation(26_978)
    assert np.array_equal(found["val"], expected[25_000:25_500])
    assert np.array_equal(found["test"], expected[25_500:])
