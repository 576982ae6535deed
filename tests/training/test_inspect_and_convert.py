"""``inspect`` and ``convert``: what they say, what they refuse, and what the lint finds in labels that were spoilt."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from model.blocks.block_set import BlockSet
from model.blocks.motions import turn
from model.formats.deeph import write_deeph
from model.formats.matrices import Matrices
from model.formats.rearrange import structure_of
from model.formats.registry import read
from model.formats.units import DEEPH_EV
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from training.__main__ import main
from training.data.finding import Finding
from training.data.inspection import inspect
from training.data.lint import lint
from training.data.symmetry import compare_symmetries, symmetries

from .layouts import label, write_stable

ROOT = Path(__file__).resolve().parents[2]
CRYSTALS = Path(os.environ.get("TRACEGRAD_CRYSTALS", ROOT.parent / "shared" / "data" / "crystals"))
SHELLS = {5: (0, 1), 7: (0, 1, 2)}


def public(name: str) -> Path:
    path = CRYSTALS / "public" / name
    if not path.exists():
        pytest.skip(f"{name} is not there (set TRACEGRAD_CRYSTALS; docs/datasets.md)")
    return path


def sheet(
    seed: int = 0, *, spin: str = "restricted", rotation: np.ndarray | None = None, order: str = "e3nn"
) -> Matrices:
    """Hexagonal BN; H is a smooth function of the bond vectors, so it turns with the sheet and has its symmetries."""
    cell = np.array([[2.5, 0.0, 0.0], [-1.25, 2.5 * np.sqrt(0.75), 0.0], [0.0, 0.0, 12.0]])
    positions = np.array([[0.0, 0.0, 3.0], [1.25, 2.5 / np.sqrt(12), 3.0]])
    numbers = np.array([5, 7])
    rng = np.random.default_rng(seed)
    positions = positions + (rng.normal(size=(2, 3)) * 0.02 if seed else 0.0)
    structure = replace(structure_of(numbers, positions, cell), pbc=(True, True, False))
    space = OrbitalSpace("test", SHELLS, order="e3nn")
    pairs = PairList.within(structure, 4.0)
    blocks = BlockSet.zeros(space, numbers, pairs)
    for pair, (vector, distance) in enumerate(zip(pairs.vectors_angstrom, pairs.distances_angstrom, strict=True)):
        decay = 0.3 * np.exp(-distance)
        y, z, x = vector[[1, 2, 0]] / max(distance, 1e-9) * (distance > 0)
        harmonics = np.array([1.0, y, z, x, *(np.sqrt(3) * np.array([x * y, y * z, 0.0, x * z, 0.0]))])
        harmonics[6] = 0.5 * (3 * z * z - 1) * (distance > 0)
        harmonics[8] = 0.5 * np.sqrt(3) * (x * x - y * y)
        parity = np.array([1.0] + [-1.0] * 3 + [1.0] * 5)
        sizes = [sum(2 * ang + 1 for ang in SHELLS[int(numbers[side[pair]])]) for side in (pairs.first, pairs.second)]
        own = decay * np.outer(harmonics[: sizes[0]], (parity * harmonics)[: sizes[1]])
        if distance == 0:
            own = np.diag(np.repeat([-0.5, -0.2, 0.4], [1, 3, 5])[: sizes[0]])
        blocks.values[0, blocks.starts[pair] : blocks.starts[pair + 1]] = own.ravel()
    blocks = blocks.hermitised()
    overlap = blocks.with_values(0.05 * blocks.values)
    for atom in range(2):
        size = int(np.sqrt(overlap.starts[atom + 1]) if atom == 0 else np.sqrt(overlap.starts[2] - overlap.starts[1]))
        overlap.values[0, overlap.starts[atom] : overlap.starts[atom + 1]] = np.eye(size).ravel()
    made = Matrices(structure, blocks, overlap, fermi_energy=-0.1)
    if rotation is not None:
        made = rotated(made, rotation)
    return made.in_order(order)


def rotated(matrices: Matrices, rotation: np.ndarray) -> Matrices:
    structure = matrices.structure
    assert structure.cell_angstrom is not None
    turned: dict[str, Any] = {name: turn(blocks, rotation) for name, blocks in matrices.stored.items()}
    moved = replace(
        structure,
        positions_angstrom=structure.positions_angstrom @ rotation.T,
        cell_angstrom=structure.cell_angstrom @ rotation.T,
    )
    return replace(matrices, structure=moved, **turned)


TURN = Rotation.from_rotvec([0.4, -0.8, 0.3]).as_matrix()


def claimed(matrices: Matrices, order: str) -> Matrices:
    """The same numbers under another order's name: what a wrong converter writes."""
    space = OrbitalSpace("claimed", matrices.space.shells, order=order)
    made: dict[str, Any] = {name: replace(blocks, space=space) for name, blocks in matrices.stored.items()}
    return replace(matrices, **made)


