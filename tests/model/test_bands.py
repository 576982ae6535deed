"""Bands and Fermi level: DeepH-dock's own numbers, PySCF's periodic Kohn-Sham and smearing, analytic chains."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyscf.pbc import dft as pbc_dft
from pyscf.pbc import gto as pbc_gto
from pyscf.pbc import scf as pbc_scf

from model.blocks.block_set import BlockSet, stack_blocks
from model.blocks.matrices import cut_matrix
from model.blocks.motions import unfold
from model.electronic.bands import Bands, band_energies, k_path
from model.electronic.fermi import fermi_level, k_mesh, occupations
from model.electronic.solve import SpinOrbitals, solve_blocks
from model.errors import ElectronCountError, NumericalError, StructureError
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.structure import SYMBOLS, Structure

CRYSTALS = Path(__file__).resolve().parents[3] / "shared" / "data" / "crystals"

PUBLISHED_TOLERANCE_EV = 1e-8
STORED_TOLERANCE_EV = 1e-4
"""complex64 with entries up to 60 eV, magnified by the overlap's smallest eigenvalue."""
GRID_TOLERANCE_EV = 2e-3
"""GPAW's grid breaks inversion by as much."""
ROUNDING = 1e-11
SCF_TOLERANCE_HARTREE = 1e-7
INTERPOLATION_TOLERANCE_HARTREE = 2e-4
"""What a Kohn-Sham matrix of a chain has beyond four cells."""


def read_deeph(folder: Path) -> tuple[BlockSet, BlockSet, dict[str, Any]]:
    """H(R) in eV, S(R) and info.json of a folder in DeepH's new layout."""
    if not folder.is_dir():
        pytest.skip(f"{folder.name} is not there")
    h5py = pytest.importorskip("h5py")
    lines = (folder / "POSCAR").read_text().splitlines()
    info = json.loads((folder / "info.json").read_text())
    symbols = [s for s, n in zip(lines[5].split(), lines[6].split(), strict=True) for _ in range(int(n))]
    numbers = np.array([SYMBOLS.index(symbol) for symbol in symbols])
    cell = np.array([[float(x) for x in line.split()] for line in lines[2:5]])
    positions = np.array([[float(x) for x in line.split()[:3]] for line in lines[8 : 8 + len(symbols)]])
    structure = Structure(numbers, positions, cell_angstrom=cell, pbc=(True, True, True))
    shells = {SYMBOLS.index(symbol): tuple(ls) for symbol, ls in info["elements_orbital_map"].items()}
    space = OrbitalSpace("deeph", shells, order="e3nn")

    def read(name: str) -> BlockSet:
        with h5py.File(folder / f"{name}.h5") as file:
            keys, entries = file["atom_pairs"][:], file["entries"][:]
            bounds, shapes = file["chunk_boundaries"][:], file["chunk_shapes"][:]
        pairs = PairList.of(structure, keys[:, 3], keys[:, 4], keys[:, :3])
        place = {(i, j, *shift): index for index, (*shift, i, j) in enumerate(keys.tolist())}
        order = [place[tuple(key)] for key in pairs.keys.tolist()]
        blocks = [entries[bounds[at] : bounds[at + 1]].reshape(shapes[at]) for at in order]
        return stack_blocks(space, numbers, pairs, blocks)

    return read("hamiltonian"), read("overlap"), info


def test_bands_of_mote2_are_those_of_deeph_dock() -> None:
    """Energies relative to the Fermi level on 140 k-points, and the gap, made by another program of the same H(R), S(R)."""
    folder = CRYSTALS / "public" / "deeph_dock" / "MoTe2_bands_reference"
    hamiltonian, overlap, info = read_deeph(folder)
    import h5py

    with h5py.File(folder / "band.h5") as file:
        k_points, expected = file["kpoints_frac_list"][:], file["band_data"][:].T
        level, gap, is_metal = (file[n][()] for n in ("fermi_energy_before_shift_eV", "band_gap", "is_metal"))
    bands = band_energies(hamiltonian, overlap, k_points)
    assert bands.energies.shape == (1, 140, 57)
    assert np.abs(bands.energies[0] - level - expected).max() < PUBLISHED_TOLERANCE_EV
    assert bands.smallest_overlap.min() == pytest.approx(9.8e-3, rel=0.1)
    assert not bands.n_projected.any()
    found = fermi_level(bands, np.full(140, 1 / 140), float(info["occupation"]))
    assert found.is_metal == is_metal
    assert found.gap == pytest.approx(gap, abs=PUBLISHED_TOLERANCE_EV)
    assert found.valence_maximum < level < found.conduction_minimum
    assert found.energy == pytest.approx(0.5 * (found.valence_maximum + found.conduction_minimum))


