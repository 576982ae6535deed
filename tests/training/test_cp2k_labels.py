"""Labels by CP2K: its output is read rightly (a stored real one), what goes wrong is said, and work that is done is kept.

The stored run is a chain of BH molecules, one atom outside the cell, SZV-MOLOPT-SR-GTH; its log is cut to what is read.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from model.blocks.block_set import BlockSet
from model.blocks.matrices import BlochSum
from model.electronic.bands import band_energies
from model.electronic.fermi import k_mesh
from model.formats.crystal_h5 import read_crystal_h5, structures_of
from model.integrals.pyscf_crystal import PySCFCrystal
from model.integrals.pyscf_molecule import load_basis
from model.structure import Structure
from training.__main__ import main
from training.data.sources import DatasetError, open_source
from training.generate.crystals.cp2k import WRAPPED_FROM, label_with_cp2k
from training.generate.crystals.cp2k_output import abort_reason, read_output
from training.generate.crystals.krks import label_with_pyscf
from training.generate.crystals.label import CrystalLabel, LabelError
from training.generate.crystals.levels import with_checked_level
from training.generate.crystals.recipe import read_crystal_recipe
from training.generate.crystals.run import generate_crystals, merge_crystals
from training.generate.crystals.settings import Cp2kSettings, PyscfSettings
from training.generate.crystals.wrapping import wrapped
from training.parts import Part
from training.tables import ConfigError

STORED = Path(__file__).parent / "stored" / "cp2k_bh"
BASIS = "gth-szv-molopt-sr"
EPS = 1e-7
"""CP2K's EPS_DEFAULT of the stored run: entries below are left out."""
LEVEL = {
    "basis": "SZV-MOLOPT-SR-GTH",
    "pyscf_basis": BASIS,
    "eps_default": EPS,
    "cutoff_rydberg": 200,
    "smearing_kelvin": 1000,
}
ABORTED = r"""
 *******************************************************************************
 *   ___                                                                       *
 *  /   \                                                                      *
 * [ABORT]                                                                     *
 *  \___/    The requested basis set <NOSUCH> for element <B> was not found in *
 *    |                     the basis set files <BASIS_MOLOPT>                 *
 *  O/|                                                                        *
 * /| |                                                                        *
 * / \                                          aobasis/basis_set_types.F:1509 *
 *******************************************************************************
"""


def chain() -> Structure:
    """The atoms of the stored run, as its recipe placed them."""
    cell = np.array([[3.2, 1.2, 0.5], [0.0, 10.5, 0.0], [0.0, 0.0, 10.5]])
    positions = np.array([[0.3, -0.2, 3.1], [2.4, 0.4, 3.6]])
    return Structure(np.array([5, 1]), positions, cell_angstrom=cell, pbc=(True, False, False))


def settings(command: Path | str = "cp2k.psmp", **values: object) -> Cp2kSettings:
    return Cp2kSettings.model_validate({**LEVEL, "command": str(command), **values})


def program(folder: Path, script: str) -> Path:
    """An executable in CP2K's place."""
    path = folder / "cp2k.fake"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def replay(folder: Path) -> Path:
    """A program that leaves the stored run's files."""
    return program(folder, f"cp {STORED}/* .\necho run >> {folder}/runs")


def stored_label(folder: Path) -> CrystalLabel:
    work = folder / "work"
    work.mkdir()
    return label_with_cp2k(chain(), settings(replay(folder)), (4, 1, 1), work)


def recipe_of(folder: Path, command: Path, count: int = 3) -> Path:
    atoms = [Atoms("BH", chain().positions_angstrom, cell=chain().cell_angstrom, pbc=[True, False, False])]
    write(folder / "chain.xyz", atoms, format="extxyz")
    level = "\n".join(f"{key} = {json.dumps(value)}" for key, value in LEVEL.items())
    path = folder / "chain.toml"
    path.write_text(
        f'[generate]\noutput = "made"\n[label]\nprogram = "cp2k"\ncommand = "{command}"\n{level}\n'
        f'[[structures]]\nkind = "file"\nname = "chain"\npath = "chain.xyz"\ncount = {count}\nk_points = [4, 1, 1]\n'
        "rattle = 1e-6\ntest_every = 3\nval_every = 2\n",
        encoding="utf-8",
    )
    return path


