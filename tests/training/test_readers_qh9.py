"""QH9 files, raw and processed: every frame's matrix is PySCF's Fock matrix of the very geometry that comes with it."""

from __future__ import annotations

import io
import pickle
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from pyscf import dft

from model.integrals.pyscf_molecule import build_mole, integrals
from training.data.readers import plain_pickle
from training.data.sources import DatasetError, Frame, open_source, read_frames, read_level

from .layouts import Label, label, lmdb_row, write_dynamic, write_lmdb, write_stable

ORBITAL_TOLERANCE_HARTREE = 1e-8
FOCK_TOLERANCE_HARTREE = 2e-6
"""One Fock build in the label's density at the frame's geometry: positions went through another unit and back."""

MOLECULES = ("H2O", "HCN", "HF")


@pytest.fixture(scope="module")
def labels() -> list[Label]:
    """Converged B3LYP (VWN5) calculations."""
    return [label(name, "b3lyp5", seed) for seed, name in enumerate(MOLECULES)]


@pytest.fixture(scope="module")
def files(labels: list[Label], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same labels in every layout."""
    folder = tmp_path_factory.mktemp("qh9")
    paths = {
        "qh9_stable": folder / "QH9Stable.db",
        "qh9_dynamic_300k": folder / "QH9Dynamic_300k.db",
        "lmdb stable": folder / "QH9Stable.lmdb",
        "lmdb dynamic": folder / "QH9Dynamic.lmdb",
    }
    write_stable(paths["qh9_stable"], labels)
    write_dynamic(paths["qh9_dynamic_300k"], labels)
    write_lmdb(paths["lmdb stable"], [lmdb_row(item, n, bohr=False) for n, item in enumerate(labels)])
    write_lmdb(paths["lmdb dynamic"], [lmdb_row(item, n, bohr=True) for n, item in enumerate(labels)])
    return paths


CASES = [
    ("qh9_stable", "qh9_stable", lambda n: n),
    ("qh9_dynamic_300k", "qh9_dynamic_300k", lambda n: 100 * n + 42),
    ("lmdb stable", "qh9_stable", lambda n: n),
    ("lmdb dynamic", "qh9_dynamic_300k", lambda n: n),
]


def fock_at(frame: Frame, item: Label, xc: str) -> Any:
    """PySCF's Fock matrix at the frame's own geometry, from the label's density."""
    mf = dft.RKS(build_mole(frame.structure, "def2-svp"), xc=xc)
    _, orbitals = mf.eig(item.fock, item.mole.intor("int1e_ovlp"))
    occupied = orbitals[:, : frame.structure.n_electrons // 2]
    return mf.get_fock(dm=2.0 * occupied @ occupied.T)


@pytest.mark.parametrize(("file", "format", "place"), CASES, ids=[case[0] for case in CASES])
def test_matrix_geometry_and_level_belong_together(
    file: str, format: str, place: Callable[[int], int], files: dict[str, Path], labels: list[Label]
) -> None:
    """A wrong unit, AO order, dtype or functional cannot pass: the matrix is computed again from what the reader says."""
    with open_source(files[file], format) as source:
        for number, item in enumerate(labels):
            frame = source.frame(place(number), "test")
            assert np.array_equal(frame.structure.numbers, item.numbers)
            assert np.abs(frame.structure.positions_angstrom - item.angstrom).max() < 1e-9
            assert np.abs(frame.fock - fock_at(frame, item, source.level.xc)).max() < FOCK_TOLERANCE_HARTREE
            energies = scipy.linalg.eigh(frame.fock, integrals(frame.structure, "def2-svp").overlap, eigvals_only=True)
            assert np.abs(energies - item.orbital_energies).max() < ORBITAL_TOLERANCE_HARTREE
            assert (frame.split, frame.cycles_minao, frame.smiles) == ("test", None, "")


def test_levels_are_in_todays_names() -> None:
    """'b3lyp' changed its meaning in PySCF 2.3; stable and dynamic-300k were made before."""
    from training.data.readers.qh9 import VARIANTS

    assert {name: variant.level.xc for name, variant in VARIANTS.items()} == {
        "qh9_stable": "b3lyp5",
        "qh9_dynamic_100k": "b3lyp",
        "qh9_dynamic_300k": "b3lyp5",
    }


def test_energies_and_names_of_the_dynamic_rows(files: dict[str, Path], labels: list[Label]) -> None:
    with open_source(files["qh9_dynamic_300k"], "qh9_dynamic_300k") as source:
        frame = source.frame(217, "val")
    assert (frame.molecule, frame.index, frame.energy) == ("qh9-7002", 17, labels[2].energy)


@pytest.mark.parametrize("file", ["qh9_stable", "lmdb stable"])
def test_formats_are_recognised_and_split(file: str, files: dict[str, Path]) -> None:
    assert read_level(files[file]).xc == "b3lyp5"
    with open_source(files[file]) as source:
        assert source.atom_counts().tolist() == [3, 3, 2]
        assert source.splits("size_ood")["train"].tolist() == [0, 1, 2]
    names = [frame.molecule for frame in read_frames(files[file], ["size_ood/train"])]
    assert names == ["qh9-0", "qh9-1", "qh9-2"]
    by_scheme = read_frames(files[file], ["train"], format="qh9_stable", scheme="size_ood", max_molecules=2)
    assert [frame.molecule for frame in by_scheme] == ["qh9-0", "qh9-2"]


def test_dynamic_splits_limit_frames_and_molecules(files: dict[str, Path]) -> None:
    frames = list(
        read_frames(
            files["qh9_dynamic_300k"],
            ["geometry/train"],
            format="qh9_dynamic_300k",
            frames_per_molecule=2,
            max_molecules=2,
        )
    )
    expected = [np.random.RandomState(last).permutation(100)[:2].tolist() for last in (99, 299)]
    assert [frame.index for frame in frames] == expected[0] + expected[1]
    assert [frame.molecule for frame in frames] == ["qh9-7000"] * 2 + ["qh9-7002"] * 2


def test_a_source_travels_to_another_process(files: dict[str, Path]) -> None:
    for file, format in (("qh9_stable", "qh9_stable"), ("lmdb dynamic", "qh9_dynamic_300k")):
        with open_source(files[file], format) as source:
            packed, fock = pickle.dumps(source), source.frame(1, "train").fock
        with pickle.loads(packed) as again:
            assert np.array_equal(again.frame(1, "train").fock, fock)


class Malicious:
    """Runs a command where it is unpickled freely."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


def persistent(value: Any) -> bytes:
    """A pickle that refers to an object outside itself."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, item: Any) -> str | None:
            return "elsewhere" if item == b"outside" else None

    buffer = io.BytesIO()
    Pickler(buffer).dump(value)
    return buffer.getvalue()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_runs_nothing(protocol: int, labels: list[Label], tmp_path: Path) -> None:
    row = lmdb_row(labels[0], 0, bohr=False) | {"Ham": Malicious(tmp_path / "touched")}
    write_lmdb(tmp_path / "QH9Stable.lmdb", [row], dumps=lambda value: pickle.dumps(value, protocol=protocol))
    with (
        open_source(tmp_path / "QH9Stable.lmdb", "qh9_stable") as source,
        pytest.raises(DatasetError, match=r"wants to call .*do not trust"),
    ):
        source.frame(0, "test")
    assert not (tmp_path / "touched").exists()
    pickle.loads(pickle.dumps(row, protocol=protocol))
    assert (tmp_path / "touched").exists(), "the same row is dangerous where it is unpickled freely"


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(np.zeros(3)),
        pickle.dumps(np.float64(1.0)),
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x02\x82\x01.",
        persistent(b"outside"),
        pickle.dumps({"id": 1})[:-3],
        b"",
        b"not a pickle",
    ],
    ids=["array", "scalar", "global", "inst", "extension", "persistent", "cut", "empty", "text"],
)
def test_only_plain_values_are_unpickled(data: bytes) -> None:
    with pytest.raises(plain_pickle.UnsafePickleError):
        plain_pickle.loads(data)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("number", [0, 29, 300, 70_000, 1 << 40])
