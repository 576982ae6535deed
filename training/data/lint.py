"""What can be wrong with labels of H(R) and S(R), and how to see it: one function a check.

Each looks at one structure, or at several of one set, and says what it found: ``ok``, ``warning`` (usable, know this) or
``error`` (do not train on it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.blocks.matrices import BlochSum
from model.blocks.motions import time_reversal_error
from model.electronic.fermi import k_mesh
from model.formats.matrices import Matrices
from model.units import EV_PER_HARTREE
from training.data.finding import Finding, Severity, severity_of
from training.data.lint_mesh import check_electrons, check_reach
from training.data.symmetry import Comparison, compare_copies, compare_symmetries

MEV: Final = 1000 * EV_PER_HARTREE
"""meV per hartree."""
HERMITIAN_WARNING_HARTREE, HERMITIAN_ERROR_HARTREE = 1e-6, 1e-3
"""Programs write H hermitian to 1e-8; float32 to 1e-6."""
OVERLAP_WARNING: Final = 1e-3
"""An error of H is magnified by up to the inverse of the smallest eigenvalue of S."""
MESH: Final = 3
"""k-points along each periodic direction, Gamma among them."""
MAXIMUM_ORBITALS: Final = 2000
"""S(k) of larger cells is not diagonalised."""
ROTATION_WARNING_HARTREE, ROTATION_ERROR_HARTREE = 5e-4, 1e-2
"""OpenMX's grid breaks a threefold axis by 5e-4 (13 meV) at most; a wrong order breaks it by 1."""
OUTLIER_DEVIATIONS: Final = 15.0
"""Robust standard deviations of an on-site energy over a set, beyond which a frame is named."""
SMALLEST_SPREAD_HARTREE: Final = 1e-3
FEWEST_FRAMES: Final = 5
"""Fewer frames say nothing about outliers."""


def lint(structures: Sequence[tuple[str, Matrices]]) -> list[Finding]:
    """All checks.

    Args:
        structures: name and matrices (hartree) of each structure that was read.
    """
    whole = [(name, found) for name, found in structures if found.hamiltonian is not None]
    bare = [name for name, found in structures if found.hamiltonian is None]
    findings = []
    if bare:
        findings.append(
            Finding(
                "warning",
                "no Hamiltonian",
                f"overlaps only in {_some(bare)}: a source of pairs to predict on, nothing to learn from",
            )
        )
    for check in (_hermitian, _positive, _fermi, check_electrons, _time_reversal, _tails, check_reach):
        findings += check(structures)
    findings += _rotation(whole) + _outliers(whole)
    return findings


def _hermitian(structures: Sequence[tuple[str, Matrices]]) -> list[Finding]:
    found = []
    for kind in ("hamiltonian", "overlap"):
        errors = [(blocks.stored[kind].hermitian_error(), name) for name, blocks in structures if kind in blocks.stored]
        if errors:
            worst, name = max(errors)
            unit = f"{worst * MEV:.2g} meV" if kind == "hamiltonian" else f"{worst:.2g}"
            found.append(
                Finding(
                    severity_of(worst, HERMITIAN_WARNING_HARTREE, HERMITIAN_ERROR_HARTREE),
                    "hermitian",
                    f"{kind}: H_ij(R) and H_ji(-R)^dagger differ by at most {unit} ({name})".replace(
                        "H_", "H_" if kind == "hamiltonian" else "S_"
                    ),
                )
            )
    return found


def _positive(structures: Sequence[tuple[str, Matrices]]) -> list[Finding]:
    smallest = []
    for name, matrices in structures:
        overlap = matrices.overlap
        if overlap is None or overlap.n_orbitals > MAXIMUM_ORBITALS:
            continue
        points, _ = k_mesh([MESH if periodic else 1 for periodic in matrices.structure.pbc], halved=True)
        s_at = BlochSum(overlap)
        smallest.append((min(float(scipy.linalg.eigvalsh(s_at(k))[0]) for k in points), name))
    if not smallest:
        return [Finding("warning", "overlap", "no overlap was checked")]
    value, name = min(smallest)
    severity: Severity = "error" if value <= 0 else "warning" if value < OVERLAP_WARNING else "ok"
    remark = "; not positive definite" if value <= 0 else f"; errors of H grow up to {1 / value:.0f}-fold in its bands"
    return [Finding(severity, "overlap", f"smallest eigenvalue of S(k) is {value:.2g} ({name}){remark}")]


def _fermi(structures: Sequence[tuple[str, Matrices]]) -> list[Finding]:
    missing = [name for name, matrices in structures if matrices.fermi_energy is None]
    if not missing:
        return []
    return [Finding("warning", "Fermi level", f"not stated for {_some(missing)} ({len(missing)} of {len(structures)})")]


def _time_reversal(structures: Sequence[tuple[str, Matrices]]) -> list[Finding]:
    spinors = [(name, m.hamiltonian) for name, m in structures if m.hamiltonian is not None and m.spin == "spinor"]
    if not spinors:
        return []
    broken, name = max((time_reversal_error(blocks), name) for name, blocks in spinors)
    coupling = max(_coupling(blocks) for _, blocks in spinors)
    share = broken / coupling if coupling else 0.0
    words = "holds; half of the outputs are zero" if share < 1e-2 else "is broken: a magnetic solution"
    return [
        Finding(
            "ok",
            "time reversal",
            f"{words}: at most {broken * MEV:.2g} meV against it ({name}), {coupling * MEV:.0f} meV of spin dependence",
        )
    ]