def chain() -> tuple[pbc_gto.Cell, Structure]:
    """Hydrogen molecules in a row."""
    cell = pbc_gto.M(
        a=np.diag([2.0, 6.0, 6.0]),
        atom=[("H", (0.0, 0.0, 0.0)), ("H", (0.8, 0.1, 0.0))],
        basis="gth-szv",
        pseudo="gth-lda",
        unit="Angstrom",
        ke_cutoff=60,
        verbose=0,
    )
    positions = cell.atom_coords(unit="Angstrom")
    return cell, Structure(np.array([1, 1]), positions, cell_angstrom=np.diag([2.0, 6.0, 6.0]), pbc=(True, True, True))


H_SPACE = OrbitalSpace("gth-szv", {1: (0,)})


def from_mesh(structure: Structure, matrices: np.ndarray) -> BlockSet:
    """H(R) of a chain from H(k) on an odd mesh: H(R) = 1/N sum over k of exp(-2 pi i k.R) H(k)."""
    half = len(matrices) // 2
    cells = np.arange(-half, half + 1)
    k = np.arange(len(matrices)) / len(matrices)
    of_cell = np.tensordot(np.exp(-2j * np.pi * np.outer(cells, k)), matrices, axes=1).real / len(matrices)
    n = len(structure)
    i, j, c = (x.ravel() for x in np.meshgrid(np.arange(n), np.arange(n), np.arange(len(cells)), indexing="ij"))
    pairs = PairList.of(structure, i, j, np.stack([cells[c], 0 * c, 0 * c], axis=1))
    blocks = [of_cell[shift[0] + half, a, b].reshape(1, 1) for a, b, *shift in pairs.keys.tolist()]
    return stack_blocks(H_SPACE, structure.numbers, pairs, blocks)


@pytest.fixture(scope="module")
def kohn_sham() -> tuple[pbc_dft.KRKS, Structure, BlockSet, BlockSet]:
    """PySCF's local density calculation of the chain, H(R) and S(R) of its Fock matrices on 9 k-points."""
    cell, structure = chain()
    mf = pbc_dft.KRKS(cell, cell.make_kpts([9, 1, 1]), xc="lda,vwn")
    mf.conv_tol = 1e-11
    mf.kernel()
    return mf, structure, from_mesh(structure, mf.get_fock()), from_mesh(structure, mf.get_ovlp())


