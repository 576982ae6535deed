"""ABACUS's sparse text files: equal to their DeepH form, read and rewritten in both layouts, bad ones refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model.blocks.matrices import dense_matrix
from model.errors import (
    DamagedFileError,
    FormatError,
    MissingFileError,
    NoHamiltonianError,
    OrbitalsDoNotFitError,
    UnsupportedContentError,
)
from model.formats.abacus import read_abacus, write_abacus
from model.formats.registry import read
from model.formats.units import DEEPH_EV, RYDBERG

from .conftest import largest_difference, made_up

RYDBERG_IN_EV_OF_THE_CONVERTER = 13.605698
"""DeepH-dock's factor for ABACUS."""
LATTICE_CONSTANT_ANGSTROM = 2e-5
"""The DeepH form has the lattice constant in five digits."""

Public = Callable[[str], Path]


def test_mos2_is_its_deeph_form(public: Public) -> None:
    """Bit equal on every pair that the conversion kept; it dropped those without overlap."""
    raw = read(public("deeph_dock/MoS2_abacus_raw"), unit=RYDBERG)
    form = read(public("deeph_dock/MoS2_abacus_as_deeph"), unit=DEEPH_EV)
    moved = raw.structure.positions_angstrom - form.structure.positions_angstrom
    assert np.abs(moved).max() < LATTICE_CONSTANT_ANGSTROM
    assert raw.structure.pbc == (True, True, False)
    for name, factor in (("hamiltonian", RYDBERG_IN_EV_OF_THE_CONVERTER), ("overlap", 1.0)):
        ours, theirs = raw.stored[name].in_order("e3nn"), form.stored[name]
        kept = ours.on_pairs(theirs.pairs)
        assert {tuple(key) for key in theirs.pairs.keys.tolist()} <= {tuple(key) for key in ours.pairs.keys.tolist()}
        assert np.array_equal(kept.values * factor, theirs.values)
    assert (len(raw.require_hamiltonian().pairs), len(form.require_hamiltonian().pairs)) == (353, 239)


@pytest.mark.parametrize("layout", ["new", "old"])
def test_mos2_read_and_rewritten(layout: str, public: Public, tmp_path: Path) -> None:
    first = read(public("deeph_dock/MoS2_abacus_raw"), unit=RYDBERG)
    write_abacus(first, tmp_path / "run", layout)  # type: ignore[arg-type]
    again = read(tmp_path / "run", unit=RYDBERG)
    for name, blocks in first.stored.items():
        assert np.array_equal(again.stored[name].pairs.keys, blocks.pairs.keys)
        assert np.array_equal(again.stored[name].values, blocks.values)
    assert np.array_equal(again.structure.positions_angstrom, first.structure.positions_angstrom)
    assert np.array_equal(again.structure.numbers, first.structure.numbers)
    assert again.space.shells == {42: (0, 0, 0, 0, 1, 1, 2, 2, 3), 16: (0, 0, 1, 1, 2)}


def test_abacus_s_own_reference_files(public: Public) -> None:
    found = read(public("abacus/out_hs2_multik"))
    assert found.overlap is not None
    assert found.space.shells == {14: (0, 0, 1, 1, 2)}
    assert found.require_hamiltonian().hermitian_error() == 0.0
    assert found.overlap.hermitian_error() == 0.0
    overlap = dense_matrix(found.overlap, (0.5, 0.25, 0.0))
    assert np.linalg.eigvalsh(overlap).min() > 1e-4
    assert np.abs(np.diag(dense_matrix(found.overlap.on_pairs(found.overlap.pairs)))).min() > 0.5


@pytest.mark.parametrize("layout", ["new", "old"])
@pytest.mark.parametrize("spin", ["restricted", "unrestricted", "spinor"])
def test_written_and_read_back(spin: str, layout: str, tmp_path: Path) -> None:
    """A slab whose shells do not ascend, with an atom outside the cell: H(k) keeps its levels, blocks stay as they are."""
    first = made_up(spin).in_unit(RYDBERG)  # type: ignore[arg-type]
    write_abacus(first, tmp_path / "run", layout)  # type: ignore[arg-type]
    again = read(tmp_path / "run", unit=RYDBERG)
    assert again.spin == spin
    assert again.structure.symbols == ("N", "N", "B")
    assert np.array_equal(again.structure.positions_angstrom, first.structure.positions_angstrom[[0, 2, 1]])
    k = (0.31, -0.12, 0.0)
    for name in ("hamiltonian", "overlap"):
        ours, theirs = dense_matrix(first.stored[name], k), dense_matrix(again.stored[name], k)
        levels = np.linalg.eigvalsh(ours) - np.linalg.eigvalsh(theirs)
        assert np.abs(levels).max() < 1e-12 * np.abs(ours).max() * ours.shape[-1]
    write_abacus(again, tmp_path / "again", layout)  # type: ignore[arg-type]
    last = read(tmp_path / "again", unit=RYDBERG)
    for name, blocks in again.stored.items():
        assert largest_difference(last.stored[name], blocks) == 0.0
    words = (tmp_path / "run" / "INPUT").read_text()
    assert f"nspin {dict(restricted=1, unrestricted=2, spinor=4)[spin]}" in words
    assert "init_chg hr" in words


