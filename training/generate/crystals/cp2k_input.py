"""CP2K's input for one label: a single point whose H(R) and S(R) are printed in real space.

    https://manual.cp2k.org  FORCE_EVAL/DFT/PRINT/KS_CSR_WRITE, S_CSR_WRITE, KPOINTS SCHEME GENERAL

The k-points are our own Gamma-centred mesh with -k left out, so that "5 x 5 x 1" means the same for every program here
(CP2K's Monkhorst-Pack meshes of even numbers miss Gamma).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.electronic.fermi import k_mesh
from model.structure import SYMBOLS, Structure
from training.generate.crystals.settings import Cp2kSettings

PROJECT: Final = "label"
"""First part of the names of CP2K's files."""
PRINT_THRESHOLD_HARTREE: Final = 1e-10
"""Smaller entries are not printed: half of a large cell's."""

TEMPLATE: Final = """\
&GLOBAL
 PROJECT {project}
 RUN_TYPE ENERGY
 PRINT_LEVEL MEDIUM
 WALLTIME {seconds}
&END
&FORCE_EVAL
 METHOD QUICKSTEP
 &DFT
  BASIS_SET_FILE_NAME {basis_file}
  POTENTIAL_FILE_NAME {potential_file}
  &MGRID
   CUTOFF {cutoff}
   REL_CUTOFF {relative_cutoff}
  &END
  &QS
   EPS_DEFAULT {eps_default}
  &END
  &KPOINTS
   SCHEME GENERAL
   SYMMETRY F
   FULL_GRID F
   UNITS B_VECTOR
{k_points}
  &END
  &SCF
   SCF_GUESS ATOMIC
   EPS_SCF {eps_scf}
   MAX_SCF {max_scf}
   ADDED_MOS {added}
   &DIAGONALIZATION
    ALGORITHM STANDARD
   &END
   &SMEAR
    METHOD FERMI_DIRAC
    ELECTRONIC_TEMPERATURE [K] {kelvin}
   &END
   &MIXING
    METHOD BROYDEN_MIXING
    ALPHA 0.4
    NBROYDEN 8
   &END
  &END
  &XC
   &XC_FUNCTIONAL {functional}
   &END
  &END
  &PRINT
   &KS_CSR_WRITE
    REAL_SPACE T
    BINARY F
    THRESHOLD {threshold}
   &END
   &S_CSR_WRITE
    REAL_SPACE T
    BINARY F
    THRESHOLD {threshold}
   &END
  &END
 &END
 &SUBSYS
  &CELL
{cell}
   PERIODIC XYZ
  &END
  &COORD
{atoms}
  &END
{kinds}
 &END
&END
"""


def input_text(
    structure: Structure,
    settings: Cp2kSettings,
    k_points: Sequence[int],
    empty_bands: int,
    valence: dict[int, int],
    seconds: int,
) -> str:
    """The input file.

    Args:
        structure: atoms inside the cell as CP2K wraps them (``wrapping.wrapped``).
        settings: level and thresholds.
        k_points: counts along the reciprocal lattice vectors, Gamma-centred.
        empty_bands: above the occupied ones.
        valence: atomic number -> electrons of its pseudopotential.
        seconds: after which CP2K gives up by itself.
    """
    assert structure.cell_angstrom is not None
    points, weights = k_mesh(k_points, halved=True)
    lattice = zip("ABC", structure.cell_angstrom, strict=True)
    atoms = zip(structure.symbols, structure.positions_angstrom, strict=True)
    return TEMPLATE.format(
        project=PROJECT,
        seconds=seconds,
        basis_file=settings.basis_file,
        potential_file=settings.potential_file,
        cutoff=settings.cutoff_rydberg,
        relative_cutoff=settings.relative_cutoff_rydberg,
        eps_default=settings.eps_default,
        k_points="\n".join(f"   KPOINT {_row(k)} {w:.15f}" for k, w in zip(points, weights, strict=True)),
        eps_scf=settings.eps_scf,
        max_scf=settings.maximum_cycles,
        added=empty_bands,
        kelvin=settings.smearing_kelvin,
        functional=settings.functional,
        threshold=PRINT_THRESHOLD_HARTREE,
        cell="\n".join(f"   {axis} {_row(vector)}" for axis, vector in lattice),
        atoms="\n".join(f"   {symbol} {_row(position)}" for symbol, position in atoms),
        kinds="\n".join(_kind(int(z), settings, valence) for z in sorted(set(structure.numbers.tolist()))),
    )


def _kind(number: int, settings: Cp2kSettings, valence: dict[int, int]) -> str:
    potential = f"{settings.potential}-q{valence[number]}"
    return f"  &KIND {SYMBOLS[number]}\n   BASIS_SET {settings.basis}\n   POTENTIAL {potential}\n  &END"


def _row(vector: NDArray[np.float64]) -> str:
    return " ".join(f"{value:.14f}" for value in vector)