def test_the_stored_overlap_is_that_of_pyscf(tmp_path: Path) -> None:
    """Orders, signs and lattice shifts at once: any other assignment leaves 0.1."""
    label = stored_label(tmp_path)
    found = label.matrices.in_order("pyscf").overlap
    assert found is not None
    expected = PySCFCrystal(load_basis(BASIS, [1, 5])).integrals(chain(), found.pairs, {}).overlap
    assert isinstance(expected, BlockSet)
    assert np.abs(expected.values - found.values).max() < 100 * EPS
    assert found.pairs.shift[:, 0].max() == 2, "two cells away"
    assert np.abs(found.values[0]).max() == pytest.approx(1.0)


def test_figures_of_the_stored_run(tmp_path: Path) -> None:
    label = stored_label(tmp_path)
    assert label.matrices.program == "CP2K 2023.1"
    assert label.cycles == 15
    assert label.matrices.n_electrons == 4
    assert label.matrices.fermi_energy == pytest.approx(-0.04171832879724)
    assert label.energy_hartree == pytest.approx(-3.188989313522800)
    assert label.level == "PBE/SZV-MOLOPT-SR-GTH/GTH-PBE, 4x1x1, 1000 K"
    hamiltonian = label.matrices.require_hamiltonian()
    assert hamiltonian.hermitian_error() < 1e-9
    assert np.abs(BlochSum(hamiltonian)((0.3, 0.0, 0.0)).imag).max() > 1e-3
    assert np.array_equal(label.matrices.structure.positions_angstrom, chain().positions_angstrom)


def test_atoms_are_wrapped_as_cp2k_does_and_none_is_left_on_the_edge() -> None:
    cell = np.diag([3.0, 4.0, 12.0])
    positions = np.array([[1.5, 0.0, 6.0], [0.0, -2.0, 5.9]])  # on the edge at 1/2
    structure = Structure(np.array([6, 6]), positions, cell_angstrom=cell, pbc=(True, True, False))
    inside, cells = wrapped(structure, WRAPPED_FROM)
    fractional = inside.positions_angstrom @ np.linalg.inv(cell)
    assert (np.abs(fractional) < 0.5 - 1e-6).all()
    moved = inside.positions_angstrom + cells @ cell - positions
    assert np.ptp(moved, axis=0) == pytest.approx(0.0, abs=1e-12), "all atoms moved alike"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("SCF run converged in    15 steps", "SCF run NOT converged", "did not converge"),
        ("SCF run converged", "SCF run conv", "no converged SCF"),
        ("Number of electrons:", "Number of nothing:", "does not say the number of electrons"),
        (" KS CSR write|   5 periodic images", " KS CSR write|   6 periodic images", "lists 5 .* announces 6"),
    ],
)
def test_outputs_that_cannot_be_used_are_refused(before: str, after: str, said: str) -> None:
    text = (STORED / "label.out").read_text(encoding="utf-8")
    assert before in text
    with pytest.raises(Exception, match=said):
        read_output(text.replace(before, after), "output")


def test_the_reason_of_an_abort_is_found() -> None:
    assert abort_reason("much text\n" + ABORTED + "\n more").startswith(
        "The requested basis set <NOSUCH> for element <B> was not found in the basis set files <BASIS_MOLOPT>"
    )
    assert abort_reason("much text") == ""


def test_a_failing_a_slow_and_a_miscounting_program_are_label_errors(tmp_path: Path) -> None:
    failing = program(tmp_path, f"cat > label.out <<'X'\n{ABORTED}\nX\nexit 3")
    with pytest.raises(LabelError, match="ended with code 3: The requested basis set <NOSUCH>"):
        label_with_cp2k(chain(), settings(failing), (1, 1, 1), tmp_path)
    miscounting = program(tmp_path, f"cp {STORED}/* .\nsed -i 's/electrons: .*4/electrons: 6/' label.out")
    with pytest.raises(LabelError, match="counts 6 electrons, the pseudopotentials leave 4"):
        label_with_cp2k(chain(), settings(miscounting), (1, 1, 1), tmp_path)


def test_a_program_that_takes_too_long_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.generate.crystals.process.GRACE_SECONDS", 0)
    slow = program(tmp_path, "sleep 60 & wait")
    with pytest.raises(LabelError, match="took longer"):
        label_with_cp2k(chain(), settings(slow, minutes=0.02), (1, 1, 1), tmp_path)