def test_peeking_finds_the_integer_and_reads_no_further(protocol: int, number: int) -> None:
    data = pickle.dumps({"id": 5, "num_nodes": number, "Ham": bytes(100_000)}, protocol=protocol)
    assert plain_pickle.peek_int(data[:200], "num_nodes") == number
    with pytest.raises(plain_pickle.UnsafePickleError):
        plain_pickle.peek_int(data[:200], "atoms")


def spoil(source: Path, target: Path, column: str, value: object) -> Path:
    """A copy of a raw file with one cell of row 1 replaced."""
    target.write_bytes(source.read_bytes())
    with sqlite3.connect(target) as connection:
        connection.execute(f"UPDATE data SET {column} = ? WHERE rowid = 1", (value,))
    connection.close()
    return target


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("Ham", b"\0" * 80, r"row 1: Ham is 80 bytes, expected"),
        ("Ham", np.triu(np.ones((24, 24))).tobytes(), "Ham"),
        ("pos", b"\0" * 72, "apart"),
        ("pos", None, "pos is NoneType"),
        ("Z", np.array([8, 1, 26], dtype=np.int32).tobytes(), r"atomic numbers \[26\]"),
        ("N", 0, "0 atoms"),
        ("N", b"\1", "not a number"),
    ],
)
def test_damaged_rows_are_named(column: str, value: object, words: str, files: dict[str, Path], tmp_path: Path) -> None:
    path = spoil(files["qh9_stable"], tmp_path / "QH9Stable.db", column, value)
    with pytest.raises(DatasetError, match=words), open_source(path, "qh9_stable") as source:
        source.frame(1, "test")


