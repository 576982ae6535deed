"""What a user sees of a crystal's H: bands near the Fermi level, gap, density of states, density matrix, against the label's.

Both matrices are diagonalised in the label's overlap, on a Gamma-centred mesh and along a path. Each spectrum is aligned at
its own Fermi level, because energies of a crystal have no common zero.

    bands      e(k, n) - E_F, by rank, of the label's levels within 2 eV of its E_F, of an insulator within 2 eV of its gap's
               edges: root mean square and largest difference
    gap        lowest empty less highest full level on the mesh; 0 for a metal
    DOS        half the integral of |D - D'| over that of D, E_F - 10 eV to E_F + 5 eV, Gaussians of 0.1 eV
               (0: equal, 1: disjoint)
    density    half the trace norm of P - P' in orthonormal orbitals over the electrons: the share of electrons that is wrong
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import scipy.linalg
from ase.cell import Cell
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.blocks.matrices import BlochSum
from model.electronic.bands import PROJECTION_THRESHOLD, Bands, band_energies
from model.electronic.dos import density_of_states
from model.electronic.fermi import FermiLevel, fermi_level, k_mesh, occupations
from model.electronic.kinetic_damping import KineticDamping
from model.electronic.overlap import OverlapFactor
from model.electronic.solve import reduced_hamiltonian
from model.structure import Structure
from model.units import EV_PER_HARTREE

Array = NDArray[np.float64]

WINDOW_EV: Final = 2.0
DOS_RANGE_EV: Final = (-10.0, 5.0)
DOS_POINTS: Final = 601
DOS_WIDTH_EV: Final = 0.1
DRAWN_EV: Final = (-6.0, 4.0)
"""Levels that a report keeps, from E_F."""
REACH_ANGSTROM: Final = 20.0
"""Periods that a mesh resolves: as many points along a lattice vector as it fits into this."""
MESH_STEP: Final = 3
"""A mesh of more than one point has a multiple of this: K of hexagonal cells, where graphene's bands meet, lies on it."""
MAXIMUM_ORBITALS: Final = 3000
"""Larger cells are not diagonalised here."""


@dataclass(frozen=True)
class SpectralErrors:
    """Predicted against labelled spectrum; energies in meV.

    Attributes:
        bands_rms, bands_max: near the Fermi level; None where the label has no level there.
        gap: signed; None if a gap cannot be named.
        gap_label: of the label on the same mesh.
        fermi: signed difference of the two Fermi levels, both matrices with their common zero.
        dos: distance, 0 to 1.
        density: share of electrons in wrong places, 0 to 1.
        smallest_overlap: smallest eigenvalue of S(k): errors of H grow up to its inverse.
    """

    bands_rms: float | None
    bands_max: float | None
    gap: float | None
    gap_label: float | None
    fermi: float
    dos: float
    density: float
    smallest_overlap: float


@dataclass(frozen=True, eq=False)
class Spectra:
    """Errors, and what a picture is drawn of.

    Attributes:
        errors: figures.
        bands: {"x", "ticks", "names", "label", "predicted"}, eV from E_F, JSON-able.
        dos: {"energies", "label", "predicted"}, states per eV and atom.
    """

    errors: SpectralErrors
    bands: dict[str, Any]
    dos: dict[str, Any]


