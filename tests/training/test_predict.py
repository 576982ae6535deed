"""Bulk prediction: every structure has the predictor's own answer or a reason, in whatever parts it is computed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from model.predictor import Predictor
from model.structure import Structure
from tests.tolerances import SAME_FLOAT32
from training.__main__ import main
from training.executors import ProcessPool, WorkerDiedError
from training.parts import Part
from training.predict import pieces, work
from training.predict.pieces import chunks_of
from training.predict.reading import structures_of
from training.predict.results import Results
from training.predict.run import merge_parts, predict
from training.predict.work import Job
from training.tables import ConfigError

from .conftest import displaced

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "default"
NAMES = ("H2O", "CH4", "NH3", "H2O", "CH4", "H2O", "HF")
HERE = ProcessPool(0)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load(CHECKPOINT, verify_golden=False)


@pytest.fixture(autouse=True)
def _loaded_once(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "predictor_of", lambda checkpoint, device: predictor)


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    """Seven molecules in a file, with one of a foreign element and one that is cut; two in a folder; one in a data base."""
    atoms = [displaced(name, seed) for seed, name in enumerate(NAMES)]
    file = tmp_path / "many.extxyz"
    write(file, [*atoms[:3], Atoms("Xe", [[0.0, 0.0, 0.0]]), *atoms[3:]], format="extxyz")
    file.write_text(file.read_text() + "3\n\nH 0 0 0\nH 0 0 zero\nO 0 0 1\n")
    (tmp_path / "folder").mkdir()
    for name in ("b", "a"):
        write(tmp_path / "folder" / f"{name}.xyz", displaced("CH4", ord(name)))
    with ase.db.connect(tmp_path / "rows.db") as rows:
        rows.write(Atoms("OH", [[0.0, 0, 0], [0, 0, 0.97]]), total_charge=-1)
    return [file, tmp_path / "folder", tmp_path / "rows.db"]


def job(output: Path, **changes: Any) -> Job:
    return Job(
        **{
            "checkpoint": CHECKPOINT,
            "output": output,
            "save": ("hamiltonian", "density", "orbital_energies"),
            "dtype": "float64",
            "batch_blocks": 40,
            "max_orbitals": 1000,
            "molecules": False,
            "device": "cpu",
            **changes,
        }
    )


def failures(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "failures.jsonl").read_text().splitlines()]


def test_every_structure_has_the_predictors_answer_or_a_reason(
    inputs: list[Path], tmp_path: Path, predictor: Predictor
) -> None:
    done = predict(job(tmp_path / "out"), inputs, chunk=4, part=Part(), executor=HERE)
    assert (done.answered, done.failed) == (9, 3)
    assert [(line["file"], line["frame"]) for line in failures(tmp_path / "out")] == [
        ("many.extxyz", 3),
        ("many.extxyz", 8),
        ("rows.db", 0),
    ]
    reasons = [line["reason"] for line in failures(tmp_path / "out")]
    assert reasons[0].startswith("unsupported_element")
    assert reasons[2].startswith("unsupported_charge"), "the data base's charge was read"
    merged = merge_parts(job(tmp_path / "out"), inputs, chunk=4).merged
    assert merged is not None
    index = list(csv.DictReader((tmp_path / "out" / "index.csv").open()))
    with Results(merged) as results:
        assert len(results) == len(index) == 9
        for row, line in enumerate(index):
            found = results[row]
            assert (found["file"], int(found["frame"])) == (line["file"], int(line["frame"]))
            structure = Structure(found["numbers"], found["positions"])
            (alone,) = predictor.predict([structure])
            tril = np.tril_indices(len(alone.hamiltonian))
            assert found["hamiltonian"] == pytest.approx(alone.hamiltonian[tril], abs=SAME_FLOAT32)
            assert alone.guess is not None
            assert alone.orbitals is not None
            assert found["density"] == pytest.approx(alone.guess.density_matrix[tril], abs=20 * SAME_FLOAT32)
            assert found["homo"] == pytest.approx(alone.orbitals.homo, abs=SAME_FLOAT32)
            assert found["orbital_energies"] == pytest.approx(alone.orbitals.energies, abs=SAME_FLOAT32)
        assert [results[row]["file"] for row in (7, 8)] == ["a.xyz", "b.xyz"]
        assert results.attributes["weights_sha256"] == predictor.card.weights_sha256


def test_parts_make_what_one_call_makes(inputs: list[Path], tmp_path: Path) -> None:
    one, many = job(tmp_path / "one"), job(tmp_path / "many")
    predict(one, inputs, chunk=2, part=Part(), executor=HERE)
    predict(many, inputs, chunk=2, part=Part(2, 3), executor=HERE)
    with pytest.raises(ConfigError, match=r"of \d chunks are not done"):
        merge_parts(many, inputs, chunk=2)
    for number in (1, 3):
        predict(many, inputs, chunk=2, part=Part(number, 3), executor=HERE)
    files = [merge_parts(found, inputs, chunk=2).merged for found in (one, many)]
    assert files[0] is not None
    assert files[1] is not None
    with Results(files[0]) as first, Results(files[1]) as second:
        assert len(first) == len(second) == 9
        for row in range(9):
            for name, value in first[row].items():
                np.testing.assert_array_equal(value, second[row][name])


def test_what_is_done_is_not_done_again_and_another_job_is_refused(inputs: list[Path], tmp_path: Path) -> None:
    mine = job(tmp_path / "out")
    first = predict(mine, inputs, chunk=2, part=Part(), executor=HERE)
    chunks = sorted((tmp_path / "out" / "chunks").iterdir())
    assert len(chunks) == first.chunks == first.predicted
    before = {path: path.stat().st_mtime_ns for path in chunks}
    chunks[1].unlink()
    again = predict(mine, inputs, chunk=2, part=Part(), executor=HERE)
    assert (again.predicted, again.answered) == (1, 9)
    changed = [path for path in chunks if path.stat().st_mtime_ns != before[path]]
    assert changed == [chunks[1]]
    with pytest.raises(ConfigError, match="holds another job: chunk was 2, is 3"):
        predict(mine, inputs, chunk=3, part=Part(), executor=HERE)
    with pytest.raises(ConfigError, match="save was"):
        predict(job(tmp_path / "out", save=("density",)), inputs, chunk=2, part=Part(), executor=HERE)


class Killed(BaseException):
    """As of a process."""


class Mortal:
    """An executor whose worker dies over every fluorine."""

    def __init__(self) -> None:
        self.alone: list[bool] = []

    def run(self, work: Callable[[Any], None], items: Sequence[Any], *, title: str, alone: bool = False) -> None:
        self.alone.append(alone)
        for item in items:
            try:
                work(item)
            except Killed as death:
                raise WorkerDiedError from death


def test_a_structure_that_kills_its_worker_costs_itself_alone(
    inputs: list[Path], tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = predictor.predict

    def deadly(structures: Sequence[Structure], **options: Any) -> Any:
        if any(9 in structure.numbers for structure in structures):
            raise Killed
        return plain(structures, **options)

    monkeypatch.setattr(predictor, "predict", deadly)
    done = predict(job(tmp_path / "out"), inputs, chunk=100, part=Part(), executor=Mortal())
    assert (done.answered, done.failed) == (8, 4)
    (lost,) = [line for line in failures(tmp_path / "out") if "died over this structure twice" in line["reason"]]
    assert (lost["file"], lost["frame"]) == ("many.extxyz", 7)
    assert {path.suffix for path in (tmp_path / "out" / "chunks").iterdir()} == {".h5"}


@pytest.mark.parametrize("size", [1, 3, 100])
def test_large_files_are_cut_at_their_frames(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = [displaced(name, seed) for seed, name in enumerate(NAMES)]
    xyz, sdf = tmp_path / "many.xyz", tmp_path / "many.sdf"
    write(xyz, atoms, format="extxyz")
    xyz.write_text(xyz.read_text().replace("3\nProp", "\n3\nProp"))
    records = ["".join(_sdf(one)) for one in atoms]
    sdf.write_text("$$$$\n".join(records) + "$$$$\n\n")
    whole = [found.structure for chunk in chunks_of([xyz], 100) for found in structures_of(chunk)]
    monkeypatch.setattr(pieces, "SCANNED_FROM", 1)
    for path in (xyz, sdf):
        chunks = list(chunks_of([path], size))
        assert len(chunks) == -(-len(NAMES) // size)
        found = [one for chunk in chunks for one in structures_of(chunk)]
        assert [one.place.frame for one in found] == list(range(len(NAMES)))
        for one, other in zip(found, whole, strict=True):
            assert isinstance(one.structure, Structure)
            assert isinstance(other, Structure)
            np.testing.assert_array_equal(one.structure.numbers, other.numbers)
            np.testing.assert_allclose(one.structure.positions_angstrom, other.positions_angstrom, atol=1e-4)


def _sdf(atoms: Atoms) -> list[str]:
    rows = [f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3} 0  0\n" for symbol, (x, y, z) in zip(atoms.symbols, atoms.positions, strict=True)]  # fmt: skip  # noqa: E501
    return ["\n\n\n", f"{len(atoms):3d}  0  0  0  0  0  0  0  0  0999 V2000\n", *rows, "M  END\n"]


def test_a_broken_count_ends_a_large_file_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "many.xyz"
    write(path, [displaced("H2O", 1), displaced("CH4", 2)], format="extxyz")
    path.write_text(path.read_text() + "what is this?\n")
    monkeypatch.setattr(pieces, "SCANNED_FROM", 1)
    found = [one.structure for chunk in chunks_of([path], 10) for one in structures_of(chunk)]
    assert [isinstance(structure, Structure) for structure in found] == [True, True, False]
    assert "frame 3" in str(found[2])


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_part_that_is_none_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["predict", str(CHECKPOINT), str(tmp_path), "-o", str(tmp_path / "out"), f"--part={text}"]
    assert main(arguments) == 1
    assert "two numbers like 2/8" in capsys.readouterr().err


def test_inputs_that_are_not_there_or_not_structures_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no structure")
    for name, words in (
        ("nowhere", "no file or folder"),
        ("empty", "holds no file of"),
        ("notes.txt", "no known format"),
    ):
        assert main(["predict", str(CHECKPOINT), str(tmp_path / name), "-o", str(tmp_path / "out")]) == 1
        assert words in capsys.readouterr().err
