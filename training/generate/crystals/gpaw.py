"""One label by GPAW: run our script with the Python that has GPAW, compare eigenvalues, fold the matrices back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from model.blocks.block_set import Spin
from model.formats.matrices import Matrices
from model.formats.rearrange import ascending_shells, moved, shells_per_element
from model.orbitals.space import OrbitalSpace
from model.structure import Structure
from model.units import EV_PER_HARTREE
from training.generate.crystals.folding import fold_back
from training.generate.crystals.label import CrystalLabel, LabelError
from training.generate.crystals.process import run_program
from training.generate.crystals.settings import GpawSettings
from training.generate.crystals.wrapping import centred, wrapped

SCRIPT: Final = Path(__file__).parent / "external" / "gpaw_lcao.py"
EIGENVALUE_TOLERANCE_HARTREE: Final = 1e-6
"""Between GPAW's eigenvalues and those of its matrices as we read them; they agree to 1e-12 where all is well."""


def label_with_gpaw(
    structure: Structure, settings: GpawSettings, k_points: Sequence[int], folder: Path
) -> CrystalLabel:
    """Run GPAW in a folder of its own.

    Args:
        structure: with a cell; as it will be stored. Along directions that are not periodic the density ends at the cell.
        settings: level and limits.
        k_points: Gamma-centred mesh, three counts; also the supercell that H(R) is folded back to.
        folder: empty; files stay there for the caller to remove.

    Raises:
        ConfigError: there is no such Python.
        LabelError: GPAW is missing or failed, took too long, did not converge, or its matrices do not have its eigenvalues.
    """
    inside, cells = wrapped(centred(structure), 0.0)
    assert inside.cell_angstrom is not None
    job = {
        "numbers": inside.numbers.tolist(),
        "positions": inside.positions_angstrom.tolist(),
        "cell": inside.cell_angstrom.tolist(),
        "pbc": list(inside.pbc),
        "k_points": [int(count) for count in k_points],
        "smearing_ev": settings.smearing_hartree * EV_PER_HARTREE,
        **settings.model_dump(
            include={"basis", "functional", "grid_angstrom", "convergence", "maximum_cycles", "spin_orbit"}
        ),
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    command = [settings.command, str(SCRIPT), "job.json", "result.npz"]
    run_program(command, folder, int(60 * settings.minutes), "GPAW", folder / "messages.txt", reason=failure_reason)
    with np.load(folder / "result.npz", allow_pickle=False) as found:
        result = {name: found[name] for name in found.files}
    return label_of(structure, inside, cells, result, settings, k_points)


def label_of(
    structure: Structure,
    inside: Structure,
    cells: NDArray[np.int64],
    result: dict[str, NDArray[Any]],
    settings: GpawSettings,
    k_points: Sequence[int],
) -> CrystalLabel:
    """A label from what the script wrote.

    Raises:
        LabelError: the matrices do not have GPAW's eigenvalues.
    """
    spin: Spin = "spinor" if settings.spin_orbit else "restricted"
    _compare_eigenvalues(result)
    shells = shells_per_element(inside.numbers.tolist(), json.loads(str(result["shells"])))
    space = OrbitalSpace(settings.basis, shells, order="gpaw")
    hamiltonian, overlap = fold_back(
        inside, space, result["k_points"], [result["hamiltonian"], result["overlap"]], k_points, spin
    )
    matrices = Matrices(
        inside,
        hamiltonian,
        overlap,
        fermi_energy=float(result["fermi"]),
        n_electrons=float(result["n_electrons"]),
        program=f"GPAW {result['version']}",
        k_points=(int(k_points[0]), int(k_points[1]), int(k_points[2])),
        is_folded=True,
    )
    return CrystalLabel(
        matrices=ascending_shells(moved(matrices, -cells, structure.positions_angstrom)),
        level=settings.level(k_points),
        cycles=int(result["cycles"]),
        energy_hartree=float(result["energy"]),
    )


def _compare_eigenvalues(result: dict[str, NDArray[Any]]) -> None:
    h, s = result["hamiltonian"], result["overlap"][0]
    for k in range(len(s)):
        if len(h) == 1:
            matrix, metric = h[0, k], s[k]
        else:
            matrix, metric = np.block([[h[0, k], h[1, k]], [h[2, k], h[3, k]]]), np.kron(np.eye(2), s[k])
        own = scipy.linalg.eigh(matrix, metric, eigvals_only=True)
        worst = float(np.abs(own - result["eigenvalues"][k]).max())
        if not worst < EIGENVALUE_TOLERANCE_HARTREE:
            raise LabelError(
                f"GPAW's matrices have other eigenvalues than GPAW states: they differ by {worst:.2g} hartree."
            )


def failure_reason(text: str) -> str:
    """The last line of a traceback, and what to install if it is GPAW that is missing."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if "No module named 'gpaw'" in last:
        return "this Python has no GPAW; apt install gpaw gpaw-data, or give another Python as [label] command."
    return last