def compare_spectra(
    structure: Structure,
    label: BlockSet,
    predicted: BlockSet,
    overlap: BlockSet,
    n_electrons: float,
    n_points: int,
    damping: KineticDamping | None = None,
) -> Spectra:
    """Diagonalise both.

    Args:
        structure: the crystal.
        label, predicted: H(R), hartree, of one spin treatment and order.
        overlap: S(R).
        n_electrons: of a cell.
        n_points: of the path.
        damping: of the predicted H(k).

    Raises:
        NumericalError, ElectronCountError: blocks that cannot be diagonalised, or electrons that do not fit.
    """
    points, weights = mesh_of(structure, halved=label.spin != "spinor")
    both = ((label, None), (predicted, damping))
    mesh = [_on_mesh(blocks, overlap, points, own) for blocks, own in both]
    levels = [fermi_level(bands, weights, n_electrons) for bands, _ in mesh]
    path, axis = path_of(structure, n_points)
    along = [band_energies(blocks, overlap, path, damping=own).energies for blocks, own in both]
    aligned = [EV_PER_HARTREE * (energies - level.energy) for energies, level in zip(along, levels, strict=True)]
    both_mesh = [
        EV_PER_HARTREE * (bands.energies - level.energy) for (bands, _), level in zip(mesh, levels, strict=True)
    ]
    label_levels, predicted_levels = (np.concatenate(pair, axis=1) for pair in zip(aligned, both_mesh, strict=True))
    rms, worst = _near_fermi(label_levels, predicted_levels, levels[0])
    grid = np.linspace(*DOS_RANGE_EV, DOS_POINTS)
    each = mesh[0][0].electrons_each
    dos = [
        density_of_states(replace(bands, energies=energies), weights, grid, DOS_WIDTH_EV).values.sum(axis=0)
        / len(structure)
        for (bands, _), energies in zip(mesh, both_mesh, strict=True)
    ]
    distance = float(0.5 * np.abs(dos[0] - dos[1]).sum() / dos[0].sum())
    wrong = _misplaced(mesh, levels, weights, each) / n_electrons
    gaps = [None if level.gap is None else 1e3 * EV_PER_HARTREE * level.gap for level in levels]
    errors = SpectralErrors(
        bands_rms=rms,
        bands_max=worst,
        gap=None if gaps[0] is None or gaps[1] is None else gaps[1] - gaps[0],
        gap_label=gaps[0],
        fermi=1e3 * EV_PER_HARTREE * (levels[1].energy - levels[0].energy),
        dos=distance,
        density=wrong,
        smallest_overlap=float(mesh[0][0].smallest_overlap.min()),
    )
    return Spectra(
        errors,
        axis | {"label": _drawn(aligned[0]), "predicted": _drawn(aligned[1])},
        {"energies": _rounded(grid), "label": _rounded(dos[0]), "predicted": _rounded(dos[1])},
    )


def electrons_of(structure: Structure, label: BlockSet, overlap: BlockSet, fermi_hartree: float | None) -> float | None:
    """Electrons of a cell: by the space's valences, else the label's own below its Fermi level; None if neither is known."""
    space = label.space
    if space.valence is not None:
        return float(space.count_electrons(structure.numbers, structure.charge))
    if fermi_hartree is None:
        return None
    points, weights = mesh_of(structure, halved=label.spin != "spinor")
    bands = band_energies(label, overlap, points)
    filled = occupations(bands.energies, fermi_hartree, bands.electrons_each)
    return float(round(float(filled.sum(axis=(0, 2)) @ weights)))


def mesh_of(structure: Structure, *, halved: bool) -> tuple[Array, Array]:
    """Gamma-centred mesh of even density: k-points and weights."""
    lengths = np.linalg.norm(structure.cell_angstrom, axis=1) if structure.cell_angstrom is not None else np.ones(3)
    counts = [_points(length) if periodic else 1 for length, periodic in zip(lengths, structure.pbc, strict=True)]
    return k_mesh(counts, halved=halved)


