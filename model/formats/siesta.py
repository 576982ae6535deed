"""SIESTA's .HSX, .TSHS and .DM through sisl, an optional package (``pip install -e '.[siesta]'``; MPL-2.0).

Orbitals stand by atom, shell and m = -l..l, with the sign (-1)^m. sisl gives eV (CODATA) and takes the Fermi level from H:
what is read here is H + E_F S again, in the file's own zero. A density matrix is of both spins together unless the run had
spin. .TSHS names neither elements nor shells; NAME.ORB_INDX beside it does.

Two traps: Intel-built SIESTA writes a logical as -1, on which sisl 0.20 raises ``KeyError: -1`` (read here); .HSX of SIESTA 4
has no atoms, so that .TSHS is read instead.

sisl reads binary Fortran files; damaged ones end in its errors, which are turned into ``DamagedFileError`` here.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet, Spin, Values
from model.errors import (
    MissingFileError,
    OrbitalsDoNotFitError,
    UnsupportedContentError,
)
from model.formats.entries import Entries, blocks_of_entries
from model.formats.folders import fresh_folder
from model.formats.matrices import Matrices
from model.formats.rearrange import shells_per_element, structure_of
from model.formats.sisl_bridge import components_of, density_parts, errors_named, load_sisl, sparse_matrix, spin_parts
from model.formats.units import CODATA_EV, HARTREE, EnergyUnit
from model.orbitals.space import OrbitalSpace
from model.structure import MAXIMUM_ATOMIC_NUMBER, Structure

ENDINGS: Final = (".HSX", ".TSHS", ".DM")
SPIN_COMPONENTS: Final[dict[int, Spin]] = {1: "restricted", 2: "unrestricted", 4: "spinor", 8: "spinor"}
"""By the number of real components: none, collinear, non-collinear, with spin-orbit coupling."""
WHOLE_ELECTRONS_TOLERANCE: Final = 1e-3
"""An electron count this close to a whole number is that number."""


def is_siesta(path: Path) -> bool:
    """Whether a file, or a folder with one, is of SIESTA."""
    return path.suffix in ENDINGS if path.is_file() else bool(_labels(path))


def read_siesta(path: Path, unit: EnergyUnit = HARTREE) -> Matrices:
    """Read the matrices of one run.

    Args:
        path: folder of one system label, or one of its files.
        unit: of the result.

    Raises:
        FormatError: one of its leaves, with the file and the reason.
    """
    sisl = load_sisl()
    stem = _stem(path)
    with errors_named(stem):
        matrix, fermi, source = _hamiltonian(sisl, stem)
    geometry = matrix.geometry
    no = int(geometry.no)
    cells = np.asarray(geometry.lattice.sc_off, dtype=np.int64)
    space, numbers = _space(geometry, source)
    spin = SPIN_COMPONENTS[int(matrix.spin.size(matrix.dtype))]
    rows, columns, cell, components = components_of(matrix, no)
    overlap_values = components[-1]
    structure = structure_of(numbers, np.array(geometry.xyz), np.array(geometry.cell), cells[np.unique(cell)])
    parts = spin_parts(components[:-1]) + fermi * _unit_matrix(spin, overlap_values)
    hamiltonian = blocks_of_entries(space, structure, Entries(rows, columns, cell, cells, parts), spin, source)
    kept = np.flatnonzero(overlap_values)
    overlap_entries = Entries(rows[kept], columns[kept], cell[kept], cells, overlap_values[kept][None])
    overlap = blocks_of_entries(space, structure, overlap_entries, "restricted", source)
    density = _density(sisl, stem, geometry, space, structure)
    return Matrices(
        structure,
        hamiltonian,
        overlap,
        density,
        fermi,
        None if density is None else _electrons(density, overlap),
        "SIESTA",
        CODATA_EV,
    ).in_unit(unit)


def write_siesta(matrices: Matrices, folder: Path, label: str = "siesta") -> None:
    """Write LABEL.HSX (Hamiltonian and overlap) and LABEL.DM (density matrix), of what is there, into a new folder.

    A .HSX of sisl's holds no Fermi level: where it is known, H is written relative to it. SIESTA starts from the .DM if its
    basis has the same orbitals in the same sequence; LABEL.fdf has the lines that say so.

    Raises:
        UnsupportedContentError: no cell, H without S, or a folder that is there already.
    """
    sisl = load_sisl()
    matrices = matrices.in_order("siesta").in_unit(CODATA_EV)
    structure = matrices.structure
    if structure.cell_angstrom is None:
        raise UnsupportedContentError("SIESTA's files need a cell, and the structure has none.", hint="Give it a box.")
    if matrices.hamiltonian is not None and matrices.overlap is None:
        raise UnsupportedContentError("A .HSX holds H and S; there is no S.", hint="Add the overlap to the source.")
    if matrices.hamiltonian is None and matrices.density is None:
        raise UnsupportedContentError("SIESTA's files here hold H with S, or a density matrix; there is neither.")
    fresh_folder(folder)
    with errors_named(folder / label):
        if matrices.hamiltonian is not None and matrices.overlap is not None:
            shifted = _relative_to_fermi(matrices.hamiltonian, matrices.overlap, matrices.fermi_energy)
            made = sparse_matrix(sisl, sisl.Hamiltonian, structure, matrices.space, shifted, matrices.overlap)
            sisl.get_sile(str(folder / f"{label}.HSX"), "w").write_hamiltonian(made)
        if matrices.density is not None:
            turned = matrices.density.with_values(density_parts(matrices.density.values))
            made = sparse_matrix(sisl, sisl.DensityMatrix, structure, matrices.space, turned, matrices.overlap)
            sisl.get_sile(str(folder / f"{label}.DM"), "w").write_density_matrix(made)
            (folder / f"{label}.fdf").write_text(f"SystemLabel {label}\nDM.UseSaveDM true\n")


def write_sisl(matrices: Matrices, path: Path) -> None:
    """Write H (eV, relative to the Fermi level where it is known) and S as sisl's netCDF, in any basis; needs netCDF4.

    Raises:
        UnsupportedContentError: no cell, no H or no S, or a package that is not installed.
    """
    sisl = load_sisl()
    matrices = matrices.in_order("siesta").in_unit(CODATA_EV)
    structure = matrices.structure
    if structure.cell_angstrom is None or matrices.hamiltonian is None or matrices.overlap is None:
        raise UnsupportedContentError("A file of sisl's holds a cell with H and S; one of them is not there.")
    shifted = _relative_to_fermi(matrices.hamiltonian, matrices.overlap, matrices.fermi_energy)
    with errors_named(path):
        made = sparse_matrix(sisl, sisl.Hamiltonian, structure, matrices.space, shifted, matrices.overlap)
        with sisl.get_sile(str(path), "w") as file:
            file.write_hamiltonian(made)


def _labels(folder: Path) -> list[str]:
    """System labels that have a matrix file in a folder."""
    if not folder.is_dir():
        return []
    return sorted({path.stem for path in folder.iterdir() if path.suffix in ENDINGS})


def _stem(path: Path) -> Path:
    """Folder and label, without an ending."""
    if path.is_file():
        return path.with_suffix("")
    labels = _labels(path)
    if len(labels) != 1:
        raise MissingFileError(
            f"{path} has matrix files of {len(labels)} system labels; exactly one is read.",
            hint=f"Name one of the files ({', '.join(ENDINGS)}).",
        )
    return path / labels[0]


def _hamiltonian(sisl: ModuleType, stem: Path) -> tuple[Any, float, str]:
    """H relative to the Fermi level, the Fermi level in eV, and the file."""
    from sisl.io.siesta import hsxSileSiesta

    class Hsx(hsxSileSiesta):  # type: ignore[misc]
        @property
        def _stored_dtype(self) -> Any:
            """Precision of the file; any logical but 0 is true."""
            try:
                return super()._stored_dtype
            except KeyError:
                return np.float64

    hsx, tshs = Path(f"{stem}.HSX"), Path(f"{stem}.TSHS")
    if hsx.is_file():
        file = Hsx(str(hsx))
        if file.version >= 1:
            return file.read_hamiltonian(), float(file.read_fermi_level()), str(hsx)
        if not tshs.is_file():
            raise UnsupportedContentError(
                f"{hsx} is of SIESTA 4 or older and names no atoms.",
                hint=f"Put {tshs.name} and {stem.name}.ORB_INDX there.",
            )
    if not tshs.is_file():
        raise MissingFileError(f"{stem} has neither .HSX nor .TSHS.", hint="SIESTA writes one with SaveHS true.")
    index = Path(f"{stem}.ORB_INDX")
    if not index.is_file():
        raise MissingFileError(f"{tshs} names no elements and shells, and {index.name} is not there.")
    file = sisl.get_sile(str(tshs))
    bare = file.read_geometry()
    geometry = sisl.Geometry(bare.xyz, atoms=sisl.get_sile(str(index)).read_basis(), lattice=bare.lattice)
    return file.read_hamiltonian(geometry=geometry), float(file.read_fermi_level()), str(tshs)


def _space(geometry: Any, source: str) -> tuple[OrbitalSpace, NDArray[np.int64]]:
    numbers = np.asarray(geometry.atoms.Z, dtype=np.int64)
    if numbers.min() < 1 or numbers.max() > MAXIMUM_ATOMIC_NUMBER:
        raise UnsupportedContentError(f"{source}: a species is no element (ghost atoms are not supported).")
    shells = []
    for atom in range(len(numbers)):
        own = [(getattr(orbital, "l", None), getattr(orbital, "m", None)) for orbital in geometry.atoms[atom].orbitals]
        found, at = [], 0
        while at < len(own):
            ang = own[at][0]
            if ang is None or own[at : at + 2 * ang + 1] != [(ang, m) for m in range(-ang, ang + 1)]:
                raise OrbitalsDoNotFitError(f"{source}: the orbitals of atom {atom} are not whole shells, m = -l..l.")
            found.append(int(ang))
            at += 2 * ang + 1
        shells.append(found)
    return OrbitalSpace("SIESTA's", shells_per_element(numbers.tolist(), shells), order="siesta"), numbers


def _unit_matrix(spin: Spin, values: Values) -> Values:
    """An overlap in all spin parts, (spin part, entry)."""
    zero = np.zeros_like(values)
    return np.stack(
        {"restricted": [values], "unrestricted": [values] * 2, "spinor": [values, zero, zero, values]}[spin]
    )


def _relative_to_fermi(hamiltonian: BlockSet, overlap: BlockSet, fermi: float | None) -> BlockSet:
    if not fermi:
        return hamiltonian
    same = overlap.on_pairs(hamiltonian.pairs).values[0]
    return hamiltonian.with_values(hamiltonian.values - fermi * _unit_matrix(hamiltonian.spin, same))


def _density(sisl: ModuleType, stem: Path, geometry: Any, space: OrbitalSpace, structure: Structure) -> BlockSet | None:
    path = Path(f"{stem}.DM")
    if not path.is_file():
        return None
    with errors_named(path):
        matrix = sisl.get_sile(str(path)).read_density_matrix(geometry=geometry.copy())
    spin = SPIN_COMPONENTS[int(matrix.spin.size(matrix.dtype))]
    rows, columns, cell, components = components_of(matrix, int(geometry.no))
    cells = np.asarray(matrix.geometry.lattice.sc_off, dtype=np.int64)
    entries = Entries(rows, columns, cell, cells, density_parts(spin_parts(components[:-1])))
    return blocks_of_entries(space, structure, entries, spin, str(path))


def _electrons(density: BlockSet, overlap: BlockSet) -> float:
    """Trace of D S, over both spins."""
    same = overlap.on_pairs(density.pairs).values[0]
    diagonal = {"restricted": [0], "unrestricted": [0, 1], "spinor": [0, 3]}[density.spin]
    found = float(sum((density.values[part].real * same).sum() for part in diagonal))
    return float(round(found)) if abs(found - round(found)) < WHOLE_ELECTRONS_TOLERANCE else found
