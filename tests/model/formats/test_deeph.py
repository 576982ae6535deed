"""DeepH's folders: bit equal to what DeepH-dock made of the same run, bands as published, and bad folders refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from model.blocks.matrices import dense_matrix
from model.electronic.bands import band_energies
from model.errors import (
    DamagedFileError,
    FormatError,
    MissingFileError,
    NoHamiltonianError,
    OrbitalsDoNotFitError,
    UnknownFormatError,
    UnsupportedContentError,
)
from model.formats.deeph import read_deeph, write_deeph
from model.formats.deeph_legacy import read_deeph_legacy, write_deeph_legacy
from model.formats.registry import entries, identify, read
from model.formats.units import CODATA_EV, DEEPH_EV

from .conftest import largest_difference, made_up

BANDS_EV = 1e-8
"""Measured 4e-10."""
POSITIONS_ANGSTROM = 1e-13

Public = Callable[[str], Path]


def test_legacy_to_new_is_bit_equal(public: Public, tmp_path: Path) -> None:
    write_deeph(read_deeph_legacy(public("deeph_dock/MoTe2_legacy"), DEEPH_EV), tmp_path / "made")
    made, theirs = tmp_path / "made", public("deeph_dock/MoTe2_new")
    for file in ("hamiltonian.h5", "overlap.h5"):
        assert block_bytes(made / file) == block_bytes(theirs / file)
    own, other = read_deeph(made, DEEPH_EV), read_deeph(theirs, DEEPH_EV)
    assert np.abs(own.structure.positions_angstrom - other.structure.positions_angstrom).max() < POSITIONS_ANGSTROM
    assert own.structure.symbols == ("Te", "Te", "Mo")
    assert own.fermi_energy == other.fermi_energy
    info, expected = (json.loads((folder / "info.json").read_text()) for folder in (made, theirs))
    assert info == expected


def block_bytes(path: Path) -> dict[tuple[int, ...], bytes]:
    with h5py.File(path) as file:
        ends = file["chunk_boundaries"][()]
        entries = file["entries"][()]
        return {
            tuple(key): entries[ends[k] : ends[k + 1]].tobytes()
            for k, key in enumerate(file["atom_pairs"][()].tolist())
        }


def test_new_to_legacy_is_bit_equal(public: Public, tmp_path: Path) -> None:
    theirs = public("deeph_dock/MoTe2_legacy")
    write_deeph_legacy(read_deeph_legacy(theirs, DEEPH_EV), tmp_path / "made")
    for file in ("hamiltonians.h5", "overlaps.h5"):
        with h5py.File(tmp_path / "made" / file) as own, h5py.File(theirs / file) as other:
            assert set(own) == set(other)
            assert all(own[key][()].tobytes() == other[key][()].tobytes() for key in own)


def test_bands_of_mote2_are_the_reference_s(public: Public) -> None:
    folder = public("deeph_dock/MoTe2_bands_reference")
    found = read(folder, unit=DEEPH_EV)
    with h5py.File(folder / "band.h5") as file:
        points, expected = file["kpoints_frac_list"][()], file["band_data"][()]
        shift = float(file["fermi_energy_before_shift_eV"][()])
    assert found.overlap is not None
    bands = band_energies(found.require_hamiltonian(), found.overlap, points)
    worst = float(np.abs(bands.energies[0].T - shift - expected).max())
    assert worst < BANDS_EV


def test_bismuthene_with_spin_orbit_coupling(crystals: Public, tmp_path: Path) -> None:
    """Our legacy folder and our HDF5 file of the same structure agree to the file's float32; hermitian; and both ways."""
    legacy = read(crystals("deeph_legacy/bismuthene_soc_0000"), unit=CODATA_EV)
    assert legacy.spin == "spinor"
    assert legacy.require_hamiltonian().hermitian_error() < 1e-12
    packed = read(crystals("bismuthene_soc.h5"), unit=CODATA_EV)
    scale = DEEPH_EV.per_hartree / CODATA_EV.per_hartree  # the folder was written with CODATA's eV
    hamiltonian = legacy.require_hamiltonian()
    assert largest_difference(hamiltonian.with_values(hamiltonian.values * scale), packed.require_hamiltonian()) < 1e-5
    write_deeph(legacy, tmp_path / "new")
    again = read_deeph(tmp_path / "new", CODATA_EV).in_order("openmx")
    assert largest_difference(again.require_hamiltonian(), hamiltonian) < 1e-13