def _points(length: float) -> int:
    """Points of a mesh along a lattice vector, Å."""
    count = int(np.ceil(REACH_ANGSTROM / length))
    return count if count == 1 else MESH_STEP * -(-count // MESH_STEP)


def path_of(structure: Structure, n_points: int) -> tuple[Array, dict[str, Any]]:
    """Path between the special points of the cell as it stands, and its axis: {"x", "ticks", "names"}."""
    path = Cell(structure.cell_angstrom).bandpath(npoints=n_points, pbc=structure.pbc)
    x, ticks, names = path.get_linear_kpoint_axis()
    return np.asarray(path.kpts), {
        "x": _rounded(np.asarray(x)),
        "ticks": _rounded(np.asarray(ticks)),
        "names": [str(name) for name in names],
    }


def _on_mesh(
    hamiltonian: BlockSet, overlap: BlockSet, points: Array, damping: KineticDamping | None
) -> tuple[Bands, list[list[tuple[Array, Any]]]]:
    """Bands, and energies with vectors in orthonormal functions of S(k), by k-point and spin."""
    h_at, s_at = BlochSum(hamiltonian), BlochSum(overlap)
    n_bands = hamiltonian.n_orbitals * (2 if hamiltonian.spin == "spinor" else 1)
    energies = np.full((2 if hamiltonian.spin == "unrestricted" else 1, len(points), n_bands), np.nan)
    smallest, projected = np.empty(len(points)), np.empty(len(points), dtype=np.int64)
    solved: list[list[tuple[Array, Any]]] = []
    for index, point in enumerate(points):
        factor = OverlapFactor.of(s_at(point))
        smallest[index], projected[index] = factor.smallest, factor.n_dependent(PROJECTION_THRESHOLD)
        matrix = h_at(point)
        own = []
        for spin, part in enumerate(matrix if hamiltonian.spin == "unrestricted" else matrix[None]):
            whole = 0.5 * (part + part.conj().T)
            whole = whole if damping is None else damping(whole, factor, point)
            reduced, _ = reduced_hamiltonian(whole, factor, PROJECTION_THRESHOLD)
            values, vectors = scipy.linalg.eigh(reduced, driver="evd")
            energies[spin, index, : len(values)] = values
            own.append((values, vectors))
        solved.append(own)
    return Bands(points, energies, smallest, projected, hamiltonian.spin), solved


def _near_fermi(label: Array, predicted: Array, level: FermiLevel) -> tuple[float | None, float | None]:
    """Root mean square and largest error of levels near E_F or the gap, meV; levels (spin, k, band), eV from E_F."""
    half_gap = 0.5 * EV_PER_HARTREE * (level.gap or 0.0)  # an insulator's level is in the middle
    chosen = np.abs(np.nan_to_num(label, nan=np.inf)) <= WINDOW_EV + half_gap
    if not chosen.any():
        return None, None
    error = 1e3 * (predicted[chosen] - label[chosen])
    return float(np.sqrt(np.mean(error**2))), float(np.abs(error).max())


def _misplaced(
    mesh: Sequence[tuple[Bands, list[list[tuple[Array, Any]]]]], levels: Sequence[FermiLevel], weights: Array, each: int
) -> float:
    """Electrons whose place is wrong: half the trace norm of the difference of the density matrices."""
    total = 0.0
    for weight, label, predicted in zip(weights, mesh[0][1], mesh[1][1], strict=True):
        for one, other in zip(label, predicted, strict=True):
            difference = _filled(*other, levels[1].energy, each) - _filled(*one, levels[0].energy, each)
            total += 0.5 * float(weight) * float(np.abs(scipy.linalg.eigvalsh(difference)).sum())
    return total


def _filled(energies: Array, vectors: Any, level: float, each: int) -> Any:
    return (vectors * occupations(energies, level, each)) @ vectors.conj().T


def _drawn(energies: Array) -> list[list[list[float]]]:
    """Bands that come near E_F, (spin, band, k), eV."""
    low, high = DRAWN_EV
    bands = np.moveaxis(energies, 1, 2)
    seen = ((bands > low) & (bands < high)).any(axis=2)
    return [_rounded(spin[chosen]) for spin, chosen in zip(bands, np.asarray(seen), strict=True)]


def _rounded(values: Array) -> list[Any]:
    found: list[Any] = np.round(np.nan_to_num(values, nan=1e3), 4).tolist()
    return found
