"""One label by CP2K: wrap the atoms, run the program, read H(R) and S(R), move the atoms back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pyscf.pbc.gto import pseudo

from model.formats.matrices import Matrices
from model.formats.rearrange import moved
from model.integrals.pyscf_molecule import load_basis
from model.orbitals.space import OrbitalSpace
from model.structure import SYMBOLS, Structure
from training.generate.crystals.cp2k_input import PROJECT, input_text
from training.generate.crystals.cp2k_output import abort_reason, read_blocks, read_output
from training.generate.crystals.label import CrystalLabel, LabelError
from training.generate.crystals.process import run_program
from training.generate.crystals.settings import Cp2kSettings
from training.generate.crystals.wrapping import wrapped

WRAPPED_FROM: Final = -0.5
"""CP2K takes fractional coordinates in [-1/2, 1/2)."""


def space_for(settings: Cp2kSettings, numbers: Sequence[int]) -> OrbitalSpace:
    """The orbitals as CP2K orders them, with the electrons of the pseudopotentials."""
    space = load_basis(settings.pyscf_basis, numbers)
    return replace(space, order="e3nn", valence=valence_of(settings, numbers))


def valence_of(settings: Cp2kSettings, numbers: Sequence[int]) -> dict[int, int]:
    """Electrons that each element's pseudopotential leaves, from PySCF's copy of the same tables."""
    name = settings.potential.lower()
    return {int(z): int(sum(pseudo.load(name, SYMBOLS[int(z)])[0])) for z in sorted(set(numbers))}


def label_with_cp2k(
    structure: Structure, settings: Cp2kSettings, k_points: Sequence[int], folder: Path
) -> CrystalLabel:
    """Run CP2K in a folder of its own.

    Args:
        structure: with a cell; as it will be stored.
        settings: level and limits.
        k_points: Gamma-centred mesh, three counts.
        folder: empty; CP2K's files stay there for the caller to remove.

    Raises:
        ConfigError: CP2K is not installed.
        LabelError: it failed, took too long, did not converge, or counts other electrons or orbitals than we do.
    """
    numbers = structure.numbers.tolist()
    space = space_for(settings, numbers)
    inside, cells = wrapped(structure, WRAPPED_FROM)
    occupied = space.count_electrons(numbers) // 2
    empty = max(10, min(occupied, space.count_orbitals(numbers) - occupied - 1))
    seconds = int(60 * settings.minutes)
    valence = dict(space.valence or {})
    text = input_text(inside, settings, k_points, empty, valence, seconds)
    (folder / "label.inp").write_text(text, encoding="ascii")
    command = [settings.command, "-i", "label.inp", "-o", "label.out"]
    run_program(command, folder, seconds, "CP2K", folder / "label.out", reason=abort_reason)
    result = read_output((folder / "label.out").read_text(encoding="utf-8", errors="replace"), "CP2K's output")
    if result.n_electrons != space.count_electrons(numbers):
        raise LabelError(
            f"CP2K counts {result.n_electrons} electrons, the pseudopotentials leave {space.count_electrons(numbers)}."
        )
    blocks: dict[str, Any] = {
        name: read_blocks(folder, PROJECT, result, kind, inside, space)
        for kind, name in (("KS", "hamiltonian"), ("S", "overlap"))
    }
    matrices = moved(
        Matrices(
            inside,
            **blocks,
            fermi_energy=result.fermi_hartree,
            n_electrons=float(result.n_electrons),
            program=f"CP2K {result.version}",
            k_points=(int(k_points[0]), int(k_points[1]), int(k_points[2])),
        ),
        -cells,
        structure.positions_angstrom,
    )
    return CrystalLabel(
        matrices=matrices,
        level=settings.level(k_points),
        cycles=result.cycles,
        energy_hartree=result.energy_hartree,
    )