def found(findings: list[Finding], check: str) -> Finding:
    return next(finding for finding in findings if finding.check == check)


def test_symmetries_of_a_hexagonal_sheet() -> None:
    """D3h has twelve operations; a matrix made of bond vectors has them all."""
    flat = sheet()
    assert len(list(symmetries(flat.structure))) == 11
    comparison = compare_symmetries(flat.structure, flat.require_hamiltonian())
    assert comparison is not None
    assert comparison.operations == 11
    assert comparison.largest < 1e-12
    wrong = claimed(flat.in_order("openmx"), "e3nn")
    spoilt = compare_symmetries(wrong.structure, wrong.require_hamiltonian())
    assert spoilt is not None
    assert spoilt.largest > 0.05
    rattled = sheet(seed=3)
    assert not list(symmetries(rattled.structure))


def test_rotated_copies() -> None:
    pair = [("first", sheet(3)), ("second", sheet(3, rotation=TURN))]
    assert found(lint(pair), "rotation").severity == "ok"
    assert "1 rotated copies" in found(lint(pair), "rotation").detail
    wrong = [pair[0], ("second", claimed(pair[1][1].in_order("siesta"), "e3nn"))]
    assert found(lint(wrong), "rotation").severity == "error"


def test_what_the_lint_finds() -> None:
    good = sheet(3)
    assert {finding.severity for finding in lint([("good", good)])} == {"ok"}
    hamiltonian, overlap = good.require_hamiltonian(), good.overlap
    assert overlap is not None
    skewed = hamiltonian.values.copy()
    skewed[0, -1] += 0.01
    assert (
        found(lint([("x", replace(good, hamiltonian=hamiltonian.with_values(skewed)))]), "hermitian").severity
        == "error"
    )
    negative = replace(good, overlap=overlap.with_values(-overlap.values))
    assert "not positive definite" in found(lint([("x", negative)]), "overlap").detail
    assert found(lint([("x", replace(good, fermi_energy=None))]), "Fermi level").severity == "warning"
    bare = lint([("x", replace(good, hamiltonian=None))])
    assert found(bare, "no Hamiltonian").severity == "warning"
    frames = [(f"{seed}", sheet(seed)) for seed in range(1, 9)]
    assert found(lint(frames), "outliers").severity == "ok"
    broken = frames[4][1].require_hamiltonian()
    values = broken.values.copy()
    values[0, : broken.starts[1]] += 3.0 * np.eye(4).ravel()
    frames[4] = ("5", replace(frames[4][1], hamiltonian=broken.with_values(values)))
    outlier = found(lint(frames), "outliers")
    assert outlier.severity == "warning"
    assert outlier.detail.startswith("5:")


def test_time_reversal_is_measured() -> None:
    plain = sheet(3)
    values = plain.require_hamiltonian().values[0].astype(complex)
    zero = np.zeros_like(values)
    for field, words in ((0.0, "holds"), (0.01, "is broken")):
        parts = np.stack([values + field, zero, zero, values - field])
        spinor = BlockSet(plain.space, plain.structure.numbers, plain.require_hamiltonian().pairs, parts, "spinor")
        made = replace(plain, hamiltonian=spinor.hermitised())
        assert words in found(lint([("x", made)]), "time reversal").detail


def test_inspect_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_deeph(sheet(3), tmp_path / "one")
    assert main(["inspect", str(tmp_path / "one")]) == 0
    text = capsys.readouterr().out
    for words in (
        "deeph (DeepH folder, new layout)",
        "formulas     BN",
        "B 1s 1p; N 1s 1p 1d",
        "periodic     ab",
        "-2.72",
    ):
        assert words in text
    write_deeph(claimed(sheet().in_order("openmx"), "e3nn"), tmp_path / "wrong")
    assert main(["inspect", str(tmp_path / "wrong")]) == 1
    assert "error" in capsys.readouterr().out