def test_overlaps_alone(tmp_path: Path) -> None:
    """calculation get_s writes no H."""
    write_abacus(made_up(), tmp_path / "run")
    (tmp_path / "run" / "hrs1_nao.csr").unlink()
    (tmp_path / "run" / "srs1_nao.csr").rename(tmp_path / "run" / "sr_nao.csr")
    with pytest.raises(NoHamiltonianError):
        read(tmp_path / "run").require_hamiltonian()


def test_matrices_in_the_out_folder_and_the_level_of_the_log(tmp_path: Path) -> None:
    write_abacus(made_up(), tmp_path / "run")
    out = tmp_path / "run" / "OUT.ABACUS"
    out.mkdir()
    for name in ("hrs1_nao.csr", "srs1_nao.csr"):
        (tmp_path / "run" / name).rename(out / name)
    (out / "running_scf.log").write_text(" EFERMI = 1.0 eV\n ...\n EFERMI = 6.802849 eV\n")
    found = read(tmp_path / "run")
    assert found.fermi_energy_hartree == pytest.approx(0.25, abs=1e-6)
    assert read(out).fermi_energy == found.fermi_energy


def test_a_lattice_by_name(tmp_path: Path) -> None:
    write_abacus(made_up(), tmp_path / "run")
    stru = tmp_path / "run" / "STRU"
    text = stru.read_text()
    start, end = text.index("LATTICE_VECTORS"), text.index("ATOMIC_POSITIONS")
    stru.write_text(text[:start] + "LATTICE_PARAMETERS\n4.5\n\n" + text[end:])
    with (tmp_path / "run" / "INPUT").open("a") as file:
        file.write("latname hexagonal # a remark\n")
    cell = read(tmp_path / "run").structure.cell_angstrom
    assert cell is not None
    assert np.abs(cell - [[1, 0, 0], [-0.5, 0.75**0.5, 0], [0, 0, 4.5]]).max() < 1e-9


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_abacus(made_up(), tmp_path / "run", "old")
    return tmp_path / "run"


HAMILTONIAN, OVERLAP = "data-HR-sparse_SPIN0.csr", "data-SR-sparse_SPIN0.csr"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def cut_off(path: Path) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-3]))


def spoil_value(run: Path, word: str) -> None:
    lines = (run / HAMILTONIAN).read_text().splitlines()
    lines[4] = " ".join([word, *lines[4].split()[1:]])
    (run / HAMILTONIAN).write_text("\n".join(lines))


BAD: dict[str, tuple[Callable[[Path], object], type[FormatError], str]] = {
    "overlap under the Hamiltonian's name": (
        lambda run: (run / OVERLAP).replace(run / HAMILTONIAN),
        DamagedFileError,
        r"calls its matrix S\(R\)",
    ),
    "no STRU": (lambda run: (run / "STRU").unlink(), MissingFileError, "no STRU"),
    "other orbitals": (
        lambda run: edit(run / "STRU", "N_1s2p1f", "N_1s2p1d"),
        OrbitalsDoNotFitError,
        "NUMERICAL_ORBITAL",
    ),
    "no orbital files": (lambda run: edit(run / "STRU", "N_1s2p1f.orb", ""), MissingFileError, "orbital files"),
    "orbital file without shells": (lambda run: edit(run / "STRU", "N_1s2p1f", "N"), MissingFileError, "not clear"),
    "cut off": (lambda run: cut_off(run / HAMILTONIAN), DamagedFileError, "ends within"),
    "not a number": (lambda run: spoil_value(run, "nan"), DamagedFileError, "not a finite number"),
    "a word": (lambda run: spoil_value(run, "x"), DamagedFileError, "could not convert"),
    "a second step": (
        lambda run: (run / HAMILTONIAN).write_text((run / HAMILTONIAN).read_text() * 2),
        UnsupportedContentError,
        "ionic steps",
    ),
    "another program's file": (
        lambda run: (run / HAMILTONIAN).write_text("&FORCE_EVAL\n"),
        DamagedFileError,
        "does not begin like",
    ),
    "unknown units of positions": (
        lambda run: edit(run / "STRU", "Cartesian_angstrom", "Cartesian_miles"),
        UnsupportedContentError,
        "cartesian_angstrom",
    ),
    "no element": (lambda run: edit(run / "STRU", "N 1.0 N.upf", "Q 1.0 Q.upf"), DamagedFileError, "element symbol"),
}


@pytest.mark.parametrize("what", list(BAD))
def test_a_bad_run_is_refused_by_name(what: str, run: Path) -> None:
    spoil, kind, words = BAD[what]
    spoil(run)
    with pytest.raises(kind, match=words):
        read_abacus(run)


def test_atoms_that_do_not_match(tmp_path: Path) -> None:
    """A new file states its atoms; STRU of another run is found out."""
    write_abacus(made_up(), tmp_path / "run")
    edit(tmp_path / "run" / "hrs1_nao.csr", " N B\n 2 1\n", " N B\n 1 2\n")
    with pytest.raises(DamagedFileError, match="STRU of"):
        read_abacus(tmp_path / "run")


def test_two_species_of_one_element_with_other_shells(tmp_path: Path) -> None:
    write_abacus(made_up(), tmp_path / "run")
    stru = tmp_path / "run" / "STRU"
    stru.write_text(stru.read_text().replace("\nB\n0.0", "\nN2\n0.0").replace("B 1.0 B.upf", "N2 1.0 N.upf"))
    with pytest.raises(OrbitalsDoNotFitError, match="Two atoms of N"):
        read_abacus(tmp_path / "run")