def test_a_missing_program_is_one_line_that_says_how_to_install_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_of(tmp_path, tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="apt install cp2k"):
        generate_crystals(read_crystal_recipe(path))
    assert main(["generate", str(path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: CP2K is not installed")
    assert said.count("\n") == 1


def test_labels_that_are_done_are_not_made_again(tmp_path: Path) -> None:
    recipe = read_crystal_recipe(recipe_of(tmp_path, replay(tmp_path)))
    made = generate_crystals(recipe)
    assert (made.structures, made.labelled, made.failures) == (3, 3, ())
    assert structures_of(made.file) == {"chain_0000": "train", "chain_0001": "val", "chain_0002": "test"}
    assert generate_crystals(recipe).labelled == 0
    shards = sorted((recipe.output / "shards").glob("*.h5"))
    shards[0].unlink()
    (recipe.output / "shards" / f"{shards[1].stem}.123.part").write_bytes(b"half a shard")
    assert generate_crystals(recipe).labelled == 1
    assert (tmp_path / "runs").read_text(encoding="utf-8").count("run") == 4
    assert not [path for path in (recipe.output / "shards").iterdir() if path.is_dir()], "work is cleared away"


def test_parts_are_labelled_apart_and_merged(tmp_path: Path) -> None:
    recipe = read_crystal_recipe(recipe_of(tmp_path, replay(tmp_path)))
    first = generate_crystals(recipe, Part(1, 2))
    assert (first.structures, first.labelled) == (2, 2)
    assert not first.file.exists()
    with pytest.raises(ConfigError, match="1 of 3 structures are not done"):
        merge_crystals(recipe)
    generate_crystals(recipe, Part(2, 2))
    made = merge_crystals(recipe)
    assert (made.structures, made.failures) == (3, ())
    assert structures_of(made.file) == {"chain_0000": "train", "chain_0001": "val", "chain_0002": "test"}


def test_the_data_file_says_what_was_computed(tmp_path: Path) -> None:
    made = generate_crystals(read_crystal_recipe(recipe_of(tmp_path, replay(tmp_path))))
    read = read_crystal_h5(made.file, "chain_0001")
    expected = label_with_cp2k(read.structure, settings(replay(tmp_path)), (4, 1, 1), tmp_path).matrices
    pairs = read.require_hamiltonian().pairs
    for name, blocks in read.stored.items():
        other = expected.in_order("openmx").stored[name].on_pairs(pairs)
        assert np.abs(other.values - blocks.values).max() < 1e-7
    with h5py.File(made.file) as file:
        attributes = dict(file["chain_0001"].attrs)
    assert attributes["n_electrons"] == 4
    assert attributes["k_points"].tolist() == [4, 1, 1]
    assert not attributes["folded"]
    with open_source(made.file) as source:
        assert str(source.level) == f"pbe/{BASIS}, gth-pbe"
        assert source.level.program_version == "2023.1"
        assert {name: len(found) for name, found in source.splits("file").items()} == {"train": 1, "val": 1, "test": 1}


def test_the_level_of_an_insulator_is_the_middle_of_its_gap_and_of_other_bands_an_error(tmp_path: Path) -> None:
    matrices = stored_label(tmp_path).matrices
    checked = with_checked_level(matrices, settings().smearing_hartree)
    assert matrices.overlap is not None
    bands = band_energies(matrices.require_hamiltonian(), matrices.overlap, k_mesh((4, 1, 1))[0]).energies[0]
    assert checked.fermi_energy == pytest.approx((bands[:, 1].max() + bands[:, 2].min()) / 2)
    assert matrices.fermi_energy is not None
    assert bands[:, 1].max() < matrices.fermi_energy < bands[:, 2].min()
    wrong = dataclasses.replace(matrices, fermi_energy=float(bands[:, 0].max()))
    with pytest.raises(LabelError, match=r"holds 1\.75 electrons .* not 4"):
        with_checked_level(wrong, settings().smearing_hartree)


def test_inspect_checks_electrons_on_the_mesh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = generate_crystals(read_crystal_recipe(recipe_of(tmp_path, replay(tmp_path))))
    assert main(["inspect", str(made.file)]) == 0
    text = capsys.readouterr().out
    for words in ("k-points     4x1x1", "electrons    4", "ok           electrons: bands below the Fermi level"):
        assert words in text
    with h5py.File(made.file, "r+") as file:
        file["chain_0001"].attrs["n_electrons"] = 6.0
    assert main(["inspect", str(made.file)]) == 1
    assert "error        electrons: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("dataset", "spoil", "check"),
    [
        ("overlap", lambda entries, n: entries[1 : n - 1].__iadd__(0.9), "overlap"),
        ("hamiltonian_eV", lambda entries, n: entries[1:n].__iadd__(0.5), "hermitian"),
    ],
)
def test_inspect_finds_what_was_spoilt_in_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dataset: str, spoil: Any, check: str
) -> None:
    made = generate_crystals(read_crystal_recipe(recipe_of(tmp_path, replay(tmp_path))))
    with h5py.File(made.file, "r+") as file:
        group = file["chain_0002"]
        n = int(group["shapes"][0, 1])
        entries = group[dataset][:]
        spoil(entries, n)
        group[dataset][:] = entries
    assert main(["inspect", str(made.file)]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("error")]
    assert any(f"{check}: " in line and "chain_0002" in line for line in lines)


def test_sigterm_ends_the_program_too_and_keeps_what_is_done(tmp_path: Path) -> None:
    slow = program(
        tmp_path,
        f"echo run >> {tmp_path}/runs\ncp {STORED}/* .\n"
        f"if [ $(wc -l < {tmp_path}/runs) = 2 ]; then echo $$ > {tmp_path}/pid; exec sleep 60; fi",
    )
    path = recipe_of(tmp_path, slow)
    running = subprocess.Popen([sys.executable, "-m", "training", "generate", str(path)], stderr=subprocess.DEVNULL)
    waited = 0.0
    while not (tmp_path / "pid").is_file() and waited < 60:
        time.sleep(0.1)
        waited += 0.1
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=60) == 128 + signal.SIGTERM
    program_id = int((tmp_path / "pid").read_text(encoding="utf-8"))
    with pytest.raises(ProcessLookupError):
        os.kill(program_id, 0)
    assert list(structures_of(tmp_path / "made" / "crystals.h5")) == ["chain_0000"]
    assert not [folder for folder in (tmp_path / "made" / "shards").iterdir() if folder.is_dir()]