def test_inspect_knows_the_molecular_sets_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_stable(tmp_path / "QH9Stable.db", [label("H2O", "b3lyp5", seed) for seed in range(3)])
    assert main(["inspect", str(tmp_path / "QH9Stable.db"), "--read", "2"]) == 0
    text = capsys.readouterr().out
    assert "b3lyp5/def2-svp" in text
    assert "3, 2 of them read" in text


@pytest.mark.parametrize("command", [["inspect"], ["convert", "--to", "deeph"]])
def test_what_is_not_there_or_not_known_is_exit_code_1(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for source, words in (("absent", "is not there"), ("empty", "no known format")):
        target = [str(tmp_path / "made")] if command[0] == "convert" else []
        assert main([command[0], str(tmp_path / source), *target, *command[1:]]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert words in error
        assert error.count("\n") == 1


def test_convert_a_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 2):
        write_deeph(sheet(seed), tmp_path / "set" / f"{seed}")
    assert main(["convert", str(tmp_path / "set"), str(tmp_path / "made"), "--to", "abacus"]) == 0
    assert "the Fermi level is left out" in capsys.readouterr().out
    for seed in (1, 2):
        again = read(tmp_path / "made" / f"{seed}").require_hamiltonian().in_order("e3nn")
        expected = sheet(seed).require_hamiltonian()
        assert np.abs(again.on_pairs(expected.pairs).values - expected.values).max() < 1e-14
    assert main(["convert", str(tmp_path / "set"), str(tmp_path / "made"), "--to", "deeph"]) == 1
    assert "there already" in capsys.readouterr().err


def test_convert_with_a_density_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sisl")
    write_deeph(sheet(3), tmp_path / "one")
    arguments = ["convert", str(tmp_path / "one"), str(tmp_path / "run"), "--to", "siesta", "--k-mesh", "4", "4", "1"]
    assert main([*arguments, "--electrons", "4"]) == 0
    assert "density" in capsys.readouterr().out
    made = read(tmp_path / "run")
    assert made.n_electrons == 4
    assert (tmp_path / "run" / "siesta.DM").is_file()


def test_convert_of_overlaps_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_deeph(replace(sheet(3), hamiltonian=None), tmp_path / "one")
    assert main(["convert", str(tmp_path / "one"), str(tmp_path / "two"), "--to", "deeph-legacy"]) == 0
    assert not (tmp_path / "two" / "hamiltonians.h5").exists()
    arguments = ["convert", str(tmp_path / "one"), str(tmp_path / "three"), "--to", "siesta", "--k-mesh", "2", "2", "1"]
    assert main(arguments) == 1
    assert "no Hamiltonian" in capsys.readouterr().err


def test_mote2_legacy_to_new(tmp_path: Path) -> None:
    assert main(["convert", str(public("deeph_dock/MoTe2_legacy")), str(tmp_path / "new"), "--to", "deeph"]) == 0
    ours, theirs = read(tmp_path / "new", unit=DEEPH_EV), read(public("deeph_dock/MoTe2_new"), unit=DEEPH_EV)
    for name, blocks in theirs.stored.items():
        assert ours.stored[name].values.tobytes() == blocks.values.tobytes()
    with h5py.File(tmp_path / "new" / "hamiltonian.h5") as file:
        assert file["entries"].dtype == np.float64
    assert json.loads((tmp_path / "new" / "info.json").read_text())["fermi_energy_eV"] == theirs.fermi_energy


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("deeph_dock/MoTe2_legacy", "11 symmetries of MoTe2_legacy"),
        ("deeph_dock/H2O_rotated", "3 rotated copies of a structure: H turns with them to 0.31 meV"),
        ("deeph_dock/MoS2_abacus_raw", "114 of 353 have H but no overlap"),
        ("deeph_dock/Bi2Se3_SOC_overlap_and_bands_only", "overlaps only in Bi2Se3"),
        ("deeph_dock/molecules_mixed_elements", "not stated for 1000, 1001, 1002 (3 of 13)"),
    ],
)
def test_public_sets(name: str, words: str) -> None:
    made = inspect(public(name))
    assert made.is_sound
    assert words in str(made)
