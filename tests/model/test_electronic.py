"""Integrals, eigensolver and guess, against PySCF."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
from pyscf import df, dft, gto, scf

from model.blocks.block_set import stack_blocks
from model.blocks.matrices import cut_matrix, unpack_triangle
from model.electronic.dependence import OVERLAP_DAMPING, damp_correction
from model.electronic.guess import check_guess, make_guess, make_spin_guess
from model.electronic.overlap import OverlapFactor
from model.electronic.solve import (
    Orbitals,
    SpinOrbitals,
    count_spins,
    density_matrix,
    solve,
    solve_blocks,
    solve_spinor,
    solve_unrestricted,
    spin_density_matrices,
)
from model.errors import ElectronCountError, NumericalError
from model.integrals.coulomb import gaussian_potentials
from model.integrals.pyscf_molecule import bare_mole, build_mole, integrals
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
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
    assert data.labels == tuple(label.strip() for label in mole.ao_labels())


@pytest.mark.parametrize("basis", ["def2-svp", "cc-pvdz", "def2-tzvp"])
def test_a_bare_mole_has_the_integrals_of_pyscfs_own(basis: str, molecule: Callable[[str], Structure]) -> None:
    """Elements in turn, several contractions of the same primitives, f functions; twice, since elements are kept."""
    for name in ("HCOOH", "CH3CN", "HCOOH"):
        structure = molecule(name)
        mole, bare = build_mole(structure, basis), bare_mole(structure.numbers, structure.positions_angstrom, basis)
        assert np.abs(mole.atom_coords() - bare.atom_coords()).max() < 1e-14
        assert bare.nao == mole.nao
        for what in ("int1e_ovlp", "int1e_kin", "int1e_nuc", "int1e_r"):
            assert np.abs(mole.intor(what) - bare.intor(what)).max() < 1e-12


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
        monkeypatch.setattr("model.integrals.coulomb.CHUNK_BYTES", chunk_bytes)
        chunks = [chunk for _, chunk in gaussian_potentials(mole, exponents, table)]
        assert len(chunks) == (3 if chunk_bytes == 1 else 1)
        assert np.abs(unpack_triangle(np.concatenate(chunks)) - expected).max() < 1e-11


def test_gaussian_charge_looks_like_a_point_from_afar() -> None:
    """A unit charge: at 20 Å its potential in an s function is the overlap over the distance."""
    structure = Structure(np.array([1, 1]), np.array([[0.0, 0, 0], [0, 0, 20.0]]))
    mole = build_mole(structure, "sto-3g")
    packed = np.concatenate([c for _, c in gaussian_potentials(mole, np.array([1.0]), {1: np.ones((1, 1))})])
    distance = np.linalg.norm(mole.atom_coord(1) - mole.atom_coord(0))
    assert abs(unpack_triangle(packed)[1, 0, 0, 0] - 1.0 / distance) < 1e-8


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


def test_overlap_is_diagonalised_once_for_all(molecule: Callable[[str], Structure], rng: np.random.Generator) -> None:
    overlap = integrals(molecule("H2O"), "def2-svp").overlap
    factor = OverlapFactor.of(overlap)
    assert OverlapFactor.of(factor) is factor
    assert factor.smallest == pytest.approx(np.linalg.eigvalsh(overlap)[0], rel=1e-10)
    basis, root = factor.orthonormal_basis(), factor.inverse_root()
    assert np.abs(basis.T @ overlap @ basis - np.eye(len(overlap))).max() < 1e-12
    assert np.abs(root - np.linalg.inv(scipy.linalg.sqrtm(overlap))).max() < 1e-11
    kept = factor.orthonormal_basis(threshold=factor.values[1])
    assert kept.shape[1] == len(overlap) - 2 == len(overlap) - factor.n_dependent(factor.values[1])
    floored = factor.inverse_root(floor=1e3)
    assert np.abs(floored - np.eye(len(overlap)) / np.sqrt(1e3)).max() < 1e-12
    correction = rng.normal(size=overlap.shape)
    correction = correction + correction.T
    assert np.array_equal(damp_correction(correction, factor, 1e-3), damp_correction(correction, overlap, 1e-3))
    assert np.array_equal(solve(correction, factor, 2).energies, solve(correction, overlap, 2).energies)


def test_overlap_at_k_is_complex(rng: np.random.Generator) -> None:
    matrix = rng.normal(size=(6, 6)) + 1j * rng.normal(size=(6, 6))
    overlap = np.eye(6) + 0.1 * matrix @ matrix.conj().T
    hamiltonian = matrix + matrix.conj().T
    factor = OverlapFactor.of(overlap)
    assert np.abs(factor.inverse_root() @ overlap @ factor.inverse_root() - np.eye(6)).max() < 1e-12
    orbitals = solve(hamiltonian, factor, 4)
    assert np.abs(orbitals.energies - scipy.linalg.eigh(hamiltonian, overlap, eigvals_only=True)).max() < 1e-12
    residual = hamiltonian @ orbitals.coefficients - overlap @ orbitals.coefficients * orbitals.energies
    assert np.abs(residual).max() < 1e-11
    assert check_guess(make_guess(orbitals), overlap).trace_error < 1e-12


def test_open_shell_repeats_pyscf(molecule: Callable[[str], Structure]) -> None:
    """Triplet oxygen by unrestricted Kohn-Sham: energies, both densities and the gap; blocks give the same."""
    structure = replace(molecule("O2"), multiplicity=3)
    mf = dft.UKS(build_mole(structure, "def2-svp"), xc="pbe")
    mf.conv_tol = 1e-11
    mf.kernel()
    fock, overlap = mf.get_fock(), mf.get_ovlp()
    orbitals = solve_unrestricted(fock, overlap, 16, 3)
    assert np.abs(np.stack([orbitals.alpha.energies, orbitals.beta.energies]) - mf.mo_energy).max() < 1e-5
    assert (orbitals.alpha.n_occupied, orbitals.beta.n_occupied) == mf.nelec == (9, 7)
    assert np.abs(spin_density_matrices(orbitals) - mf.make_rdm1()).max() < 1e-4
    alpha, beta = mf.mo_energy
    assert orbitals.homo == pytest.approx(max(alpha[8], beta[6]), abs=1e-5)
    assert orbitals.lumo == pytest.approx(min(alpha[9], beta[7]), abs=1e-5)
    guess = make_spin_guess(orbitals, fock)
    assert np.abs(guess.density_matrix - mf.make_rdm1()).max() < 1e-4
    assert not guess.has_intruder
    checks = check_guess(guess, OverlapFactor.of(overlap))
    assert checks.ok
    assert checks.gap == pytest.approx(min(alpha[9] - alpha[8], beta[7] - beta[6]), abs=1e-5)
    space, pairs = OrbitalSpace("def2-svp", {8: (0, 0, 0, 1, 1, 2)}), PairList.complete(structure)
    fock_blocks, overlap_blocks = (cut_matrix(space, structure.numbers, pairs, matrix) for matrix in (fock, overlap))
    again = solve_blocks(fock_blocks, overlap_blocks, 16, multiplicity=3)
    assert isinstance(again, SpinOrbitals)
    assert np.array_equal(again.beta.energies, orbitals.beta.energies)


def test_open_shell_guess_is_protected_from_an_intruder_of_one_spin(molecule: Callable[[str], Structure]) -> None:
    structure = replace(molecule("O2"), multiplicity=3)
    mf = dft.UKS(build_mole(structure, "def2-svp"), xc="pbe").run(verbose=0)
    fock, overlap = mf.get_fock(), mf.get_ovlp()
    empty = overlap @ mf.mo_coeff[1][:, -1]
    spoilt = fock - np.stack([0.0 * fock[0], (mf.mo_energy[1][-1] + 2.0) * np.outer(empty, empty)])
    guess = make_spin_guess(solve_unrestricted(spoilt, overlap, 16, 3), fock)
    assert guess.has_intruder
    assert not guess.alpha.has_intruder
    assert np.abs(guess.density_matrix - mf.make_rdm1()).max() < 1e-3
    assert make_spin_guess(solve_unrestricted(spoilt, overlap, 16, 3)).alpha.displaced == 0.0


def test_spinors_repeat_pyscf() -> None:
    """Spin-orbit coupling from an effective core potential: PySCF's generalised eigensolver and density."""
    structure = Structure.from_symbols(["I", "H"], [[0.0, 0.0, 0.0], [0.7, 1.0, 1.0]])
    atoms = list(zip(structure.symbols, structure.positions_angstrom.tolist(), strict=True))
    mole = gto.M(atom=atoms, basis={"H": "def2-svp", "I": "crenbl"}, ecp={"I": "crenbl"}, verbose=0)
    mf = scf.GHF(mole)
    mf.with_soc = True
    core, overlap, n_electrons = mf.get_hcore(), mole.intor("int1e_ovlp"), mole.nelectron
    energies, coefficients = mf.eig(core, mf.get_ovlp())
    orbitals = solve_spinor(core, overlap, n_electrons)
    assert np.abs(orbitals.energies - energies).max() < 1e-9
    assert np.abs(energies[::2] - energies[1::2]).max() < 1e-9, "Kramers pairs"
    assert np.abs(np.diff(energies[2:8:2])).min() > 1e-3, "split by the coupling"
    density = density_matrix(orbitals)
    assert np.abs(density - mf.make_rdm1(coefficients, mf.get_occ(energies, coefficients))).max() < 1e-8
    guess = make_guess(orbitals, core)
    assert guess.displaced == pytest.approx(0.0, abs=1e-10)
    assert check_guess(guess, overlap).ok
    empty = np.kron(np.eye(2), overlap) @ orbitals.coefficients[:, -1]
    spoilt = core - (orbitals.energies[-1] + 60.0) * np.outer(empty, empty.conj())
    unprotected = solve_spinor(spoilt, overlap, n_electrons)
    assert np.abs(density_matrix(unprotected) - density).max() > 0.1
    protected = make_guess(unprotected, core)
    assert protected.displaced == pytest.approx(1.0, abs=1e-6)
    assert np.abs(protected.density_matrix - density).max() < 1e-8
    shells = tuple(
        int(mole.bas_angular(b)) for b in range(mole.nbas) if mole.bas_atom(b) == 0 for _ in range(mole.bas_nctr(b))
    )
    space, pairs = OrbitalSpace("crenbl", {1: (0, 0, 1), 53: shells}), PairList.complete(structure)
    n, edges = mole.nao, space.atom_offsets(structure.numbers)
    parts = core.reshape(2, n, 2, n).transpose(0, 2, 1, 3).reshape(4, n, n)
    blocks = [
        parts[:, edges[i] : edges[i + 1], edges[j] : edges[j + 1]]
        for i, j in zip(pairs.first, pairs.second, strict=True)
    ]
    hamiltonian = stack_blocks(space, structure.numbers, pairs, blocks, "spinor")
    again = solve_blocks(hamiltonian, cut_matrix(space, structure.numbers, pairs, overlap), n_electrons)
    assert isinstance(again, Orbitals)
    assert np.abs(again.energies - energies).max() < 1e-9