def test_s_only_folder_is_no_hamiltonian(public: Public) -> None:
    found = read(public("deeph_dock/Bi2Se3_SOC_overlap_and_bands_only"))
    assert found.hamiltonian is None
    assert found.overlap is not None
    assert len(found.overlap.pairs) == 273
    with pytest.raises(NoHamiltonianError, match="overlap only") as caught:
        found.require_hamiltonian()
    assert caught.value.code == "no_hamiltonian"


def test_mixed_molecules_and_null_fermi_levels(public: Public) -> None:
    folder = public("deeph_dock/molecules_mixed_elements")
    found = [entry.read() for entry in entries(folder)]
    assert len(found) == 13
    assert {frozenset(matrices.structure.symbols) for matrices in found} == {
        frozenset("CH"),
        frozenset("CHO"),
        frozenset("HO"),
    }
    assert any(matrices.fermi_energy is None for matrices in found)
    assert any(matrices.fermi_energy is not None for matrices in found)
    assert not any(matrices.structure.is_periodic for matrices in found)


@pytest.mark.parametrize("spin", ["restricted", "spinor"])
@pytest.mark.parametrize("layout", ["deeph", "deeph-legacy"])
def test_written_and_read_back(spin: str, layout: str, tmp_path: Path) -> None:
    """Random matrices of a slab with an atom outside the cell; elements apart, shells unlike."""
    first = made_up(spin).in_unit(DEEPH_EV)  # type: ignore[arg-type]
    write = {"deeph": write_deeph, "deeph-legacy": write_deeph_legacy}[layout]
    write(first, tmp_path / "made")
    assert identify(tmp_path / "made") == layout
    back = read(tmp_path / "made", unit=DEEPH_EV)
    order = [0, 2, 1] if layout == "deeph" else [0, 1, 2]
    assert np.array_equal(back.structure.positions_angstrom, first.structure.positions_angstrom[order])
    write_deeph_legacy(back, tmp_path / "legacy")
    write_deeph(read(tmp_path / "legacy", unit=DEEPH_EV), tmp_path / "again")
    last = read(tmp_path / "again", unit=DEEPH_EV)
    write_deeph(first, tmp_path / "direct")
    direct = read(tmp_path / "direct", unit=DEEPH_EV)
    for name, blocks in direct.stored.items():
        assert largest_difference(last.stored[name], blocks) == 0.0
        k = (0.21, -0.4, 0.0)
        ours, theirs = dense_matrix(first.stored[name], k), dense_matrix(blocks, k)
        assert np.abs(np.linalg.eigvalsh(ours) - np.linalg.eigvalsh(theirs)).max() < 1e-10 * np.abs(ours).max() * len(
            ours
        )
    assert last.fermi_energy == first.fermi_energy


def test_collinear_spins_have_no_place(tmp_path: Path) -> None:
    for write in (write_deeph, write_deeph_legacy):
        with pytest.raises(UnsupportedContentError, match="collinear"):
            write(made_up("unrestricted"), tmp_path / "made")
        assert not (tmp_path / "made").exists()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(UnsupportedContentError, match="there already"):
        write_deeph(made_up(), tmp_path)
    assert (tmp_path / "kept").read_text() == "mine"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_deeph(made_up(), tmp_path / "good")
    return tmp_path / "good"


def edit_info(folder: Path, **values: object) -> None:
    info = json.loads((folder / "info.json").read_text())
    (folder / "info.json").write_text(json.dumps({**info, **values}))


def replace_array(path: Path, name: str, values: object) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = values


def first_nan(folder: Path) -> None:
    with h5py.File(folder / "hamiltonian.h5", "r+") as file:
        file["entries"][3] = np.nan


def link_out(folder: Path) -> None:
    with h5py.File(folder / "hamiltonian.h5", "r+") as file:
        del file["entries"]
        file["entries"] = h5py.ExternalLink("overlap.h5", "/entries")


def virtual(folder: Path) -> None:
    with h5py.File(folder / "hamiltonian.h5", "r+") as file:
        shape = file["entries"].shape
        del file["entries"]
        layout = h5py.VirtualLayout(shape, dtype="f8")
        layout[:] = h5py.VirtualSource("overlap.h5", "entries", shape=shape)
        file.create_virtual_dataset("entries", layout)


def spoil_bytes(path: Path) -> None:
    """Damage the names and types of an HDF5 file, not its signature."""
    data = bytearray(path.read_bytes())
    data[800:2400] = bytes(len(data[800:2400]))
    path.write_bytes(bytes(data))


def drop_on_site(folder: Path) -> None:
    with h5py.File(folder / "hamiltonian.h5", "r+") as file:
        listed = file["atom_pairs"][()]
        listed[(listed == 0).all(axis=1)] = [7, 7, 0, 0, 0]
        file["atom_pairs"][...] = listed


