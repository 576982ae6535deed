"""Integrals, eigensolver and guess, against PySCF."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
from pyscf import df, dft, gto, scf

from model.electronic.dependence import OVERLAP_DAMPING, damp_correction
from model.electronic.guess import check_guess, make_guess
from model.electronic.solve import density_matrix, solve
from model.errors import ElectronCountError, NumericalError
from model.integrals.pyscf_molecule import build_mole, gaussian_potentials, integrals
from model.reference.fitted import unpack
from model.structure import Structure


def test_integrals_are_pyscfs(molecule: Callable[[str], Structure]) -> None:
    structure = molecule("CH3CH2OH")
    mole = gto.M(
        atom=[(int(z), tuple(x)) for z, x in zip(structure.numbers, structure.positions_angstrom, strict=True)],
        unit="Angstrom",
        basis="def2-svp",
        verbose=0,
    )
    data = integrals(structure, "def2-svp")
    assert np.abs(data.overlap - mole.intor("int1e_ovlp")).max() < 1e-14
    assert np.abs(data.core - scf.hf.get_hcore(mole)).max() < 1e-12
    assert data.ao_labels == tuple(label.strip() for label in mole.ao_labels())


def test_gaussian_potentials_are_three_centre_integrals(
    molecule: Callable[[str], Structure], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contracted, element by element, and in any chunking, against PySCF's own three-centre code."""
    structure = molecule("H2O")
    mole = build_mole(structure, "def2-svp")
    exponents = np.array([0.2, 1.7, 40.0])
    table = {1: np.array([[1.0, -0.5, 2.0], [0.0, 1.0, 0.0]]), 8: np.array([[3.0, 0.0, 1.0], [0.3, 0.2, 0.1]])}
    expected = np.zeros((3, 2, mole.nao, mole.nao))
    for atom, number in enumerate(structure.numbers):
        for row in range(2):
            for exponent, weight in zip(exponents, table[int(number)][row], strict=True):
                point = gto.fakemol_for_charges(mole.atom_coords()[[atom]], expnt=exponent)
                expected[atom, row] += weight * df.incore.aux_e2(mole, point, "int3c2e")[:, :, 0]
    for chunk_bytes in (1, 10**9):
        monkeypatch.setattr("model.integrals.pyscf_molecule.CHUNK_BYTES", chunk_bytes)
        chunks = [chunk for _, chunk in gaussian_potentials(mole, exponents, table)]
        assert len(chunks) == (3 if chunk_bytes == 1 else 1)
        assert np.abs(unpack(np.concatenate(chunks)) - expected).max() < 1e-11


def test_gaussian_charge_looks_like_a_point_from_afar() -> None:
    """A unit charge: at 20 Å its potential in an s function is the overlap over the distance."""
    structure = Structure(np.array([1, 1]), np.array([[0.0, 0, 0], [0, 0, 20.0]]))
    mole = build_mole(structure, "sto-3g")
    packed = np.concatenate([c for _, c in gaussian_potentials(mole, np.array([1.0]), {1: np.ones((1, 1))})])
    distance = np.linalg.norm(mole.atom_coord(1) - mole.atom_coord(0))
    assert abs(unpack(packed)[1, 0, 0, 0] - 1.0 / distance) < 1e-8


def test_eigensolver_repeats_pyscf(molecule: Callable[[str], Structure]) -> None:
    structure = molecule("H2O")
    mole = build_mole(structure, "def2-svp")
    mf = dft.RKS(mole, xc="b3lyp")
    mf.conv_tol = 1e-12
    mf.kernel()
    orbitals = solve(mf.get_fock(), mf.get_ovlp(), 10)
    assert np.abs(orbitals.energies - mf.mo_energy).max() < 1e-6
    assert np.abs(density_matrix(orbitals) - mf.make_rdm1()).max() < 1e-4
    assert orbitals.gap == pytest.approx(mf.mo_energy[5] - mf.mo_energy[4], abs=1e-6)
    checks = check_guess(make_guess(orbitals), mf.get_ovlp())
    assert checks.ok
    assert max(checks.trace_error, checks.idempotency_error, checks.symmetry_error) < 1e-10


def test_nearly_dependent_basis() -> None:
    """Two almost equal functions: one direction is dropped, the rest is as if it had never been there."""
    generator = np.random.default_rng(1)
    vectors = generator.normal(size=(6, 5))
    vectors = np.vstack([vectors, vectors[-1] + 1e-6 * generator.normal(size=5)])  # 7 functions, 5 dimensions
    operator = np.diag([-3.0, -2.0, -1.0, 0.5, 1.0])
    overlap, hamiltonian = vectors @ vectors.T, vectors @ operator @ vectors.T
    orbitals = solve(hamiltonian, overlap, 4)
    assert len(orbitals.energies) == 5
    assert np.abs(orbitals.energies - np.diag(operator)).max() < 1e-6
    density = density_matrix(orbitals)
    assert np.trace(density @ overlap) == pytest.approx(4.0, abs=1e-6)


def test_eigensolver_refuses() -> None:
    identity = np.eye(2)
    with pytest.raises(ElectronCountError):
        solve(identity, identity, 3)
    with pytest.raises(ElectronCountError):
        solve(identity, identity, 6)
    with pytest.raises(NumericalError):
        solve(np.full((2, 2), np.nan), identity, 2)


