"""Choosing what to label next: the pool is made of valid new molecules, held-out formulas stay out, errors decide."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from training.__main__ import main
from training.selection.choose import Rules, choose
from training.selection.expected import Candidate, Judged, judge
from training.selection.neighbours import neighbours

from .conftest import write_recipe

chem = pytest.importorskip("rdkit.Chem")
pytest.importorskip("tblite")

DEFAULT = Path(__file__).parents[2] / "checkpoints" / "default"
SEEDS = ["CCO", "c1cc[nH]c1", "N#CC=O"]
ELEMENTS = ["H", "C", "N", "O", "F"]


def made(changes: int, count: int, max_heavy: int = 6) -> list[str]:
    return list(neighbours(SEEDS, elements=ELEMENTS, changes=changes, max_heavy=max_heavy, count=count, seed=1))


def test_neighbours_are_new_neutral_closed_shell_molecules() -> None:
    found = made(2, 150)
    assert len(set(found)) == 150
    assert not {chem.MolToSmiles(chem.MolFromSmiles(seed)) for seed in SEEDS} & set(found)
    for smiles in found:
        molecule = chem.MolFromSmiles(smiles)
        assert chem.MolToSmiles(molecule) == smiles
        assert molecule.GetNumAtoms() <= 6
        assert len(chem.GetMolFrags(molecule)) == 1
        for atom in molecule.GetAtoms():
            assert atom.GetSymbol() in ELEMENTS
            assert not atom.GetNumRadicalElectrons()


def test_one_change_moves_one_atom_or_bond() -> None:
    single = list(neighbours(["CCO"], elements=ELEMENTS, changes=1, max_heavy=9, count=1000, seed=0))
    assert {"C=CO", "CC=O", "CCN", "CCF", "CC", "CO", "CCCO", "CC(C)O", "CCOF"} <= set(single)
    assert not {"C", "c1cc[nH]c1", "CCCCO", "N#CO"} & set(single), "two changes away and more"


def test_a_pool_that_is_exhausted_ends() -> None:
    found = list(neighbours(["C"], elements=["C"], changes=1, max_heavy=2, count=1000, seed=0))
    assert found == ["CC"]


def test_the_same_seed_gives_the_same_pool() -> None:
    assert made(1, 20) == made(1, 20)


def test_half_are_the_worst_and_half_are_drawn() -> None:
    judged = [Judged(smiles, 1.0 / rank) for rank, smiles in enumerate(made(2, 300), start=1)]
    worst = choose(judged, Rules(count=20, random_share=0.0, per_formula=2))
    errors = [one.error for one in worst]
    assert len(errors) == 20
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] > 1.0 / 60, "only what is alike was passed over"
    counts = Counter(
        tuple(
            sorted(Counter(atom.GetSymbol() for atom in chem.AddHs(chem.MolFromSmiles(one.smiles)).GetAtoms()).items())
        )
        for one in worst
    )
    assert max(counts.values()) <= 2
    mixed = choose(judged, Rules(count=20, random_share=0.5, per_formula=2))
    assert len(mixed) == 20
    assert sum(one.error >= errors[9] for one in mixed) >= 10
    assert min(one.error for one in mixed) < 1.0 / 100


def test_a_molecule_without_a_geometry_says_why() -> None:
    assert "RDKit cannot read" in judge(Candidate("C(C)(C)(C)(C)C", DEFAULT, 0)).reason
    assert judge(Candidate("CO", DEFAULT, 0)).error < judge(Candidate("FON=NOF", DEFAULT, 0)).error


def test_select_writes_a_file_for_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pool.smi").write_text("OC\nCCO\nNN\nC1CO1\nFF\n[NH4+]\nCS\nCCCCCCCCCC\nxyz\n")
    recipe = write_recipe(tmp_path, '[smiles]\ninline = ["CO train", "CC=O test"]')
    output = tmp_path / "chosen.smi"
    command = ["select", str(DEFAULT), "-o", str(output), "--known", str(recipe), "--pool", str(tmp_path / "pool.smi")]
    command += ["--held-out", "C2H6O", "--count", "5", "--max-heavy", "3", "--processes", "0"]
    assert main(command) == 0
    said = capsys.readouterr().out
    lines = output.read_text().splitlines()
    assert lines[0].startswith("# chosen of 2 by default")
    assert sorted(lines[1:]) == ["FF train", "NN train"]
    for reason in (
        "1 labelled already",
        "2 of a held-out formula",
        "1 too large",
        "2 charged, or of other",
        "1 RDKit cannot read",
    ):
        assert f"left out: {reason}" in said
    judged = output.with_suffix(".judged.jsonl")
    before = judged.read_text()
    assert main(command) == 0
    assert judged.read_text() == before, "nothing is judged twice"


@pytest.mark.parametrize(
    ("option", "message"),
    [(["--random-share", "2"], "--random-share"), (["--changes", "0"], "--changes"), ([], "no molecule to judge")],
)
def test_what_cannot_be_chosen_is_refused(
    option: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["select", str(DEFAULT), "-o", str(tmp_path / "out.smi"), "--count", "3", *option]) == 1
    assert message in capsys.readouterr().err


def test_a_checkpoint_that_expects_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", str(DEFAULT.parent / "bcn"), "-o", str(tmp_path / "out.smi"), "--count", "3"]) == 1
    assert "does not say what error to expect" in capsys.readouterr().err
