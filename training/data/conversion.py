"""``python -m training convert``: matrices of one format as another; nothing is recomputed but what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from model.electronic.density import density_matrix
from model.electronic.fermi import SMEARING_HARTREE, k_mesh
from model.errors import UnsupportedContentError
from model.formats.matrices import Matrices
from model.formats.registry import FORMATS, entries, write


@dataclass(frozen=True)
class DensityRequest:
    """A density matrix to be made from H(R) and S(R).

    Attributes:
        mesh: k-points along each reciprocal lattice vector.
        n_electrons: of a cell; None for what the source says, or else its Fermi level.
        smearing_hartree: kT of the occupations.
    """

    mesh: tuple[int, int, int]
    n_electrons: float | None = None
    smearing_hartree: float = SMEARING_HARTREE


def convert(source: Path, target: Path, format: str, density: DensityRequest | None = None) -> list[str]:
    """Convert one structure, or each of a set.

    Args:
        source: file or folder that ``model.formats`` reads.
        target: new folder; of a set, one folder in it for each structure.
        format: a key of ``model.formats.registry.FORMATS`` that can be written.
        density: makes a density matrix where the source has none.

    Returns:
        one line for each structure: what was written, and what was noted or left out.

    Raises:
        FormatError: one of its leaves. What was written before stays.
    """
    codec = FORMATS.get(format)
    if codec is None or codec.write is None:
        allowed = [name for name, known in FORMATS.items() if known.write is not None]
        raise UnsupportedContentError(f"Format {format[:40]!r} cannot be written.", allowed=allowed)
    listed = entries(source)
    lines = []
    for entry in listed:
        matrices = entry.read(codec.unit)
        if density is not None and matrices.density is None:
            matrices = with_density(matrices, density)
        folder = target if len(listed) == 1 and entry.group is None and entry.path == source else target / entry.name
        write(matrices, folder, format)
        written = ", ".join(name for name in matrices.stored if not (format == "abacus" and name == "density"))
        lines.append(f"{folder}: {written} of {len(matrices.structure)} atoms{_remarks(matrices, format)}")
    return lines


def with_density(matrices: Matrices, request: DensityRequest) -> Matrices:
    """The same with the density matrix of its H(R) and S(R).

    Raises:
        NoHamiltonianError, UnsupportedContentError: no H, no S, or nothing that says how many electrons there are.
    """
    hamiltonian, overlap = matrices.require_hamiltonian(), matrices.overlap
    if overlap is None:
        raise UnsupportedContentError("A density matrix needs the overlap, and the source has none.")
    electrons = request.n_electrons if request.n_electrons is not None else matrices.n_electrons
    level = matrices.fermi_energy_hartree if electrons is None else None
    if electrons is None and level is None:
        raise UnsupportedContentError(
            "The source states neither electrons nor Fermi level.", hint="Give the number of electrons: --electrons N."
        )
    points, weights = k_mesh(request.mesh, halved=matrices.spin == "restricted")
    made = density_matrix(
        hamiltonian.with_values(hamiltonian.values / matrices.unit.per_hartree),
        overlap,
        points,
        weights,
        n_electrons=electrons,
        fermi_energy_hartree=level,
        smearing_hartree=request.smearing_hartree,
    )
    return replace(
        matrices,
        density=made.blocks,
        n_electrons=made.n_electrons,
        fermi_energy=made.fermi_energy_hartree * matrices.unit.per_hartree,
    )


def _remarks(matrices: Matrices, format: str) -> str:
    """What the target has no place for, and what the reader noted."""
    lost = []
    if format == "abacus" and matrices.density is not None:
        lost.append("the density matrix is left out")
    if format == "siesta" and matrices.fermi_energy is not None and matrices.hamiltonian is not None:
        lost.append("H is relative to the Fermi level")
    if format == "abacus" and matrices.fermi_energy is not None:
        lost.append("the Fermi level is left out")
    remarks: Sequence[str] = (*lost, *matrices.notes)
    return f" ({'; '.join(remarks)})" if remarks else ""
