"""What the client asks about crystals: H(R), a start of an SCF in k, bands and densities of states."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Unpack

from tracegrad_client import crystal
from tracegrad_client.ask import Ask, Options
from tracegrad_client.crystal import Crystal
from tracegrad_client.crystal_guess import CrystalGuess, read_crystal_guess
from tracegrad_client.energies import EnergyUnit, check_unit
from tracegrad_client.errors import InvalidInputError
from tracegrad_client.levels import BandStructure, DensityOfStates, read_bands, read_dos
from tracegrad_client.structure import Molecule
from tracegrad_client.wire import Tensors

KPoints = Sequence[Sequence[float]]
Window = tuple[float, float]

_NOT_PERIODIC: Final = (
    "Set atoms.pbc, or ask for hamiltonian(), guess() or orbital_energies(), which are for molecules."
)


class CrystalCalls:
    """The part of :class:`tracegrad_client.Client` that is about crystals.

    A crystal is an ase.Atoms with a cell that is periodic along at least one lattice vector, or a PySCF Cell. ``options`` are
    xc and basis, and the charge and multiplicity of an ase.Atoms; see :class:`tracegrad_client.ask.Options`. All methods
    raise InvalidInputError for a structure without a periodic direction, and else a leaf of TraceGradError.
    """

    model: str | None

    def _tensors(self, path: str, body: Mapping[str, Any]) -> Tensors:
        raise NotImplementedError

    def _structure_of_cell(self, cell: Any) -> Molecule:
        raise NotImplementedError

    def crystal(self, atoms: Any, **options: Unpack[Options]) -> Crystal:
        """The predicted H(R) and S(R) of a crystal, with its Fermi level: ``client.crystal(atoms).energies(k)``."""
        ask = Ask(self.model, **options)
        sent = self._sent(atoms, ask)
        body = {**ask.body(sent, outputs=crystal.OUTPUTS), "ao_order": crystal.ORDER}
        return crystal.read_crystal(self._tensors("/v1/predict", body), sent)

    def crystal_guess(
        self, atoms: Any, *, kpts: KPoints | None = None, kmesh: str | None = None, **options: Unpack[Options]
    ) -> CrystalGuess:
        """The start of an SCF in k: ``mf.kernel(dm0=client.crystal_guess(cell, kmesh="3x3x1").dm_kpts)``.

        ``client.attach(mf)`` does it at the calculation's own k-points, with checks, its own occupations and a fallback.

        Args:
            atoms: the crystal.
            kpts: fractional k-points of the same weight, in the sequence that is wanted; or
            kmesh: counts of a Gamma-centred mesh, "3x3x1", in the sequence of ``cell.make_kpts``. None of the two: the
                server's choice for the cell.
            options: as of all.
        """
        started = time.perf_counter()
        ask = Ask(self.model, **options)
        body = ask.body(self._sent(atoms, ask), **_given(kpts=kpts, kmesh=kmesh))
        return read_crystal_guess(self._tensors("/v1/initial-guess", body), time.perf_counter() - started)

    def bands(
        self,
        atoms: Any,
        *,
        path: str | None = None,
        npoints: int | None = None,
        kpts: KPoints | None = None,
        kmesh: str | None = None,
        window_ev: Window | None = None,
        unit: EnergyUnit = "eV",
        **options: Unpack[Options],
    ) -> BandStructure:
        """Bands along a path: ``client.bands(atoms).plot()``.

        Args:
            atoms: the crystal.
            path: names of special points, "GMKG"; None for the lattice's usual path.
            npoints: k-points of the path.
            kpts: fractional k-points instead of a path.
            kmesh: on which levels are filled.
            window_ev: only bands that enter it, from the Fermi level.
            unit: of the energies.
            options: as of all.
        """
        named = _given(path=path, npoints=npoints, kpts=kpts, kmesh=kmesh, window_ev=window_ev)
        return read_bands(self._levels("/v1/bands", atoms, unit, options, named), unit)

    def dos(
        self,
        atoms: Any,
        *,
        kmesh: str | None = None,
        window_ev: Window | None = None,
        sigma_ev: float | None = None,
        unit: EnergyUnit = "eV",
        **options: Unpack[Options],
    ) -> DensityOfStates:
        """Density of states: ``client.dos(atoms).plot()``.

        Args:
            atoms: the crystal.
            kmesh: k-points whose levels are counted.
            window_ev: lowest and highest energy, from the Fermi level.
            sigma_ev: width of the Gaussians.
            unit: of the energies.
            options: as of all.
        """
        named = _given(kmesh=kmesh, window_ev=window_ev, sigma_ev=sigma_ev)
        return read_dos(self._levels("/v1/dos", atoms, unit, options, named), unit)

    def _levels(self, path: str, atoms: Any, unit: EnergyUnit, options: Options, named: Mapping[str, Any]) -> Tensors:
        check_unit(unit)
        ask = Ask(self.model, **options)
        body = {**ask.body(self._sent(atoms, ask)), "energy_unit": unit, **named}
        del body["ao_order"]  # levels have none
        return self._tensors(path, body)

    def _sent(self, atoms: Any, ask: Ask) -> Molecule:
        sent = self._structure_of_cell(atoms) if hasattr(atoms, "lattice_vectors") else ask.molecule(atoms)
        if not any(sent.pbc):
            raise InvalidInputError("The structure has no periodic direction.", hint=_NOT_PERIODIC)
        return sent


def _given(**options: Any) -> dict[str, Any]:
    """Options without those that were left out."""
    return {name: value for name, value in options.items() if value is not None}