def test_failures_are_recorded_and_not_tried_again(tmp_path: Path) -> None:
    broken = program(
        tmp_path,
        f"echo run >> {tmp_path}/runs\ncp {STORED}/* .\n"
        f"[ $(wc -l < {tmp_path}/runs) = 2 ] && sed -i 's/run converged in/run NOT converged/' label.out\nexit 0",
    )
    recipe = read_crystal_recipe(recipe_of(tmp_path, broken))
    made = generate_crystals(recipe)
    assert (made.structures, made.labelled) == (2, 2)
    lines = (recipe.output / "failures.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1
    assert "did not converge" in json.loads(lines[0])["reason"]
    assert generate_crystals(recipe).labelled == 0


def test_a_set_without_any_label_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="No structure could be labelled"):
        generate_crystals(read_crystal_recipe(recipe_of(tmp_path, program(tmp_path, "exit 1"))))


def test_a_label_that_does_not_turn_with_its_structure_is_refused(tmp_path: Path) -> None:
    """The replayed program answers the turned copy with the matrices of the first: they do not turn."""
    path = recipe_of(tmp_path, replay(tmp_path))
    path.write_text(path.read_text(encoding="utf-8").replace("[label]", "check_every = 1\n[label]"), encoding="utf-8")
    with pytest.raises(DatasetError):
        generate_crystals(read_crystal_recipe(path))
    reasons = (tmp_path / "made" / "failures.jsonl").read_text(encoding="utf-8")
    assert "turned structure differs by" in reasons


@pytest.mark.skipif(shutil.which("cp2k.psmp") is None, reason="CP2K is not installed (apt install cp2k)")
def test_cp2k_and_pyscf_make_the_same_label(tmp_path: Path) -> None:
    """Two programs, compared on the k-points of the mesh, where the folded matrix is exact however short the supercell."""
    cell = np.array([[2.5, 0.6, 0.2], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]])
    positions = np.array([[0.3, -0.2, 3.1], [3.5, 0.7, 3.2]])
    hydrogen = Structure(np.array([1, 1]), positions, cell_angstrom=cell, pbc=(True, True, True))
    mesh = (3, 2, 2)
    level = {"basis": "SZV-MOLOPT-SR-GTH", "pyscf_basis": BASIS, "smearing_kelvin": 1000}
    by_cp2k = label_with_cp2k(hydrogen, Cp2kSettings.model_validate(level), mesh, tmp_path).matrices.in_order("pyscf")
    by_pyscf = label_with_pyscf(hydrogen, PyscfSettings(program="pyscf", smearing_kelvin=1000), mesh).matrices
    matrices = [
        np.stack([BlochSum(blocks)(k) for k in k_mesh(mesh)[0]])
        for found in (by_cp2k, by_pyscf)
        for blocks in (found.require_hamiltonian(), found.overlap)
        if blocks is not None
    ]
    h_cp2k, s_cp2k, h_pyscf, s_pyscf = matrices
    assert np.abs(s_cp2k - s_pyscf).max() < 1e-5
    difference = h_cp2k - h_pyscf
    difference -= (np.vdot(s_pyscf, difference) / np.vdot(s_pyscf, s_pyscf)).real * s_pyscf
    assert np.abs(difference).max() < 3e-5
    assert np.abs(h_pyscf).max() > 0.1
