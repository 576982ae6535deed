"""SIESTA through sisl: density matrices rebuilt from H(R) and S(R), spin-orbit coupling, and the traps of its files."""

from __future__ import annotations

import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sisl")

import sisl

from model.blocks.matrices import dense_matrix
from model.blocks.motions import time_reversal_error
from model.electronic.density import density_matrix
from model.errors import DamagedFileError, MissingFileError, UnsupportedContentError
from model.formats.matrices import Matrices
from model.formats.registry import read
from model.formats.siesta import write_siesta
from model.formats.units import CODATA_EV

from .conftest import largest_difference, made_up

REBUILT_DENSITY = 1e-4
"""SIESTA's own tolerance; measured 7.7e-5 (Si) and 8.4e-5 (Bi)."""
TIME_REVERSAL_EV = 1e-3
"""Measured 5e-4 eV at 1.2 eV of spin-orbit coupling; the SCF stopped at 1e-3."""

Public = Callable[[str], Path]


def rebuilt(found: Matrices, folder: Path, label: str) -> float:
    """Largest difference between the stored D and that of H(R), S(R), where D is stored."""
    assert found.overlap is not None
    assert found.density is not None
    lattice = sisl.Lattice(found.structure.cell_angstrom)
    points, weights = sisl.get_sile(str(folder / f"{label}.KP")).read_data(lattice=lattice)
    ten_mev = 0.010 / CODATA_EV.per_hartree
    made = density_matrix(
        found.require_hamiltonian(),
        found.overlap,
        points,
        weights / weights.sum(),
        n_electrons=found.n_electrons,
        smearing_hartree=ten_mev,
    )
    assert made.n_electrons == pytest.approx(found.n_electrons, abs=1e-9)
    assert made.blocks.hermitian_error() < 1e-14
    ours, theirs = made.blocks.on_pairs(found.density.pairs).values, found.density.values
    stored = (theirs != 0).any(axis=0)
    assert stored.mean() > 0.2
    return float(np.abs(ours - theirs)[:, stored].max())


@pytest.mark.parametrize(("folder", "label"), [("Si_pdos_k", "Si_pdos"), ("Bi_hexagonal", "Bi_hexagonal")])
def test_density_matrix_rebuilt(folder: str, label: str, public: Public) -> None:
    path = public(f"sisl_files/{folder}")
    assert rebuilt(read(path), path, label) < REBUILT_DENSITY


def test_bismuth_with_spin_orbit_coupling(public: Public) -> None:
    found = read(public("sisl_files/Bi_hexagonal"), unit=CODATA_EV)
    hamiltonian = found.require_hamiltonian()
    assert found.spin == "spinor"
    assert found.n_electrons == 30
    assert found.space.shells == {83: (0, 1, 2, 2)}
    assert hamiltonian.hermitian_error() < 1e-7
    coupling = np.abs(hamiltonian.values[1:3]).max()
    assert coupling > 1.0
    assert time_reversal_error(hamiltonian) < TIME_REVERSAL_EV
    energies = np.linalg.eigvalsh(dense_matrix(hamiltonian))
    assert np.abs(energies[::2] - energies[1::2]).max() < 2 * TIME_REVERSAL_EV, "Kramers pairs at Gamma"


def test_tshs_with_an_orbital_index_is_the_hsx(public: Public, tmp_path: Path) -> None:
    path = public("sisl_files/Si_pdos_k")
    for ending in ("TSHS", "ORB_INDX"):
        shutil.copy(path / f"Si_pdos.{ending}", tmp_path)
    first, second = read(path / "Si_pdos.HSX"), read(tmp_path)
    assert second.space.shells == first.space.shells
    assert largest_difference(second.require_hamiltonian(), first.require_hamiltonian()) < 1e-14
    (tmp_path / "Si_pdos.ORB_INDX").unlink()
    with pytest.raises(MissingFileError, match="ORB_INDX"):
        read(tmp_path)


@pytest.mark.parametrize("spin", ["restricted", "unrestricted", "spinor"])
def test_written_and_read_back(spin: str, tmp_path: Path) -> None:
    first = made_up(spin).in_order("siesta").in_unit(CODATA_EV)  # type: ignore[arg-type]
    write_siesta(first, tmp_path / "run")
    again = read(tmp_path / "run", unit=CODATA_EV)
    assert again.spin == spin
    assert again.fermi_energy == 0.0, "a .HSX of sisl's holds no Fermi level; H is relative to it"
    assert np.abs(again.structure.positions_angstrom - first.structure.positions_angstrom).max() < 1e-12
    assert first.overlap is not None
    assert again.overlap is not None
    assert largest_difference(again.overlap, first.overlap) < 1e-14
    assert again.density is not None
    assert first.density is not None
    assert largest_difference(again.density, first.density) < 1e-14
    k = (0.2, 0.4, 0.0)
    ours, theirs = dense_matrix(first.require_hamiltonian(), k), dense_matrix(again.require_hamiltonian(), k)
    overlap = dense_matrix(first.overlap, k)
    if spin == "spinor":
        overlap = np.kron(np.eye(2), overlap)
    assert first.fermi_energy is not None
    assert np.abs(ours - first.fermi_energy * overlap - theirs).max() < 1e-11


def test_a_logical_of_the_intel_compiler(tmp_path: Path) -> None:
    """-1 for true, on which sisl 0.20 raises KeyError."""
    write_siesta(made_up(), tmp_path / "run")
    file = tmp_path / "run" / "siesta.HSX"
    expected = read(file)
    assert sys.byteorder == "little"
    data = file.read_bytes()
    flag = struct.pack("<iii", 4, 1, 4)  # a Fortran record of one logical
    at = data.index(flag)
    file.write_bytes(data[:at] + struct.pack("<iii", 4, -1, 4) + data[at + 12 :])
    with pytest.raises(KeyError):
        sisl.get_sile(str(file)).read_hamiltonian()
    assert largest_difference(read(file).require_hamiltonian(), expected.require_hamiltonian()) == 0.0


def test_bad_files_are_refused_by_name(tmp_path: Path) -> None:
    write_siesta(made_up(), tmp_path / "run")
    file = tmp_path / "run" / "siesta.HSX"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedFileError, match="siesta"):
        read(file)
    file.write_bytes(b"not a SIESTA file")
    with pytest.raises(DamagedFileError):
        read(file)
    file.unlink()
    with pytest.raises(MissingFileError, match=r"neither \.HSX nor \.TSHS"):
        read(tmp_path / "run" / "siesta.DM")
    (tmp_path / "run" / "other.DM").write_bytes(b"")
    with pytest.raises(MissingFileError, match="2 system labels"):
        read(tmp_path / "run")


def test_what_siesta_has_no_place_for(tmp_path: Path) -> None:
    whole = made_up()
    for part in (
        Matrices(whole.structure, whole.hamiltonian, None),
        Matrices(whole.structure, None, whole.overlap),
    ):
        with pytest.raises(UnsupportedContentError):
            write_siesta(part, tmp_path / "run")
        assert not (tmp_path / "run").exists()