def test_checks_catch_a_bad_density(molecule: Callable[[str], Structure]) -> None:
    data = integrals(molecule("H2O"), "def2-svp")
    good = make_guess(solve(data.core, data.overlap, 10))
    minao = scf.hf.init_guess_by_minao(data.mole)
    bad = type(good)(minao, good.orbitals)
    assert check_guess(good, data.overlap).ok
    assert not check_guess(bad, data.overlap).ok, "minao's density is not idempotent"
    scaled = type(good)(1.01 * good.density_matrix, good.orbitals)
    assert check_guess(scaled, data.overlap).trace_error == pytest.approx(0.1, abs=1e-6)


def test_guess_is_protected_from_an_intruder(molecule: Callable[[str], Structure]) -> None:
    """A converged Fock matrix whose highest empty orbital is pushed below the occupied ones: the density must not care."""
    mf = dft.RKS(build_mole(molecule("H2O"), "def2-svp"), xc="b3lyp").run(verbose=0)
    fock, overlap, density = mf.get_fock(), mf.get_ovlp(), mf.make_rdm1()
    empty = overlap @ mf.mo_coeff[:, -1]
    spoilt = fock - (mf.mo_energy[-1] + 2.0) * np.outer(empty, empty)
    reference = fock + 0.02 * overlap * np.cos(np.arange(len(fock)))[:, None] * np.cos(np.arange(len(fock)))
    plain = make_guess(solve(spoilt, overlap, 10))
    assert np.abs(plain.density_matrix - density).max() > 0.1
    protected = make_guess(solve(spoilt, overlap, 10), reference)
    assert protected.has_intruder
    assert protected.displaced == pytest.approx(1.0, abs=0.05)
    of_reference = make_guess(solve(reference, overlap, 10)).density_matrix
    assert np.abs(protected.density_matrix - density).max() < 0.5 * np.abs(of_reference - density).max()
    assert check_guess(protected, overlap).ok


def test_sound_prediction_is_left_alone(molecule: Callable[[str], Structure]) -> None:
    mf = dft.RKS(build_mole(molecule("H2O"), "def2-svp"), xc="b3lyp").run(verbose=0)
    fock, overlap = mf.get_fock(), mf.get_ovlp()
    orbitals = solve(fock, overlap, 10)
    guess = make_guess(orbitals, fock + 1e-3 * overlap)
    assert not guess.has_intruder
    assert guess.orbitals is orbitals
    assert make_guess(orbitals, np.zeros_like(fock)).displaced == 0.0, "no reference, nothing to compare"


def cyanogen() -> Structure:
    """NCCN, whose smallest eigenvalue of S in def2-SVP is 1e-4."""
    heights = np.cumsum([0.0, 1.16, 1.38, 1.16])
    return Structure.from_symbols(list("NCCN"), [[0.0, 0.0, height] for height in heights])


def test_errors_are_not_magnified_by_nearly_dependent_functions(rng: np.random.Generator) -> None:
    """Errors of 0.3 millihartree move a level of the core Hamiltonian by more than a hartree; damped, by a tenth of that."""
    data = integrals(cyanogen(), "def2-svp")
    exact = scipy.linalg.eigh(data.core, data.overlap, eigvals_only=True)
    noise = 3e-4 * rng.standard_normal(data.core.shape)
    noise = noise + noise.T

    def largest_shift(error: np.ndarray) -> float:
        return float(np.abs(scipy.linalg.eigh(data.core + error, data.overlap, eigvals_only=True) - exact).max())

    damped = damp_correction(noise, data.overlap, OVERLAP_DAMPING)
    assert largest_shift(noise) > 1.0
    assert largest_shift(damped) < 0.1 * largest_shift(noise)
    assert np.array_equal(damped, damped.T)
    assert np.abs(damped - noise).mean() < 0.1 * np.abs(noise).mean(), "as a matrix it hardly changes"


def test_damping_is_a_filter_of_the_overlap(rng: np.random.Generator) -> None:
    """In S's eigenvectors each element has the weight s_i s_j / (s_i s_j + damping²); the basis' rotation drops out."""
    rotation = scipy.linalg.qr(rng.standard_normal((5, 5)))[0]
    values = np.array([1e-5, 1e-3, 0.1, 1.0, 3.0])
    correction = rng.standard_normal((5, 5))
    correction = correction + correction.T
    weights = np.outer(values, values) / (np.outer(values, values) + 1e-3**2)
    found = damp_correction(rotation @ correction @ rotation.T, (rotation * values) @ rotation.T, 1e-3)
    assert np.abs(rotation.T @ found @ rotation - weights * correction).max() < 1e-10
    assert weights[1, 1] == pytest.approx(0.5)
    singular = damp_correction(correction, np.diag([0.0, -1e-17, 0.1, 1.0, 3.0]), 1e-3)
    assert np.isfinite(singular).all()
    with pytest.raises(NumericalError, match="overlap"):
        damp_correction(correction, np.full((5, 5), np.nan), 1e-3)


def test_energies_are_eigenvalues_of_the_pencil(rng: np.random.Generator) -> None:
    matrix = rng.normal(size=(8, 8))
    overlap = np.eye(8) + 0.1 * (matrix + matrix.T) / 2
    hamiltonian = matrix + matrix.T
    orbitals = solve(hamiltonian, overlap, 6)
    assert np.abs(orbitals.energies - scipy.linalg.eigvalsh(hamiltonian, overlap)).max() < 1e-10
    assert orbitals.homo == orbitals.energies[2]
    assert orbitals.lumo == orbitals.energies[3]