def _coupling(blocks: BlockSet) -> float:
    """Largest entry of the part of H that depends on spin."""
    up_up, up_down, down_up, down_down = blocks.values
    return float(max(np.abs(up_up - down_down).max() / 2, np.abs(up_down).max(), np.abs(down_up).max()))


def _tails(structures: Sequence[tuple[str, Matrices]]) -> list[Finding]:
    """Pairs without overlap whose H is not zero: a graph made from S misses them."""
    largest, where, lost, total = 0.0, "", 0, 0
    for name, matrices in structures:
        if matrices.hamiltonian is None or matrices.overlap is None:
            continue
        size = np.array([np.abs(block).max() for block in matrices.hamiltonian])
        overlap = np.array([np.abs(block).max() for block in matrices.overlap.on_pairs(matrices.hamiltonian.pairs)])
        bare = (overlap == 0) & (size > 0)
        lost, total = lost + int(bare.sum()), total + len(size)
        largest, where = max((largest, where), (float(size[bare].max(initial=0.0)), name))
    if not lost:
        return []
    return [
        Finding("ok", "pairs", f"{lost} of {total} have H but no overlap, up to {largest * MEV:.2g} meV ({where})"),
    ]


def _rotation(structures: Sequence[tuple[str, Matrices]]) -> list[Finding]:
    copies = compare_copies([matrices.require_hamiltonian() for _, matrices in structures])
    found = [] if copies is None else [_turned(copies, "rotated copies of a structure")]
    symmetric = [
        (comparison, name)
        for name, matrices in structures
        if (comparison := compare_symmetries(matrices.structure, matrices.require_hamiltonian())) is not None
    ]
    if symmetric:
        comparison, name = max(symmetric, key=lambda item: item[0].largest)
        found.append(_turned(comparison, f"symmetries of {name}"))
    if not found and structures:
        found.append(Finding("ok", "rotation", "not checked: no rotated copies, and no symmetric crystal"))
    return found


def _turned(comparison: Comparison, what: str) -> Finding:
    return Finding(
        severity_of(comparison.largest, ROTATION_WARNING_HARTREE, ROTATION_ERROR_HARTREE),
        "rotation",
        f"{comparison.operations} {what}: H turns with them to {comparison.largest * MEV:.2g} meV, "
        f"{comparison.mean * MEV:.2g} on average",
    )


def _outliers(structures: Sequence[tuple[str, Matrices]]) -> list[Finding]:
    """Frames whose on-site energies lie far from those of the same formula, the common zero of each apart (H - mu S)."""
    if len(structures) < FEWEST_FRAMES:
        return []
    of_element: dict[tuple[bytes, int], list[tuple[str, NDArray[np.float64]]]] = {}
    for name, matrices in structures:
        formula = np.sort(matrices.structure.numbers).tobytes()
        for number, levels in _on_site_levels(matrices).items():
            of_element.setdefault((formula, number), []).append((name, levels))
    named: dict[str, float] = {}
    for frames in of_element.values():
        levels = np.stack([own for _, own in frames])
        middle = np.median(levels, axis=0)
        spread = np.maximum(1.4826 * np.median(np.abs(levels - middle), axis=0), SMALLEST_SPREAD_HARTREE)
        for (name, _), far in zip(frames, (np.abs(levels - middle) / spread).max(axis=1), strict=True):
            if len(frames) >= FEWEST_FRAMES and far > OUTLIER_DEVIATIONS:
                named[name] = max(named.get(name, 0.0), float(far))
    if not named:
        return [Finding("ok", "outliers", f"none among {len(structures)} structures")]
    worst = max(named, key=named.__getitem__)
    return [
        Finding(
            "warning",
            "outliers",
            f"{_some(list(named))}: on-site energies up to {named[worst]:.0f} deviations from the others' ({worst})",
        )
    ]


def _on_site_levels(matrices: Matrices) -> dict[int, NDArray[np.float64]]:
    """Mean diagonal of the on-site blocks of each element, H - mu S with mu = <H, S> / <S, S>."""
    hamiltonian = matrices.require_hamiltonian()
    parts = [0] if hamiltonian.spin == "restricted" else [0, -1]
    average = hamiltonian.values[parts].real.mean(axis=0)
    if matrices.overlap is not None:
        overlap = matrices.overlap.on_pairs(hamiltonian.pairs).values[0]
        average = average - (average @ overlap) / (overlap @ overlap) * overlap
    plain = BlockSet(hamiltonian.space, hamiltonian.numbers, hamiltonian.pairs, average[None])
    diagonals = [np.diagonal(block) for block in _on_site(plain)]
    numbers = matrices.structure.numbers
    return {
        int(z): np.mean([diagonals[atom] for atom in np.flatnonzero(numbers == z)], axis=0) for z in np.unique(numbers)
    }


def _on_site(blocks: BlockSet) -> list[NDArray[np.float64]]:
    return [blocks.block(atom)[0] for atom in range(blocks.pairs.n_atoms)]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