def test_a_matrix_that_is_not_symmetric_is_refused(files: dict[str, Path], labels: list[Label], tmp_path: Path) -> None:
    fock = labels[1].fock.copy()
    fock[0, 5] += 1e-3
    path = spoil(files["qh9_stable"], tmp_path / "QH9Stable.db", "Ham", fock.tobytes())
    with pytest.raises(DatasetError, match="symmetric"), open_source(path, "qh9_stable") as source:
        source.frame(1, "test")


def test_damaged_and_foreign_files_are_refused(files: dict[str, Path], labels: list[Label], tmp_path: Path) -> None:
    text = tmp_path / "QH9Stable.db"
    text.write_text("not a database, but long enough to look like one" * 10)
    cut = tmp_path / "cut.db"
    cut.write_bytes(files["qh9_stable"].read_bytes()[:6000])
    (tmp_path / "empty.lmdb").mkdir()
    write_lmdb(tmp_path / "short.lmdb", [{"id": 0}])
    for path, format, words in [
        (tmp_path / "nowhere.db", "qh9_stable", r"docs/datasets\.md"),
        (text, "qh9_stable", "not an sqlite file"),
        (files["qh9_stable"], "qh9_dynamic_100k", "expected id, geo_id"),
        (files["qh9_stable"], "qh10", "allowed are tracegrad, qh9_stable"),
        (tmp_path / "empty.lmdb", "qh9_stable", "as an LMDB"),
        (files["lmdb dynamic"], "auto", "say it"),
        (files["qh9_dynamic_300k"], "auto", "say it"),
    ]:
        with pytest.raises(DatasetError, match=words):
            open_source(path, format)
    with pytest.raises(DatasetError, match=r"cannot be read|not an sqlite"), open_source(cut, "qh9_stable") as source:
        [source.frame(index, "test") for index in range(3)]
    with pytest.raises(DatasetError, match="num_nodes"), open_source(tmp_path / "short.lmdb", "qh9_stable") as source:
        source.frame(0, "test")
    with open_source(files["lmdb stable"], "qh9_stable") as source, pytest.raises(DatasetError, match="allowed are"):
        source.splits("molecule")
    with open_source(files["lmdb dynamic"], "qh9_dynamic_300k") as source, pytest.raises(DatasetError, match="not 100"):
        source.splits("molecule")


def test_without_lmdb_the_error_says_what_to_install(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(DatasetError, match=r"benchmarks-data"):
        open_source(files["lmdb stable"], "qh9_stable")
