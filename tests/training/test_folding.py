"""H(k) of a mesh back to H(R): exact where H is shorter than the supercell, hermitian where images tie; KRKS against PySCF's
own plain-wave grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from pyscf.pbc import dft, gto
from pyscf.pbc.scf import addons

from model.blocks.block_set import BlockSet
from model.blocks.matrices import BlochSum
from model.electronic.fermi import k_mesh
from model.errors import DamagedFileError
from model.formats.matrices import Matrices
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import Structure
from training.__main__ import main
from training.data.inspection import inspect
from training.data.lint_mesh import check_reach, supercell_radius
from training.data.sources import open_source
from training.generate.crystals.folding import fold_back
from training.generate.crystals.krks import label_with_pyscf
from training.generate.crystals.label import LabelError
from training.generate.crystals.settings import HARTREE_PER_KELVIN, PyscfSettings

SPACE = OrbitalSpace("test", {5: (0, 1), 7: (0, 1)}, order="e3nn")
CELL = np.array([[2.5, 0.0, 0.0], [-1.25, 2.5 * np.sqrt(0.75), 0.0], [0.0, 0.0, 12.0]])
BN = Structure(
    np.array([5, 7]), np.array([[0.0, 0.0, 1.0], [0.05, 1.45, 1.1]]), cell_angstrom=CELL, pbc=(True, True, False)
)


def random_blocks(reach: float, spin: Any = "restricted") -> BlockSet:
    pairs = PairList.within(BN, reach)
    blocks = BlockSet.zeros(SPACE, BN.numbers, pairs, spin)
    rng = np.random.default_rng(0)
    values = rng.normal(size=blocks.values.shape)
    return blocks.with_values(values + 1j * rng.normal(size=values.shape) if spin == "spinor" else values).hermitised()


def at_k(blocks: BlockSet, points: np.ndarray) -> np.ndarray:
    """(spin part, k, orbital, orbital)."""
    parts = []
    for part in blocks.values:
        plain = BlockSet(blocks.space, blocks.numbers, blocks.pairs, part[None], "restricted")
        parts.append(np.stack([BlochSum(plain)(k) for k in points]))
    return np.stack(parts)


@pytest.mark.parametrize("spin", ["restricted", "spinor"])
def test_matrices_shorter_than_half_the_supercell_come_back(spin: Any) -> None:
    blocks, overlap = random_blocks(5.0, spin), random_blocks(4.0)
    points, _ = k_mesh((5, 5, 1))
    matrices = [at_k(blocks, points), at_k(overlap, points)]
    found = fold_back(BN, SPACE, points, matrices, (5, 5, 1), spin)
    for back, expected in zip(found, (blocks, overlap), strict=True):
        assert back.spin == expected.spin
        assert np.abs(back.on_pairs(expected.pairs).values - expected.values).max() < 1e-13
        beyond = back.pairs.distances_angstrom > (5.0 if expected is blocks else 4.0)
        assert max([np.abs(back.block(pair)).max() for pair in np.flatnonzero(beyond).tolist()], default=0.0) < 1e-13


def test_a_supercell_that_is_too_short_keeps_the_matrix_on_its_points_and_hermitian() -> None:
    """Images at equal distance share their block; without that H(R) is not H(-R)^T and H(k) between the points complex."""
    blocks = random_blocks(5.0)
    points, _ = k_mesh((2, 2, 1))
    matrix = at_k(blocks, points)
    (found,) = fold_back(BN, SPACE, points, [matrix], (2, 2, 1))
    assert found.hermitian_error() == 0.0
    assert np.abs(at_k(found, points) - matrix).max() < 1e-12
    assert found.pairs.distances_angstrom.max() < blocks.pairs.distances_angstrom.max()


def test_points_that_are_no_whole_mesh_are_refused() -> None:
    points, _ = k_mesh((5, 5, 1))
    shifted = points + np.array([0.05, 0.0, 0.0])
    with pytest.raises(DamagedFileError, match="not real"):
        fold_back(BN, SPACE, points, [at_k(random_blocks(4.0), shifted)], (5, 5, 1))


CUTOFF = 100.0
"""Hartree: the two ways to integrate agree to 2e-5 there, and to 6e-7 at 160."""


@pytest.mark.parametrize(("mesh", "severity"), [((5, 5, 1), "ok"), ((2, 2, 1), "error")])
def test_the_lint_knows_how_far_a_mesh_reaches(mesh: tuple[int, int, int], severity: str) -> None:
    blocks, overlap = random_blocks(4.0), random_blocks(4.0)
    points, _ = k_mesh(mesh)
    found = fold_back(BN, SPACE, points, [at_k(blocks, points), at_k(overlap, points)], mesh)
    folded = Matrices(BN, found[0], found[1], k_points=mesh, is_folded=True)
    assert supercell_radius(folded) == pytest.approx(mesh[0] * 2.5 / 2)
    (finding,) = check_reach([("sheet", folded)])
    assert finding.severity == severity
    assert check_reach([("sheet", replace(folded, is_folded=False))]) == []


HYDROGEN = Structure(
    np.array([1, 1]),
    np.array([[0.3, -0.2, 3.1], [3.5, 0.7, 3.2]]),
    cell_angstrom=np.array([[2.5, 0.6, 0.2], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]]),
    pbc=(True, True, True),
)
KRKS = PyscfSettings(program="pyscf", precision=1e-6, cutoff_hartree=CUTOFF, smearing_kelvin=1000)


def test_a_label_by_pyscf_is_the_fock_matrix_of_its_plain_grid() -> None:
    label = label_with_pyscf(HYDROGEN, KRKS, (3, 1, 1))
    found = label.matrices
    assert found.overlap is not None
    cell = gto.Cell(
        atom=list(zip(HYDROGEN.symbols, HYDROGEN.positions_angstrom.tolist(), strict=True)),
        a=HYDROGEN.cell_angstrom,
        basis=KRKS.basis,
        pseudo=KRKS.potential,
        ke_cutoff=CUTOFF,
        precision=1e-6,
        verbose=0,
    ).build()
    points, _ = k_mesh((3, 1, 1))
    mf: Any = dft.KRKS(cell, cell.get_abs_kpts(points))
    mf = addons.smearing_(mf, sigma=1000 * HARTREE_PER_KELVIN, method="fermi")
    mf.xc, mf.conv_tol = "pbe", 1e-9
    energy = mf.kernel()
    assert label.energy_hartree == pytest.approx(energy, abs=5e-5)
    assert found.n_electrons == 2
    fock, overlap = np.asarray(mf.get_fock()), np.asarray(mf.get_ovlp())
    for number, k in enumerate(points):
        assert np.abs(BlochSum(found.require_hamiltonian())(k) - fock[number]).max() < 5e-5
        assert np.abs(BlochSum(found.overlap)(k) - overlap[number]).max() < 1e-7
    assert found.fermi_energy is not None
    occupied = np.array([np.asarray(energies)[0] for energies in mf.mo_energy])
    empty = np.array([np.asarray(energies)[1] for energies in mf.mo_energy])
    assert occupied.max() < found.fermi_energy < empty.min()


def test_an_scf_that_does_not_converge_is_a_label_error() -> None:
    with pytest.raises(LabelError, match="did not converge in 1 cycles"):
        label_with_pyscf(HYDROGEN, KRKS.model_copy(update={"maximum_cycles": 1}), (1, 1, 1))


def test_a_recipe_of_pyscf_makes_a_set_that_inspect_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    atoms = Atoms("HH", HYDROGEN.positions_angstrom, cell=HYDROGEN.cell_angstrom, pbc=True)
    write(tmp_path / "hydrogen.xyz", atoms, format="extxyz")
    recipe = tmp_path / "hydrogen.toml"
    recipe.write_text(
        '[generate]\noutput = "made"\n[label]\nprogram = "pyscf"\ncutoff_hartree = 40\nsmearing_kelvin = 1000\n'
        '[[structures]]\nkind = "file"\nname = "h2"\npath = "hydrogen.xyz"\ncount = 2\nk_points = [3, 1, 1]\n'
        "rattle = 0.02\n",
        encoding="utf-8",
    )
    assert main(["generate", str(recipe)]) == 0
    assert "2 structures, 2 labelled" in capsys.readouterr().out
    with open_source(tmp_path / "made" / "crystals.h5") as source:
        assert str(source.level) == "pbe/gth-szv-molopt-sr, gth-pbe"
        assert source.level.program == "PySCF"
    inspected = inspect(tmp_path / "made" / "crystals.h5")
    assert ("electrons", "2") in inspected.facts
    found = {finding.check: finding.severity for finding in inspected.findings}
    assert found["electrons"] == "ok"
    assert found["reach"] == "error", "three points along a short cell are too few, and the lint says so"