def test_bands_of_a_chain_are_pyscf_s(kohn_sham: tuple[pbc_dft.KRKS, Structure, BlockSet, BlockSet]) -> None:
    mf, structure, hamiltonian, overlap = kohn_sham
    on_mesh = band_energies(hamiltonian, overlap, mf.cell.get_scaled_kpts(mf.kpts))
    assert np.abs(on_mesh.energies[0] - np.array(mf.mo_energy)).max() < SCF_TOLERANCE_HARTREE
    between, corners = k_path([(0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (1.0, 0.0, 0.0)], [5, 3])
    assert corners.tolist() == [0, 5, 8]
    expected = np.array(mf.get_bands(mf.cell.get_abs_kpts(between))[0])
    found = band_energies(hamiltonian, overlap, between)
    assert np.abs(found.energies[0] - expected).max() < INTERPOLATION_TOLERANCE_HARTREE
    smallest = [np.linalg.eigvalsh(s)[0] for s in mf.cell.pbc_intor("int1e_ovlp", kpts=mf.cell.get_abs_kpts(between))]
    assert np.abs(found.smallest_overlap - smallest).max() < INTERPOLATION_TOLERANCE_HARTREE
    level = fermi_level(on_mesh, np.full(9, 1 / 9), H_SPACE.count_electrons(structure.numbers))
    assert not level.is_metal
    bands = np.array(mf.mo_energy)
    assert level.gap == pytest.approx(bands[:, 1].min() - bands[:, 0].max(), abs=SCF_TOLERANCE_HARTREE)


def test_bands_of_a_supercell_are_those_of_the_cell_folded(
    kohn_sham: tuple[pbc_dft.KRKS, Structure, BlockSet, BlockSet],
) -> None:
    _, _, hamiltonian, overlap = kohn_sham
    found = band_energies(unfold(hamiltonian, (3, 1, 2)), unfold(overlap, (3, 1, 2)), [(0.3, 0.0, 0.25)])
    folded = [((0.3 + n) / 3, 0.0, (0.25 + m) / 2) for n in range(3) for m in range(2)]
    expected = band_energies(hamiltonian, overlap, folded)
    assert np.abs(found.energies[0, 0] - np.sort(expected.energies[0].ravel())).max() < ROUNDING


def test_spin_treatments_agree_where_there_is_no_spin(
    kohn_sham: tuple[pbc_dft.KRKS, Structure, BlockSet, BlockSet],
) -> None:
    """The same H for alpha and beta shifted, and as spinors with a field along x of half the splitting."""
    _, _, hamiltonian, overlap = kohn_sham
    mesh, weights = k_mesh((5, 1, 1), halved=True)
    one = hamiltonian.values[0]
    shifted = one + 0.03 * overlap.on_pairs(hamiltonian.pairs).values[0]
    both = replace(hamiltonian, spin="unrestricted", values=np.stack([one, shifted]))
    mean, field = 0.5 * (one + shifted), 0.5 * (shifted - one)
    spinors = replace(hamiltonian, spin="spinor", values=np.stack([mean, field, field, mean]).astype(complex))
    restricted, unrestricted, spinor = (band_energies(h, overlap, mesh) for h in (hamiltonian, both, spinors))
    assert np.abs(unrestricted.energies[0] - restricted.energies[0]).max() < ROUNDING
    assert np.abs(unrestricted.energies[1] - restricted.energies[0] - 0.03).max() < ROUNDING
    merged = np.sort(np.concatenate(list(unrestricted.energies), axis=1), axis=1)
    assert np.abs(spinor.energies[0] - merged).max() < ROUNDING
    gaps = [fermi_level(bands, weights, 2).gap for bands in (restricted, unrestricted, spinor)]
    assert gaps[1] == pytest.approx(gaps[0] - 0.03, abs=ROUNDING)
    assert gaps[2] == pytest.approx(gaps[1], abs=ROUNDING)
    at_k = solve_blocks(both, overlap, 2, k=mesh[1])
    assert isinstance(at_k, SpinOrbitals)
    assert np.abs(at_k.beta.energies - unrestricted.energies[1, 1]).max() < ROUNDING


def test_spinor_bands_are_kramers_pairs(bismuthene: list[tuple[BlockSet, BlockSet]]) -> None:
    """Time reversal: e(k) = e(-k), pairs at k = -k; the coupling opens bismuthene's gap to about half an electronvolt."""
    hamiltonian, overlap = bismuthene[0]
    points = [(0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (0.5, 0.5, 0.0), (0.2, 0.1, 0.0), (-0.2, -0.1, 0.0)]
    energies = band_energies(hamiltonian, overlap, points).energies[0]
    assert np.abs(energies[:3, ::2] - energies[:3, 1::2]).max() < STORED_TOLERANCE_EV
    assert np.abs(energies[3] - energies[4]).max() < STORED_TOLERANCE_EV
    assert np.abs(energies[3, ::2] - energies[3, 1::2]).max() < GRID_TOLERANCE_EV, "two like atoms: inversion as well"
    mesh, weights = k_mesh((6, 6, 1), halved=True)
    n_electrons = hamiltonian.space.count_electrons(hamiltonian.numbers)
    coupled = fermi_level(band_energies(hamiltonian, overlap, mesh), weights, n_electrons)
    assert coupled.gap == pytest.approx(0.5, abs=0.1)
    scalar = replace(
        hamiltonian, spin="restricted", values=0.5 * (hamiltonian.values[:1] + hamiltonian.values[3:]).real
    )
    assert fermi_level(band_energies(scalar, overlap, mesh), weights, n_electrons).gap != pytest.approx(0.5, abs=0.1)


def ring() -> tuple[BlockSet, BlockSet]:
    """One orthogonal s function a cell, neighbours coupled by -1: e(k) = -2 cos(2 pi k)."""
    cell = np.diag([1.0, 9.0, 9.0])
    structure = Structure(np.array([1]), np.zeros((1, 3)), multiplicity=2, cell_angstrom=cell, pbc=(True,) * 3)
    pairs = PairList.of(structure, [0], [0], [[1, 0, 0]])
    values = np.where(pairs.shift.any(axis=1), -1.0, 0.0)[None]
    hamiltonian = BlockSet(H_SPACE, structure.numbers, pairs, values)
    return hamiltonian, hamiltonian.with_values((values == 0.0).astype(float))


@pytest.mark.parametrize("n_k", [8, 9, 64])
def test_half_filled_chain_is_a_metal(n_k: int) -> None:
    hamiltonian, overlap = ring()
    mesh, weights = k_mesh((n_k, 1, 1), halved=True)
    bands = band_energies(hamiltonian, overlap, mesh)
    assert np.abs(bands.energies[0, :, 0] + 2.0 * np.cos(2 * np.pi * mesh[:, 0])).max() < ROUNDING
    level = fermi_level(bands, weights, 1, smearing=0.05)
    assert level.is_metal
    assert (level.gap, level.valence_maximum) == (0.0, None)
    filled = occupations(bands.energies, level.energy, 2, 0.05)
    assert filled.sum(axis=(0, 2)) @ weights == pytest.approx(1.0, abs=1e-9)
    if n_k != 9:  # a mesh with k and k + 1/2 has levels in pairs e, -e
        assert level.energy == pytest.approx(0.0, abs=1e-9)
    full = fermi_level(bands, weights, 2)
    assert (full.gap, full.is_metal) == (None, False)
    assert full.energy == pytest.approx(bands.energies.max())


def test_level_of_a_metal_is_pyscf_s(rng: np.random.Generator) -> None:
    """PySCF's Fermi smearing over k-points, on energies drawn at random."""
    cell, _ = chain()
    mf = pbc_scf.addons.smearing(pbc_scf.KRHF(cell, cell.make_kpts([9, 1, 1])), sigma=0.02, method="fermi")
    energies = np.sort(rng.normal(scale=0.1, size=(9, 2)), axis=1)
    expected = mf.get_occ(list(energies))
    bands = Bands(np.zeros((9, 3)), energies[None], np.ones(9), np.zeros(9, dtype=np.int64), "restricted")
    level = fermi_level(bands, np.full(9, 1 / 9), 2, smearing=0.02)
    assert np.abs(occupations(bands.energies, level.energy, 2, 0.02)[0] - np.array(expected)).max() < 1e-6


def test_a_band_of_one_spin_that_is_half_full_makes_a_metal() -> None:
    """One state is full at each k-point, but alpha's here and beta's there: both bands cross the level."""
    energies = np.array([[[-1.0], [1.0]], [[1.0], [-1.0]]])
    bands = Bands(np.zeros((2, 3)), energies, np.ones(2), np.zeros(2, dtype=np.int64), "unrestricted")
    level = fermi_level(bands, np.array([0.5, 0.5]), 1)
    assert level.is_metal
    assert level.energy == pytest.approx(0.0, abs=0.5)
    one_sided = replace(bands, energies=np.array([[[-1.0], [-0.9]], [[0.8], [1.0]]]))
    assert fermi_level(one_sided, np.array([0.5, 0.5]), 1).gap == pytest.approx(1.7)


def test_k_mesh_keeps_one_of_k_and_minus_k() -> None:
    whole, weights = k_mesh((4, 3, 1))
    assert (len(whole), weights.sum()) == (12, pytest.approx(1.0))
    half, halved = k_mesh((4, 3, 1), halved=True)
    assert halved.sum() == pytest.approx(1.0)
    both = np.concatenate([half, (-half) % 1.0])
    assert len(np.unique(np.round(both, 9), axis=0)) == 12
    waves = lambda k: np.cos(2 * np.pi * k @ np.array([1.0, 2.0, 0.0])) ** 2  # noqa: E731
    assert waves(half) @ halved == pytest.approx(waves(whole) @ weights)


def test_dependent_functions_are_projected_out() -> None:
    """A cell whose orbitals nearly repeat those of a neighbour: the bands of the rest, NaN for the one that is gone."""
    structure = Structure(
        np.array([1, 1]), np.array([[0.0, 0, 0], [0.6, 0, 0]]), cell_angstrom=9 * np.eye(3), pbc=(True,) * 3
    )
    pairs = PairList.within(structure, 1.0)
    near = 1.0 - 1e-4
    overlap = cut_matrix(H_SPACE, structure.numbers, pairs, np.array([[1.0, near], [near, 1.0]]))
    hamiltonian = cut_matrix(H_SPACE, structure.numbers, pairs, np.array([[-0.5, -0.51], [-0.51, -0.5]]))
    bands = band_energies(hamiltonian, overlap, [(0.0, 0.0, 0.0), (0.5, 0.0, 0.0)])
    assert np.abs(bands.energies[0, :, 0] + 1.01 / (1 + near)).max() < ROUNDING
    assert np.isnan(bands.energies[0, :, 1]).all()
    assert bands.n_projected.tolist() == [1, 1]
    assert bands.smallest_overlap == pytest.approx([1e-4, 1e-4], rel=1e-6)
    kept = band_energies(hamiltonian, overlap, [(0.0, 0.0, 0.0)], threshold=1e-7)
    assert kept.energies[0, 0, 1] == pytest.approx(0.01 / 1e-4, rel=1e-6), "a ghost band, 100 hartree up"
    assert fermi_level(bands, np.array([0.5, 0.5]), 2).gap is None
    with pytest.raises(ElectronCountError, match="fit"):
        fermi_level(bands, np.array([0.5, 0.5]), 3)


def test_refuses() -> None:
    hamiltonian, overlap = ring()
    gamma = [(0.0, 0.0, 0.0)]
    one_way = hamiltonian.values.copy()
    one_way[0, 1] = 0.5
    with pytest.raises(NumericalError, match=r"not hermitian.*hermitised"):
        band_energies(hamiltonian.with_values(one_way), overlap, gamma)
    with pytest.raises(NumericalError, match="finite"):
        band_energies(hamiltonian.with_values(np.nan * one_way), overlap, gamma)
    with pytest.raises(StructureError, match="orders"):
        band_energies(hamiltonian, overlap.in_order("siesta"), gamma)
    with pytest.raises(StructureError, match="different atoms"):
        band_energies(hamiltonian, unfold(overlap, (2, 1, 1)), gamma)
    with pytest.raises(StructureError, match="rows of three"):
        band_energies(hamiltonian, overlap, (0.0, 0.0, 0.0))
    spins = replace(overlap, spin="unrestricted", values=np.repeat(overlap.values, 2, axis=0))
    with pytest.raises(StructureError, match="no spin"):
        band_energies(hamiltonian, spins, gamma)
    with pytest.raises(StructureError, match="three counts"):
        k_mesh((4, 0, 1))
    with pytest.raises(StructureError, match="corners"):
        k_path(gamma, 3)
    bands = band_energies(hamiltonian, overlap, gamma)
    with pytest.raises(StructureError, match="weights"):
        fermi_level(bands, np.array([0.5]), 1)
