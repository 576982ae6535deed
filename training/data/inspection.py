"""``python -m training inspect``: what a file or folder of labels is, its sizes, and what :mod:`training.data.lint` says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.errors import FormatError, UnknownFormatError
from model.formats.matrices import Matrices
from model.formats.registry import FORMATS, Entry, entries
from model.structure import SYMBOLS
from model.units import EV_PER_HARTREE
from training.data.finding import Finding
from training.data.frame import DatasetError, FrameSource
from training.data.lint import lint
from training.data.sources import open_source

READ_BY_DEFAULT = 20
"""Structures of a set that are read, spread evenly."""


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was found.

    Attributes:
        facts: name and value of each fact, in order.
        findings: of the lint.
    """

    facts: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing forbids training on it."""
        return all(finding.severity != "error" for finding in self.findings)

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.facts)
        lines = [f"{name:<{width}}  {value}" for name, value in self.facts]
        lines += [f"{finding.severity:<{width}}  {finding.check}: {finding.detail}" for finding in self.findings]
        return "\n".join(lines)


def inspect(path: Path, n_read: int = READ_BY_DEFAULT) -> Inspection:
    """Read some structures of a file or folder and check them.

    Args:
        path: anything that ``training`` or ``model.formats`` reads.
        n_read: at most so many structures, spread evenly over the set.

    Raises:
        FormatError, DatasetError: nothing that is known, or damaged.
    """
    try:
        listed = entries(path)
    except UnknownFormatError as unknown:
        return _of_source(path, n_read, unknown)
    chosen = [listed[k] for k in _spread(len(listed), n_read)]
    structures = [(entry.name, entry.read()) for entry in chosen]
    facts = [("path", str(path)), ("format", _formats(listed))]
    facts += [("split", _counts(Counter(entry.split for entry in listed)))] if listed[0].split else []
    return Inspection((*facts, *_facts(len(listed), structures)), tuple(lint(structures)))


def _of_source(path: Path, n_read: int, unknown: UnknownFormatError) -> Inspection:
    """The same for the molecular formats."""
    try:
        source = open_source(path)
    except DatasetError:
        if path.is_dir():
            raise unknown from None
        raise
    with source:
        structures = []
        for index in _spread(len(source), n_read):
            frame = source.frame(index, "")
            matrices = Matrices(frame.structure, frame.hamiltonian, frame.overlap)
            structures.append((f"{frame.molecule}/{frame.index}", matrices))
        facts = [("path", str(path)), ("format", f"{type(source).__name__}, {source.level}, by {source.level.program}")]
        facts += [("splits", _splits(source)), ("molecules", str(len(np.unique(source.molecules()))))]
        facts += [("charge, 2S + 1", ", ".join(f"{q:+d}, {m}" for q, m in sorted(source.charge_states())))]
        # a molecule has no Fermi level to miss, and its overlap can be computed
        findings = [found for found in lint(structures) if found.check not in ("Fermi level", "overlap")]
        return Inspection((*facts, *_facts(len(source), structures)), tuple(findings))


def _facts(n_structures: int, structures: Sequence[tuple[str, Matrices]]) -> list[tuple[str, str]]:
    first = structures[0][1]
    elements = sorted({int(z) for _, found in structures for z in found.structure.numbers})
    shells = {z: found.space.shells_of(z) for _, found in structures for z in set(found.structure.numbers.tolist())}
    spins: Counter[str] = Counter(found.spin for _, found in structures)
    facts = [
        ("program", _counts(Counter(found.program or "-" for _, found in structures))),
        ("structures", f"{n_structures}, {len(structures)} of them read"),
        ("formulas", _counts(Counter(_formula(found) for _, found in structures))),
        ("atoms", _range([len(found.structure) for _, found in structures])),
        ("periodic", _counts(Counter(_periodic(found) for _, found in structures))),
        ("matrices", _counts(Counter(", ".join(found.stored) for _, found in structures))),
        ("spin", _counts(spins)),
        ("orbitals", _range([found.space.count_orbitals(found.structure.numbers) for _, found in structures])),
        ("order", first.space.order),
        ("shells", "; ".join(f"{SYMBOLS[z]} {_shells(shells[z])}" for z in elements)),
        ("pairs", _range([len(blocks.pairs) for _, found in structures for blocks in found.stored.values()])),
        ("reach", f"{max(_reach(found) for _, found in structures):.2f} Å"),
        ("Fermi level", _levels(structures)),
    ]
    electrons = [found.n_electrons for _, found in structures if found.n_electrons is not None]
    facts += [("electrons", _range(electrons))] if electrons else []
    meshes = Counter("x".join(map(str, found.k_points)) for _, found in structures if found.k_points is not None)
    facts += [("k-points", _counts(meshes))] if meshes else []
    notes = sorted({note for _, found in structures for note in found.notes})
    return facts + [("note", note) for note in notes]


def _reach(matrices: Matrices) -> float:
    return max(float(blocks.pairs.distances_angstrom.max(initial=0.0)) for blocks in matrices.stored.values())


def _levels(structures: Sequence[tuple[str, Matrices]]) -> str:
    levels = [found.fermi_energy_hartree for _, found in structures if found.fermi_energy_hartree is not None]
    return f"{_range([round(level * EV_PER_HARTREE, 4) for level in levels])} eV" if levels else "not stated"


def _formats(listed: Sequence[Entry]) -> str:
    return "; ".join(f"{name} ({FORMATS[name].what})" for name in dict.fromkeys(entry.format for entry in listed))


def _splits(source: FrameSource) -> str:
    try:
        found = source.splits(source.schemes[0])
    except DatasetError as error:
        return str(error)
    return ", ".join(f"{name} {len(indices)}" for name, indices in found.items())


def _formula(matrices: Matrices) -> str:
    counts = Counter(matrices.structure.symbols)
    return "".join(f"{symbol}{counts[symbol] if counts[symbol] > 1 else ''}" for symbol in sorted(counts))


def _periodic(matrices: Matrices) -> str:
    axes = "".join(axis for axis, periodic in zip("abc", matrices.structure.pbc, strict=True) if periodic)
    return axes or "no"


def _shells(shells: tuple[int, ...]) -> str:
    counts = Counter(shells)
    return " ".join(f"{counts[ang]}{'spdfghik'[ang] if ang < 8 else f'(l={ang})'}" for ang in sorted(counts))


def _counts(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name or '-'} ({count})" for name, count in counts.most_common(8))


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _spread(n_all: int, n_read: int) -> list[int]:
    """Indices of at most so many items, spread evenly."""
    if n_all < 1:
        raise FormatError("There are no structures in it.")
    return sorted(set(np.linspace(0, n_all - 1, min(n_all, max(n_read, 1))).astype(int).tolist()))
