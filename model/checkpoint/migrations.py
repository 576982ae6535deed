"""Steps from older checkpoint formats to today's: one small function a format, applied to what stands in the files.

A step takes the values of ``card.json`` as they were read and returns those of the next format. It must not look at what
later formats mean. ``tests/old_checkpoints`` holds a folder of each format that must load for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

FORMAT_VERSION: Final = 5
"""The format that is written. 1: first; 2: damping of the correction; 3: inputs, integral source, spin, periodicity, symmetry
and pair cutoffs are declared, golden entries carry charge and multiplicity, the published QHNet has its name;
4: a symmetry may be approximate, by a measured error; crystals have a gauge and a support; 5: spectra of crystals
may be damped."""

Values = dict[str, Any]


def migrate_card(values: Mapping[str, Any]) -> Values:
    """Values of ``card.json`` in today's format; ``format_version`` is one that this program reads."""
    current = dict(values)
    while current["format_version"] < FORMAT_VERSION:
        step = _CARD_STEPS[current["format_version"]]
        current = step(current) | {"format_version": current["format_version"] + 1}
    return current


def migrate_golden(values: Mapping[str, Any]) -> Values:
    """Values of ``golden.json`` in today's format: before format 3 all were neutral singlet molecules and nobody said so."""
    if "molecules" not in values:
        return dict(values)
    unsaid = {"charge": 0, "multiplicity": 1, "cell_angstrom": None, "pbc": [False, False, False]}
    kept = {name: value for name, value in values.items() if name != "molecules"}
    return kept | {"structures": [unsaid | dict(entry) for entry in values["molecules"]]}


def _from_1(values: Values) -> Values:
    """Nothing was damped."""
    reference = values.get("reference")
    if isinstance(reference, dict):
        values["reference"] = {"overlap_damping": 0.0} | reference
    return values


def _from_2(values: Values) -> Values:
    """Molecules by PySCF, with the three known matrices, restricted, all pairs; rotations only for the published QHNet."""
    architecture = dict(values.get("architecture") or {})
    published = architecture.get("backbone") == "qhnet_strict"
    if published:
        architecture["backbone"] = "qhnet_published"
        architecture["qhnet_published"] = architecture.pop("qhnet_strict", {})
    basis = values.get("basis")
    values = {name: value for name, value in values.items() if name != "ao_order"}  # now the basis's order
    return values | {
        "architecture": architecture,
        "basis": {"order": "pyscf", "valence": None} | basis if isinstance(basis, dict) else basis,
        "potentials": None,
        "spin": "restricted",
        "time_reversal": False,
        "periodic": False,
        "inputs": ["overlap", "reference", "density"],
        "integrals": "pyscf_molecule",
        "pair_cutoffs_angstrom": None,
        "symmetry": "SO(3)" if published else "O(3)",
    }


def _from_3(values: Values) -> Values:
    """All symmetries were exact, and no crystal had been released."""
    return values | {"symmetry_error": None, "support": None, "gauge": "none"}


def _from_4(values: Values) -> Values:
    """Spectra of crystals were of H as predicted."""
    return values | {"kinetic_damping": 0.0}


_CARD_STEPS: Final[Mapping[int, Callable[[Values], Values]]] = {1: _from_1, 2: _from_2, 3: _from_3, 4: _from_4}