def test_spinors_without_coupling_are_two_sets_of_orbitals(rng: np.random.Generator) -> None:
    """Nearly dependent functions are dropped once for both spins."""
    vectors = rng.normal(size=(6, 5))
    vectors = np.vstack([vectors, vectors[-1]])  # 7 functions, 5 dimensions
    operator = np.diag([-3.0, -2.0, -1.0, 0.5, 1.0])
    overlap, one = vectors @ vectors.T, vectors @ operator @ vectors.T
    orbitals = solve_spinor(np.kron(np.eye(2), one), overlap, 3)
    assert np.abs(orbitals.energies - np.repeat(np.diag(operator), 2)).max() < 1e-6
    assert orbitals.coefficients.shape == (14, 10)
    assert (orbitals.n_occupied, orbitals.gap) == (3, pytest.approx(0.0, abs=1e-6))


def test_electrons_of_each_spin() -> None:
    assert count_spins(16, 3) == (9, 7)
    assert count_spins(1, 2) == (1, 0)
    for n_electrons, multiplicity in ((16, 2), (1, 4), (0, 1), (2, 0)):
        with pytest.raises(ElectronCountError, match="multiplicity"):
            count_spins(n_electrons, multiplicity)
    hydrogen = solve_unrestricted(np.array([[[-0.5]], [[0.1]]]), np.eye(1), 1, 2)
    assert hydrogen.homo == -0.5
    assert hydrogen.lumo == 0.1
    assert not spin_density_matrices(hydrogen)[1].any()
    with pytest.raises(ElectronCountError):
        solve_spinor(np.eye(2), np.eye(1), 0)
    with pytest.raises(NumericalError, match="fit"):
        solve_spinor(np.eye(3), np.eye(1), 1)
