"""A folder of ABACUS: STRU and INPUT, and sparse text files of H(R) and S(R) in it or in its OUT.* folder.

    nspin 1, 4   hrs1_nao.csr, srs1_nao.csr (or sr_nao.csr); old: data-HR-sparse_SPIN0.csr, data-SR-sparse_SPIN0.csr
    nspin 2      hrs2_nao.csr too; old: data-HR-sparse_SPIN1.csr

Matrices are in Rydberg, orbitals by atom, l, zeta, m = 0, 1, -1, 2, -2, ... with the sign (-1)^m; with nspin 4 each orbital
has its two spins next to each other. Atom j of a pair lies in cell +R although ABACUS's documentation writes exp(-ikR):
verified on MoS2 against its DeepH form. ABACUS moves atoms into the cell (fractional coordinates in [0, 1)) before it counts
cells; the matrices here belong to the atoms where STRU has them.

Verified on ABACUS's own files: the old layout without spin. The new layout and nspin 2 and 4 follow its documentation and
source (docs/advanced/elec_properties/hs_matrix.md); no such file was at hand.

``init_chg hr`` makes ABACUS (from December 2025) start its SCF from ``hrs1_nao.csr``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from model.blocks.block_set import BlockSet, Spin, Values
from model.errors import DamagedFileError, MissingFileError, OrbitalsDoNotFitError, UnsupportedContentError
from model.formats.abacus_csr import CsrFile, read_csr, write_csr
from model.formats.abacus_stru import SHELL_LETTERS, Stru, element_of, fermi_from_log, input_values, read_stru
from model.formats.entries import Entries, blocks_of_entries, entries_of_blocks
from model.formats.folders import fresh_folder
from model.formats.matrices import Matrices, Outline
from model.formats.rearrange import (
    ascending_shells,
    cells_of,
    grouped_by_element,
    moved,
    shells_per_element,
    structure_of,
    union_of_pairs,
    wrapped,
)
from model.formats.units import CODATA_EV, HARTREE, RYDBERG, EnergyUnit
from model.orbitals.space import OrbitalSpace
from model.structure import SYMBOLS, Structure
from model.units import BOHR_PER_ANGSTROM

Layout = Literal["new", "old"]
FILES: Final[dict[str, tuple[str, ...]]] = {
    "hamiltonian": ("hrs1_nao.csr", "data-HR-sparse_SPIN0.csr"),
    "second spin": ("hrs2_nao.csr", "data-HR-sparse_SPIN1.csr"),
    "overlap": ("srs1_nao.csr", "sr_nao.csr", "data-SR-sparse_SPIN0.csr"),
}
LABELS: Final = {"hamiltonian": "H", "second spin": "H", "overlap": "S"}
SPIN_DIAGONAL_TOLERANCE: Final = 1e-8
"""Largest entry of S between two spins; there should be none."""


def is_abacus(path: Path) -> bool:
    """Whether a folder, or an OUT.* folder in it, has a matrix file of ABACUS."""
    return bool(_matrix_folders(path))


def outline_abacus(folder: Path) -> Outline:
    """Atoms and orbitals of a run, from STRU and INPUT.

    Raises:
        FormatError: one of its leaves.
    """
    inner, stru_path, input_path = _places(folder)
    words = input_values(input_path)
    stru = read_stru(stru_path, words.get("latname", "none"))
    spin: Spin = "unrestricted" if _find(inner, "second spin") else "restricted"
    spin = "spinor" if words.get("nspin") == "4" else spin
    return Outline(stru.numbers, _space(stru, stru_path), spin, _find(inner, "hamiltonian") is not None)


def read_abacus(folder: Path, unit: EnergyUnit = HARTREE) -> Matrices:
    """Read a folder.

    Args:
        folder: of the run, or its OUT.* folder. With overlaps only, ``hamiltonian`` is None.
        unit: of the result; ``RYDBERG`` keeps the file's own numbers (hartree are exactly half).

    Raises:
        FormatError: one of its leaves, with the file and the reason.
    """
    inner, stru_path, input_path = _places(folder)
    stru = read_stru(stru_path, input_values(input_path).get("latname", "none"))
    space = _space(stru, stru_path)
    paths = {name: path for name in FILES if (path := _find(inner, name)) is not None}
    files = {name: _checked(read_csr(path), path, name, stru, space) for name, path in paths.items()}
    shifts = np.concatenate([file.entries.occupied for file in files.values()])
    stated = structure_of(stru.numbers, stru.positions_angstrom, stru.cell_angstrom, shifts)
    cells = cells_of(stated)
    home = structure_of(stru.numbers, stru.positions_angstrom - cells @ stru.cell_angstrom, stru.cell_angstrom, shifts)
    blocks = {name: _blocks(file, space, home, name == "overlap", str(paths[name])) for name, file in files.items()}
    hamiltonian = blocks.get("hamiltonian")
    if hamiltonian is not None and "second spin" in blocks:
        hamiltonian = _two_spins(hamiltonian, blocks["second spin"], home, str(paths["second spin"]))
    fermi = fermi_from_log(inner)
    folded = any(file.folded for file in files.values())
    found = Matrices(
        home,
        hamiltonian,
        blocks.get("overlap"),
        fermi_energy=None if fermi is None else fermi / CODATA_EV.per_hartree * RYDBERG.per_hartree,
        program="ABACUS",
        unit=RYDBERG,
        notes=("all cells are summed into R = 0 (gamma-only run): right at Gamma only",) if folded else (),
    )
    return moved(found, -cells, stru.positions_angstrom).in_unit(unit)


def write_abacus(matrices: Matrices, folder: Path, layout: Layout = "new") -> None:
    """Write a new folder that ABACUS can start its SCF from, and that :func:`read_abacus` reads back.

    STRU names orbital and pseudopotential files after the shells; put the real names there before ABACUS runs. A density
    matrix and the electron count have no place here and are left out.

    Args:
        matrices: with a cell; atoms are grouped by element and shells put in ascending l.
        folder: new or empty.
        layout: of the matrix files.

    Raises:
        UnsupportedContentError: no cell, or a folder that is there already.
    """
    matrices = ascending_shells(grouped_by_element(matrices)).in_order("abacus").in_unit(RYDBERG)
    structure, space = matrices.structure, matrices.space
    if structure.cell_angstrom is None:
        raise UnsupportedContentError("ABACUS needs a cell, and the structure has none.", hint="Give it a box.")
    fresh_folder(folder)
    (folder / "STRU").write_text(_stru_text(structure, space))
    home = wrapped(matrices)
    names = {name: options[0 if layout == "new" else -1] for name, options in FILES.items()}
    spin = matrices.spin
    unit_cell = _unit_cell_text(home.structure) if layout == "new" else None
    if home.hamiltonian is not None:
        parts = home.hamiltonian.values
        if spin == "spinor":
            _write_spinor(folder / names["hamiltonian"], "H", home.hamiltonian, unit_cell)
        else:
            for number, name in zip(range(len(parts)), ("hamiltonian", "second spin"), strict=False):
                one = BlockSet(space, structure.numbers, home.hamiltonian.pairs, parts[number : number + 1])
                entries = entries_of_blocks(one)
                write_csr(folder / names[name], "H", one.n_orbitals, entries, unit_cell, (len(parts), number + 1))
    if home.overlap is not None:
        if spin == "spinor":
            values = home.overlap.values[0].astype(np.complex128)
            zero = np.zeros_like(values)
            doubled = replace(home.overlap, values=np.stack([values, zero, zero, values]), spin="spinor")
            _write_spinor(folder / names["overlap"], "S", doubled, unit_cell)
        else:
            entries = entries_of_blocks(home.overlap)
            write_csr(folder / names["overlap"], "S", home.overlap.n_orbitals, entries, unit_cell)
    (folder / "INPUT").write_text(
        "INPUT_PARAMETERS\nbasis_type lcao\ncalculation scf\n"
        f"nspin {dict(restricted=1, unrestricted=2, spinor=4)[spin]}\ninit_chg hr\nread_file_dir ./\n"
    )


def _matrix_folders(path: Path) -> list[Path]:
    """The folder itself and its OUT.* folders, those that have matrix files."""
    if not path.is_dir():
        return []
    return [folder for folder in (path, *sorted(path.glob("OUT.*"))) if any(_find(folder, name) for name in FILES)]


def _find(folder: Path, name: str) -> Path | None:
    """A matrix file by its name, or by the name that ABACUS's own tests give it (.ref)."""
    options = (folder / (one + end) for one in FILES[name] for end in ("", ".ref"))
    return next((path for path in options if path.is_file()), None)


