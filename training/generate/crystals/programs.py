"""Which program makes the labels of a recipe: one function for each kind of settings."""

from __future__ import annotations

from pathlib import Path

from model.structure import Structure
from training.generate.crystals.cp2k import label_with_cp2k
from training.generate.crystals.gpaw import label_with_gpaw
from training.generate.crystals.krks import label_with_pyscf
from training.generate.crystals.label import CrystalLabel
from training.generate.crystals.process import find_program
from training.generate.crystals.settings import AnySettings, Cp2kSettings, GpawSettings


def require_program(settings: AnySettings) -> None:
    """Raise unless the program of a recipe is installed.

    Raises:
        ConfigError: it is not; says how to install it.
    """
    if isinstance(settings, Cp2kSettings):
        find_program(settings.command, "CP2K")
    elif isinstance(settings, GpawSettings):
        find_program(settings.command, "GPAW")


def make_label(
    structure: Structure, settings: AnySettings, k_points: tuple[int, int, int], folder: Path
) -> CrystalLabel:
    """Label one structure.

    Args:
        structure: with a cell.
        settings: program and level.
        k_points: Gamma-centred mesh.
        folder: an empty one for the program's files.

    Raises:
        ConfigError: the program is not installed.
        LabelError, ModelError: no label; says why.
    """
    if isinstance(settings, Cp2kSettings):
        return label_with_cp2k(structure, settings, k_points, folder)
    if isinstance(settings, GpawSettings):
        return label_with_gpaw(structure, settings, k_points, folder)
    return label_with_pyscf(structure, settings, k_points)
