"""The kernel of Coulomb integrals: PySCF's numbers in any basis, and PySCF itself where the kernel cannot be made or used."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule as ase_molecule
from pyscf import df, gto

from model.integrals import coulomb
from model.integrals.pyscf_molecule import MoleculeIntegrals, build_mole, integrals
from model.nn import kernel_files
from model.predictor import Predictor
from model.reference.fitted import FittedReference
from model.structure import Structure
from tests.tolerances import SAME_FLOAT32

SAME = 1e-9
"""What may be left out, hartree a unit of charge."""

needs_compiler = pytest.mark.skipif(not coulomb.is_ready(), reason="no C compiler on this machine")


def three_centre(mole: Any, exponents: np.ndarray, charges: np.ndarray) -> np.ndarray:
    """PySCF's integrals of (set, atom, exponent), one atom and exponent at a time."""
    result = np.zeros((len(charges), mole.nao, mole.nao))
    for atom in range(mole.natm):
        for k, exponent in enumerate(exponents):
            if np.isinf(exponent):
                with mole.with_rinv_at_nucleus(atom):
                    one = mole.intor("int1e_rinv")
            else:
                point = gto.fakemol_for_charges(mole.atom_coords()[[atom]], expnt=exponent)
                one = df.incore.aux_e2(mole, point, "int3c2e")[:, :, 0]
            result += charges[:, atom, k, None, None] * one
    return result


@needs_compiler
@pytest.mark.parametrize(
    ("name", "basis"),
    [
        ("H2O", "def2-svp"),
        ("C5H8", "def2-svp"),  # two blocks of atoms
        ("CH3CN", "cc-pvdz"),  # several contractions of the same primitives
        ("HCOOH", "def2-tzvp"),  # f functions
        ("H2O", "cc-pvqz"),  # g functions
        ("SiH4", "def2-svp"),
    ],
)
def test_kernel_gives_pyscfs_integrals(name: str, basis: str) -> None:
    """Points, wide and narrow Gaussians with charges of both signs, three sets at once; exponents in no order."""
    atoms = ase_molecule(name)
    mole = build_mole(Structure(atoms.numbers, atoms.positions), basis)
    exponents = np.array([1.7, 0.08, np.inf, 300.0, 13.0])
    charges = np.random.default_rng(4).normal(size=(3, mole.natm, len(exponents)))
    found = coulomb.coulomb_potentials(mole, exponents, charges)
    assert found is not None
    expected = three_centre(mole, exponents, charges)
    assert np.abs(expected).max() > 1.0
    assert np.abs(found - expected).max() < SAME


@needs_compiler
@pytest.mark.parametrize("distance", [1e-3, 0.3, 2.0, 6.0, 12.0, 60.0, 3000.0])
def test_charges_near_and_far(distance: float) -> None:
    """Across the distances at which the kernel takes one Gaussian after the other for a point, lanes on both sides of it."""
    atoms = ase_molecule("CH3OH")
    positions = np.concatenate([atoms.positions, atoms.positions[:1] + np.array([0.0, 0.0, distance])])
    mole = gto.M(
        atom=[(z, x) for z, x in zip([*atoms.numbers, 1], positions, strict=True)], basis="def2-svp", spin=1, verbose=0
    )
    exponents = np.geomspace(0.08, 330.0, 13)
    charges = np.zeros((1, mole.natm, 13))
    charges[0, -1] = np.random.default_rng(1).normal(size=13)
    charges[0, 0, 3] = 0.5
    found = coulomb.coulomb_potentials(mole, exponents, charges)
    assert found is not None
    assert np.abs(found - three_centre(mole, exponents, charges)).max() < SAME


@needs_compiler
def test_nuclei_are_points() -> None:
    atoms = ase_molecule("C6H6")
    mole = build_mole(Structure(atoms.numbers, atoms.positions), "def2-svp")
    found = coulomb.coulomb_potentials(mole, np.array([np.inf]), -atoms.numbers[None, :, None].astype(float))
    assert found is not None
    assert np.abs(found[0] - mole.intor("int1e_nuc")).max() < SAME


@needs_compiler
def test_every_precompiled_library_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AVX2 and AVX-512, as an image has them, as far as this processor runs them."""
    atoms = ase_molecule("CH3OH")
    mole = build_mole(Structure(atoms.numbers, atoms.positions), "def2-svp")
    exponents, charges = np.array([0.3, 4.0]), np.ones((2, mole.natm, 2))
    expected = coulomb.coulomb_potentials(mole, exponents, charges)
    assert expected is not None
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    tried = 0
    for path in kernel_files.compile_all(coulomb.SOURCE, tmp_path):
        needed = "avx512f" if path.stem.endswith("v4") else "avx2"
        if f" {needed} " in flags:
            library = ctypes.CDLL(str(path))
            monkeypatch.setattr(coulomb, "_kernel", lambda library=library: library)
            found = coulomb.coulomb_potentials(mole, exponents, charges)
            assert found is not None
            assert np.abs(found - expected).max() < SAME
            tried += 1
    if not tried:
        pytest.skip("not an x86-64 processor with AVX2")


@needs_compiler
def test_what_the_kernel_was_not_made_for_is_left_to_pyscf() -> None:
    """h functions, Cartesian functions, and more sets than there is room for."""
    water = ase_molecule("H2O")
    structure = Structure(water.numbers, water.positions)
    one, exponent = np.ones((1, 3, 1)), np.array([1.0])
    assert coulomb.coulomb_potentials(build_mole(structure, "cc-pv5z"), exponent, one) is None
    mole = build_mole(structure, "def2-svp")
    assert coulomb.coulomb_potentials(mole, exponent, one) is not None
    assert coulomb.coulomb_potentials(mole, exponent, np.ones((coulomb.MOST_SETS + 1, 3, 1))) is None
    mole.cart = True
    assert coulomb.coulomb_potentials(mole, exponent, one) is None


@needs_compiler
@pytest.mark.parametrize("name", ["H2", "CH3CN", "C5H8"])
def test_h0_is_the_same_without_the_kernel(
    name: str, molecule: Callable[[str], Structure], released: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The released reference, to far less than the network could tell; and the answer of the whole model."""
    structure, reference = molecule(name), released.model.reference
    assert isinstance(reference, FittedReference)
    by_kernel = reference.evaluate(integrals(structure, "def2-svp"))
    answer = released.predict([structure])[0]
    asked: list[int] = []
    monkeypatch.setattr(MoleculeIntegrals, "coulomb", lambda *_: asked.append(1))
    by_pyscf = reference.evaluate(integrals(structure, "def2-svp"))
    assert asked, "H0 did not ask for the kernel"
    for what in ("hamiltonian", "density", "projected_density"):
        assert np.abs(getattr(by_kernel, what) - getattr(by_pyscf, what)).max() < SAME
    again = released.predict([structure])[0]
    assert np.abs(answer.hamiltonian - again.hamiltonian).max() < SAME_FLOAT32
