"""Labels by GPAW: H, S and spin-orbit coupling against a set made by another script, and what is refused.

GPAW runs in a Python of its own; where there is none the tests that need it are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg

from model.blocks.block_set import BlockSet
from model.blocks.matrices import BlochSum
from model.blocks.motions import time_reversal_error
from model.electronic.fermi import k_mesh
from model.formats.crystal_h5 import read_crystal_h5
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import Structure
from model.units import EV_PER_HARTREE
from training.generate.crystals.check import turn_error, turned_copy
from training.generate.crystals.gpaw import label_of, label_with_gpaw
from training.generate.crystals.label import CrystalLabel, LabelError
from training.generate.crystals.programs import require_program
from training.generate.crystals.settings import GpawSettings
from training.generate.crystals.wrapping import centred, wrapped
from training.tables import ConfigError

ROOT = Path(__file__).resolve().parents[2]
CRYSTALS = Path(os.environ.get("TRACEGRAD_CRYSTALS", ROOT.parent / "shared" / "data" / "crystals"))
SETTINGS = GpawSettings(program="gpaw")
SPACE = OrbitalSpace("dzp", {5: (0, 1, 0), 7: (0, 1, 1)}, order="gpaw")
"""Shells out of sequence, as GPAW lists them."""
SHEET = Structure(
    np.array([5, 7]),
    np.array([[-0.1, 0.0, 0.0], [0.05, 1.45, 0.3]]),
    cell_angstrom=np.array([[2.5, 0.0, 0.0], [-1.25, 2.5 * np.sqrt(0.75), 0.0], [0.0, 0.0, 8.0]]),
    pbc=(True, True, False),
)


@cache
def has_gpaw() -> bool:
    try:
        return subprocess.run([SETTINGS.command, "-c", "import gpaw"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


needs_gpaw = pytest.mark.skipif(not has_gpaw(), reason=f"{SETTINGS.command} has no GPAW (apt install gpaw gpaw-data)")


def result_of(blocks: BlockSet, overlap: BlockSet, mesh: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """What the script would write for these matrices."""
    points, _ = k_mesh(mesh)
    parts: list[Any] = []
    for part in blocks.values:
        plain = BlockSet(blocks.space, blocks.numbers, blocks.pairs, part[None], "restricted")
        parts.append(np.stack([BlochSum(plain)(k) for k in points]))
    h = np.stack(parts)
    s = np.stack([BlochSum(overlap)(k) for k in points])
    wide = h[0] if len(h) == 1 else np.concatenate([np.concatenate(h[:2], 2), np.concatenate(h[2:], 2)], 1)
    metric = s if len(h) == 1 else np.stack([np.kron(np.eye(2), own) for own in s])
    levels = [scipy.linalg.eigh(a, b, eigvals_only=True) for a, b in zip(wide, metric, strict=True)]
    return {
        "hamiltonian": h,
        "overlap": s[None],
        "k_points": points,
        "eigenvalues": np.array(levels),
        "fermi": np.array(-0.1),
        "energy": np.array(-3.0),
        "n_electrons": np.array(8),
        "cycles": np.array(9),
        "version": np.array("22.8.0"),
        "shells": np.array(json.dumps([list(SPACE.shells[z]) for z in SHEET.numbers.tolist()])),
    }


def random_label(spin: Any) -> tuple[CrystalLabel, BlockSet, dict[str, np.ndarray]]:
    inside, cells = wrapped(centred(SHEET), 0.0)
    pairs = PairList.within(inside, 5.0)
    rng = np.random.default_rng(0)
    blocks = BlockSet.zeros(SPACE, inside.numbers, pairs, spin)
    values = rng.normal(size=blocks.values.shape) * np.exp(-2.0 * 0.5)
    values = values + 1j * rng.normal(size=values.shape) if spin == "spinor" else values
    blocks = blocks.with_values(values).hermitised()
    overlap = BlockSet.zeros(SPACE, inside.numbers, pairs)
    for atom in range(2):
        size = overlap.block(atom).shape[-1]
        overlap.values[0, overlap.starts[atom] : overlap.starts[atom + 1]] = np.eye(size).ravel()
    result = result_of(blocks, overlap, (5, 5, 1))
    settings = SETTINGS.model_copy(update={"spin_orbit": spin == "spinor"})
    return label_of(SHEET, inside, cells, result, settings, (5, 5, 1)), blocks, result


@pytest.mark.parametrize("spin", ["restricted", "spinor"])
def test_matrices_come_to_the_atoms_as_they_were_placed_and_shells_ascend(spin: Any) -> None:
    label, blocks, _ = random_label(spin)
    found = label.matrices
    hamiltonian = found.require_hamiltonian()
    assert found.space.shells == {5: (0, 0, 1), 7: (0, 1, 1)}
    assert np.array_equal(found.structure.positions_angstrom, SHEET.positions_angstrom)
    assert hamiltonian.pairs.distances_angstrom.max() < 5.0, "lattice shifts followed the atoms"
    assert np.linalg.norm(hamiltonian.values) == pytest.approx(np.linalg.norm(blocks.values))
    assert hamiltonian.spin == spin
    assert found.is_folded
    assert found.program == "GPAW 22.8.0"


def test_matrices_without_the_stated_eigenvalues_are_refused() -> None:
    _, _, result = random_label("restricted")
    inside, cells = wrapped(centred(SHEET), 0.0)
    result["eigenvalues"] = result["eigenvalues"] + 1e-5
    with pytest.raises(LabelError, match="other eigenvalues than GPAW states"):
        label_of(SHEET, inside, cells, result, SETTINGS, (5, 5, 1))


def test_layers_are_put_into_the_middle_of_their_vacuum() -> None:
    moved = centred(SHEET)
    assert moved.positions_angstrom[:, 2].mean() == pytest.approx(4.0)
    assert np.ptp(moved.positions_angstrom - SHEET.positions_angstrom, axis=0) == pytest.approx(0.0, abs=1e-12)


def test_a_python_without_gpaw_is_one_line_that_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"GPAW is not installed.*apt install gpaw"):
        require_program(SETTINGS.model_copy(update={"command": str(tmp_path / "python3")}))
    other = tmp_path / "python3"
    other.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n', encoding="utf-8")
    other.chmod(0o755)
    with pytest.raises(LabelError, match="GPAW ended with code 1") as raised:
        label_with_gpaw(SHEET, SETTINGS.model_copy(update={"command": str(other)}), (1, 1, 1), tmp_path)
    assert "\n" not in str(raised.value)


@needs_gpaw
def test_spin_orbit_labels_are_those_of_the_shared_set(tmp_path: Path) -> None:
    """Transposes, wrapping, orders, the fold and the Pauli matrices at once, against labels of an independent script."""
    path = CRYSTALS / "bismuthene_soc.h5"
    if not path.exists():
        pytest.skip("bismuthene_soc.h5 is not there (set TRACEGRAD_CRYSTALS; docs/datasets.md)")
    expected = read_crystal_h5(path)
    structure = replace(expected.structure, pbc=(True, True, False))
    settings = SETTINGS.model_copy(update={"spin_orbit": True})
    found = label_with_gpaw(structure, settings, (5, 5, 1), tmp_path).matrices.in_order("openmx")
    h, s = expected.require_hamiltonian(), expected.overlap
    assert s is not None
    assert found.overlap is not None
    assert np.abs(found.overlap.on_pairs(s.pairs).values - s.values).max() < 1e-6
    metric = np.zeros_like(h.values)
    metric[[0, 3]] = s.values[0]
    difference = found.require_hamiltonian().on_pairs(h.pairs).values - h.values
    difference -= np.vdot(metric, difference) / np.vdot(metric, metric) * metric
    error = np.abs(difference) * 1000 * EV_PER_HARTREE
    assert error.mean() < 0.02
    assert error.max() < 5.0
    assert np.abs(h.values[1]).max() * EV_PER_HARTREE > 0.3, "coupling is there"
    assert time_reversal_error(found.require_hamiltonian()) < 1e-8


@needs_gpaw
def test_a_label_turns_with_its_structure(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"basis": "sz(dzp)", "convergence": 1e-4})
    labels = []
    for name, structure in (("one", SHEET), ("other", turned_copy(SHEET))):
        folder = tmp_path / name
        folder.mkdir()
        labels.append(label_with_gpaw(structure, settings, (3, 3, 1), folder))
    error = turn_error(*labels)
    assert error.mean < 1.0
    assert error.largest < 100.0
    unturned = replace(labels[1], matrices=replace(labels[1].matrices, hamiltonian=labels[0].matrices.hamiltonian))
    assert turn_error(labels[0], unturned).largest > 1000.0