def _places(folder: Path) -> tuple[Path, Path, Path]:
    """Folder of the matrices, STRU, and INPUT (which may be absent)."""
    found = _matrix_folders(folder)
    if len(found) != 1:
        raise MissingFileError(
            f"{folder} has {len(found)} folders with ABACUS's H(R) or S(R) files; exactly one is read.",
            hint="ABACUS writes them with out_mat_hs2 1 (out_hsr 1 from 2026).",
        )
    inner = found[0]
    near = (folder, inner, inner.parent)
    stru = next((place / "STRU" for place in near if (place / "STRU").is_file()), None)
    if stru is None:
        raise MissingFileError(f"{folder} has matrices but no STRU, which says the shells of each element.")
    inputs = [place / "INPUT" for place in (stru.parent, inner) if (place / "INPUT").is_file()]
    return inner, stru, inputs[0] if inputs else stru.parent / "INPUT"


def _space(stru: Stru, path: Path) -> OrbitalSpace:
    shells = shells_per_element([element_of(label, str(path)) for label in stru.labels], stru.shells)
    return OrbitalSpace("as NUMERICAL_ORBITAL says", shells, order="abacus")


def _checked(file: CsrFile, path: Path, name: str, stru: Stru, space: OrbitalSpace) -> CsrFile:
    """The file, if it is of this matrix and of these atoms."""
    if file.label != LABELS[name]:
        raise DamagedFileError(f"{path} calls its matrix {file.label}(R); by its name it should be {LABELS[name]}(R).")
    n = space.count_orbitals(stru.numbers)
    if file.dimension not in (n, 2 * n):
        raise OrbitalsDoNotFitError(
            f"{path} has matrices of {file.dimension} rows; the shells in STRU make {n}, or {2 * n} with nspin 4.",
            hint="Is STRU of the same run? Its NUMERICAL_ORBITAL says which shells an element has.",
        )
    if file.labels and (file.labels, file.counts) != (stru.labels, stru.counts):
        raise DamagedFileError(
            f"{path} is of {file.counts} atoms of {file.labels}, STRU of {stru.counts} of {stru.labels}."
        )
    return file


