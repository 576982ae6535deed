"""Between sisl's sparse matrices and ours: what :mod:`model.formats.siesta` reads and writes with.

sisl keeps a spinor's parts as real components: uu, dd, Re ud, Im ud, and with spin-orbit coupling Im uu, Im dd, Re du, Im du.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet, Values
from model.errors import DamagedFileError, FormatError, UnsupportedContentError
from model.formats.entries import Entries, entries_of_blocks
from model.formats.rearrange import SPINOR_TRANSPOSE
from model.orbitals.space import OrbitalSpace
from model.structure import Structure


def load_sisl() -> ModuleType:
    """The package.

    Raises:
        UnsupportedContentError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import sisl
    except ImportError as error:
        raise UnsupportedContentError(
            "SIESTA's files are read and written by the package sisl, which is not installed.",
            hint="pip install -e '.[siesta]' -c constraints.txt",
        ) from error
    module: ModuleType = sisl
    return module


@contextmanager
def errors_named(stem: Path) -> Iterator[None]:
    """sisl's errors as ours, its warnings unheard."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except FormatError:
        raise
    except Exception as error:  # sisl and its Fortran raise whatever they run into
        raise DamagedFileError(
            f"{stem}: sisl cannot handle it ({type(error).__name__}: {str(error)[:200]})."
        ) from error


def components_of(
    matrix: Any, n_orbitals: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], Values]:
    """Rows, columns, cells of the entries, and all components, (component, entry); the overlap is the last."""
    size = int(matrix.shape[2])
    parts = [matrix.tocsr(component).tocoo() for component in range(size)]
    rows, columns = parts[0].row.astype(np.int64), parts[0].col.astype(np.int64)
    values = np.stack([part.data for part in parts]).astype(np.float64)
    return rows, columns % n_orbitals, columns // n_orbitals, values


def spin_parts(components: Values) -> Values:
    """Spin parts of sisl's real components: uu, dd, Re ud, Im ud, and with spin-orbit Im uu, Im dd, Re du, Im du."""
    if len(components) <= 2:
        return components
    up_down = components[2] + 1j * components[3]
    if len(components) == 4:
        return np.stack([components[0] + 0j, up_down, up_down.conj(), components[1] + 0j])
    up_up, down_down = components[0] + 1j * components[4], components[1] + 1j * components[5]
    return np.stack([up_up, up_down, components[6] + 1j * components[7], down_down])


def real_components(parts: Values) -> Values:
    """Inverse of :func:`spin_parts`, with spin-orbit where there are four parts."""
    if len(parts) <= 2:
        return parts
    up_up, up_down, down_up, down_down = parts
    return np.stack(
        [up_up.real, down_down.real, up_down.real, up_down.imag, up_up.imag, down_down.imag, down_up.real, down_up.imag]
    )


def density_parts(parts: Values) -> Values:
    """Spin parts of a density matrix between sisl's convention and ours, either way.

    As sisl 0.20 reads it, a spinor .DM has row and column orbitals changed against H: D(i, j, R) stands where D(j, i, -R)
    belongs, which for a hermitian matrix is the conjugate with the two spins changed. Found by rebuilding the .DM of a run
    with spin-orbit coupling from its H and S, and kept by a test.
    """
    return parts[list(SPINOR_TRANSPOSE)].conj() if len(parts) == 4 else parts


def sparse_matrix(
    sisl: ModuleType,
    kind: Any,
    structure: Structure,
    space: OrbitalSpace,
    blocks: BlockSet,
    overlap: BlockSet | None,
) -> Any:
    """A sparse matrix of sisl's, of class ``kind``, with the overlap where there is one; energies in eV."""
    reach = np.abs(blocks.pairs.shift).max(axis=0)
    if overlap is not None:
        reach = np.maximum(reach, np.abs(overlap.pairs.shift).max(axis=0))
    lattice = sisl.Lattice(structure.cell_angstrom, nsc=(2 * reach + 1).tolist())
    atoms = [sisl.Atom(int(z), orbitals=_orbitals(sisl, space.shells_of(z))) for z in structure.numbers.tolist()]
    geometry = sisl.Geometry(structure.positions_angstrom, atoms=atoms, lattice=lattice)
    shape = (int(geometry.no), int(geometry.no_s))

    def sparse(values: Values, entries: Entries) -> Any:
        super_cell = np.array([geometry.lattice.sc_index(shift) for shift in entries.cells.tolist()], dtype=np.int64)
        columns = entries.columns + shape[0] * super_cell[entries.cell]
        return scipy.sparse.coo_array((values, (entries.rows, columns)), shape=shape).tocsr()

    entries = entries_of_blocks(blocks)
    parts = [sparse(component, entries) for component in real_components(entries.values)]
    options: dict[str, Any] = {"spin": {1: "unpolarized", 2: "polarized", 8: "spin-orbit"}[len(parts)]}
    if overlap is not None:
        own = entries_of_blocks(overlap)
        options["S"] = sparse(own.values[0], own)
    return kind.fromsp(geometry, parts if len(parts) > 1 else parts[0], **options)


def _orbitals(sisl: ModuleType, shells: tuple[int, ...]) -> list[Any]:
    """One orbital of sisl's per m; the k-th shell of an l is its k-th zeta."""
    made = []
    for index, ang in enumerate(shells):
        zeta = shells[:index].count(ang) + 1
        made += [sisl.AtomicOrbital(n=ang + 1, l=ang, m=m, zeta=zeta, R=-1.0) for m in range(-ang, ang + 1)]
    return made
