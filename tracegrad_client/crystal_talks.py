"""What the clients ask about crystals, each question once: H(R), a start of an SCF in k, bands and densities of states."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tracegrad_client import crystal
from tracegrad_client.ask import Ask
from tracegrad_client.crystal import Crystal
from tracegrad_client.crystal_guess import CrystalGuess, read_crystal_guess
from tracegrad_client.energies import EnergyUnit, check_unit
from tracegrad_client.errors import InvalidInputError
from tracegrad_client.exchange import Talk
from tracegrad_client.levels import BandStructure, DensityOfStates, read_bands, read_dos
from tracegrad_client.structure import Molecule
from tracegrad_client.talks import tensors
from tracegrad_client.wire import Tensors

KPoints = Sequence[Sequence[float]]
Window = tuple[float, float]

_NOT_PERIODIC: Final = (
    "Set atoms.pbc, or ask for hamiltonian(), guess() or orbital_energies(), which are for molecules."
)


def crystal_of(ask: Ask, atoms: Any) -> Talk[Crystal]:
    """H(R), S(R) and the Fermi level."""
    sent = _sent(atoms, ask)
    body = {**ask.body(sent, outputs=crystal.OUTPUTS), "ao_order": crystal.ORDER}
    return crystal.read_crystal((yield from tensors("/v1/predict", body)), sent)


def crystal_guess(ask: Ask, atoms: Any, kpts: KPoints | None, kmesh: str | None) -> Talk[CrystalGuess]:
    """The start of an SCF in k."""
    started = time.perf_counter()
    body = ask.body(_sent(atoms, ask), **_given(kpts=kpts, kmesh=kmesh))
    answer = yield from tensors("/v1/initial-guess", body)
    return read_crystal_guess(answer, time.perf_counter() - started)


def bands(ask: Ask, atoms: Any, unit: EnergyUnit, **named: Any) -> Talk[BandStructure]:
    """Bands along a path, with the options that were given."""
    return read_bands((yield from _levels("/v1/bands", ask, atoms, unit, named)), unit)


def dos(ask: Ask, atoms: Any, unit: EnergyUnit, **named: Any) -> Talk[DensityOfStates]:
    """Density of states, with the options that were given."""
    return read_dos((yield from _levels("/v1/dos", ask, atoms, unit, named)), unit)


def _levels(path: str, ask: Ask, atoms: Any, unit: EnergyUnit, named: Mapping[str, Any]) -> Talk[Tensors]:
    check_unit(unit)
    body = {**ask.body(_sent(atoms, ask)), "energy_unit": unit, **_given(**named)}
    del body["ao_order"]  # levels have none
    return (yield from tensors(path, body))


def _sent(atoms: Any, ask: Ask) -> Molecule:
    sent = _structure_of_cell(atoms) if hasattr(atoms, "lattice_vectors") else ask.molecule(atoms)
    if not any(sent.pbc):
        raise InvalidInputError("The structure has no periodic direction.", hint=_NOT_PERIODIC)
    return sent


def _structure_of_cell(cell: Any) -> Molecule:
    from tracegrad_client.adapters.pyscf.cells import structure_of_cell

    return structure_of_cell(cell)


def _given(**options: Any) -> dict[str, Any]:
    """Options without those that were left out."""
    return {name: value for name, value in options.items() if value is not None}