def _blocks(file: CsrFile, space: OrbitalSpace, home: Structure, overlap: bool, where: str) -> BlockSet:
    entries = file.entries
    if file.dimension == space.count_orbitals(home.numbers):
        if entries.values.dtype.kind == "c":
            raise DamagedFileError(f"{where} is complex without spin.", hint="Matrices in real space are real then.")
        return blocks_of_entries(space, home, entries, "restricted", where)
    part = 2 * (entries.rows % 2) + entries.columns % 2
    rows, columns = entries.rows // 2, entries.columns // 2
    key = np.column_stack([entries.cell, rows, columns])
    unique, place = np.unique(key, axis=0, return_inverse=True)
    parts = np.zeros((4, len(unique)), dtype=np.complex128)
    parts[part, place.reshape(-1)] = entries.values[0]
    values: Values = parts
    spin: Spin = "spinor"
    if overlap:
        if np.abs(parts[1:3]).max() > SPIN_DIAGONAL_TOLERANCE or np.abs(parts.imag).max() > SPIN_DIAGONAL_TOLERANCE:
            raise DamagedFileError(f"{where}: the overlap couples the two spins; it should not.")
        values, spin = parts[:1].real, "restricted"
    joined = Entries(unique[:, 1], unique[:, 2], unique[:, 0], entries.cells, values)
    return blocks_of_entries(space, home, joined, spin, where)


def _two_spins(first: BlockSet, second: BlockSet, home: Structure, where: str) -> BlockSet:
    if first.spin != "restricted" or second.spin != "restricted":
        raise DamagedFileError(f"{where}: a second spin of a run with spinors.")
    pairs = union_of_pairs(home, [first, second])
    values = np.concatenate([one.on_pairs(pairs).values for one in (first, second)])
    return BlockSet(first.space, first.numbers, pairs, values, "unrestricted")


def _write_spinor(path: Path, label: str, blocks: BlockSet, unit_cell: str | None) -> None:
    entries = entries_of_blocks(blocks)
    parts = [(row, column) for row in (0, 1) for column in (0, 1)]
    rows = np.concatenate([2 * entries.rows + row for row, _ in parts])
    columns = np.concatenate([2 * entries.columns + column for _, column in parts])
    cell = np.tile(entries.cell, 4)
    order = np.lexsort((columns, rows, cell))
    values: Values = np.concatenate(list(entries.values))[order][None]
    flat = Entries(rows[order], columns[order], cell[order], entries.cells, values)
    write_csr(path, label, 2 * blocks.n_orbitals, flat, unit_cell, (4, 1))


def _species(structure: Structure) -> list[tuple[str, int]]:
    symbols = structure.symbols
    return [(symbol, symbols.count(symbol)) for symbol in dict.fromkeys(symbols)]


def _rows(table: object) -> str:
    return "".join(" " + " ".join(repr(float(x)) for x in row) + "\n" for row in np.asarray(table))


def _stru_text(structure: Structure, space: OrbitalSpace) -> str:
    """STRU with names of orbital files that state the shells; atoms where they are, in Å."""
    text = "ATOMIC_SPECIES\n"
    text += "".join(f"{symbol} 1.0 {symbol}.upf\n" for symbol, _ in _species(structure))
    text += "\nNUMERICAL_ORBITAL\n"
    for symbol, _ in _species(structure):
        shells = space.shells_of(SYMBOLS.index(symbol))
        text += f"{symbol}_{''.join(f'{shells.count(a)}{SHELL_LETTERS[a]}' for a in sorted(set(shells)))}.orb\n"
    text += f"\nLATTICE_CONSTANT\n{BOHR_PER_ANGSTROM!r}\n\nLATTICE_VECTORS\n{_rows(structure.cell_angstrom)}"
    text += "\nATOMIC_POSITIONS\nCartesian_angstrom\n"
    at = 0
    for symbol, count in _species(structure):
        own = structure.positions_angstrom[at : at + count]
        at += count
        text += f"\n{symbol}\n0.0\n{count}\n{_rows(own)}"
    return text


def _unit_cell_text(structure: Structure) -> str:
    """The unit cell that stands in a new matrix file, as ABACUS writes it."""
    assert structure.cell_angstrom is not None
    species = _species(structure)
    fractional = structure.positions_angstrom @ np.linalg.inv(structure.cell_angstrom)
    text = f" user_defined_lattice\n 1.0\n{_rows(structure.cell_angstrom)}"
    text += f" {' '.join(symbol for symbol, _ in species)}\n {' '.join(str(count) for _, count in species)}\n Direct\n"
    return text + _rows(fractional)