def no_matrices(folder: Path) -> None:
    for path in folder.glob("*.h5"):
        path.unlink()


BAD: dict[str, tuple[Callable[[Path], object], type[FormatError], str]] = {
    "not a number": (first_nan, DamagedFileError, "not finite"),
    "link to another file": (link_out, DamagedFileError, "link"),
    "virtual dataset": (virtual, DamagedFileError, "plain array"),
    "not HDF5": (lambda f: (f / "hamiltonian.h5").write_bytes(b"H"), DamagedFileError, "not an HDF5 file"),
    "damaged inside": (lambda f: spoil_bytes(f / "hamiltonian.h5"), DamagedFileError, "damaged"),
    "lattice vector of two numbers": (
        lambda f: (f / "POSCAR").write_text((f / "POSCAR").read_text().replace("  0.0 0.0 15.0", "  0.0 15.0")),
        DamagedFileError,
        "three lattice vectors",
    ),
    "no matrices": (no_matrices, MissingFileError, "none of"),
    "other atoms": (lambda f: edit_info(f, atoms_quantity=4), OrbitalsDoNotFitError, "atoms_quantity is 4"),
    "other orbitals": (
        lambda f: edit_info(f, elements_orbital_map={"B": [0, 0, 1], "N": [0, 1, 1, 3]}, orbits_quantity=33),
        OrbitalsDoNotFitError,
        "the block of atoms",
    ),
    "element missing": (
        lambda f: edit_info(f, elements_orbital_map={"B": [0]}),
        OrbitalsDoNotFitError,
        "lacks N",
    ),
    "shells of text": (
        lambda f: edit_info(f, elements_orbital_map={"B": ["s"], "N": [0]}),
        DamagedFileError,
        "expected l from 0 to 9",
    ),
    "spinful by mistake": (lambda f: edit_info(f, spinful=True), OrbitalsDoNotFitError, "spinor block|block of atoms"),
    "fermi level of text": (lambda f: edit_info(f, fermi_energy_eV="high"), DamagedFileError, "fermi_energy_eV"),
    "info is no object": (lambda f: (f / "info.json").write_text("[]"), DamagedFileError, "not an object"),
    "boundaries": (
        lambda f: replace_array(f / "overlap.h5", "chunk_boundaries", np.arange(3)),
        DamagedFileError,
        "do not belong together",
    ),
    "strings for numbers": (
        lambda f: replace_array(f / "overlap.h5", "entries", np.array([b"import os"], dtype="S9")),
        DamagedFileError,
        "expected kind",
    ),
    "no on-site block": (drop_on_site, DamagedFileError, "on-site|beyond|R ="),
    "POSCAR of VASP 4": (
        lambda f: (f / "POSCAR").write_text((f / "POSCAR").read_text().replace("N B", "")),
        DamagedFileError,
        "element symbols",
    ),
    "POSCAR with nan": (
        lambda f: (f / "POSCAR").write_text((f / "POSCAR").read_text().replace("15.0", "nan")),
        DamagedFileError,
        "not finite",
    ),
}


@pytest.mark.parametrize("what", list(BAD))
def test_a_bad_folder_is_refused_by_name(what: str, folder: Path) -> None:
    spoil, kind, words = BAD[what]
    spoil(folder)
    with pytest.raises(kind, match=words) as caught:
        read_deeph(folder)
    assert caught.value.code != "model_error"


def test_one_layout_is_not_read_as_another(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownFormatError, match="it looks like deeph"):
        read(folder, "deeph-legacy")
    with pytest.raises(UnknownFormatError, match="vasp"):
        read(folder, "vasp")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnknownFormatError, match="Allowed: deeph"):
        identify(tmp_path / "empty")
    with pytest.raises(MissingFileError, match="is not there"):
        identify(tmp_path / "absent")


def test_legacy_keys_count_from_one(tmp_path: Path) -> None:
    write_deeph_legacy(made_up(), tmp_path / "made")
    with h5py.File(tmp_path / "made" / "hamiltonians.h5", "r+") as file:
        assert "[0, 0, 0, 1, 1]" in file
        file.move("[0, 0, 0, 1, 1]", "[0, 0, 0, 0, 0]")
    with pytest.raises(DamagedFileError, match="counts from 1"):
        read_deeph_legacy(tmp_path / "made")


def test_src_of_a_published_model_is_never_run(folder: Path, tmp_path: Path) -> None:
    """DeepH-E3's model folders carry Python files; a reader looks at none of them."""
    (folder / "src").mkdir()
    (folder / "src" / "build_model.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    shutil.copy(folder / "src" / "build_model.py", folder / "build_model.py")
    read_deeph(folder)
    assert not (tmp_path / "ran").exists()
