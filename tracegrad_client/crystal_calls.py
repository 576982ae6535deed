"""What the client asks about crystals: H(R), a start of an SCF in k, bands and densities of states."""

from __future__ import annotations

from typing import Any, Unpack

from tracegrad_client import crystal_talks
from tracegrad_client.ask import Ask, Options
from tracegrad_client.async_transport import AsyncTransport
from tracegrad_client.crystal import Crystal
from tracegrad_client.crystal_guess import CrystalGuess
from tracegrad_client.crystal_talks import KPoints, Window
from tracegrad_client.energies import EnergyUnit
from tracegrad_client.levels import BandStructure, DensityOfStates
from tracegrad_client.transport import Transport


class CrystalCalls:
    """The part of :class:`tracegrad_client.Client` that is about crystals.

    A crystal is an ase.Atoms with a cell that is periodic along at least one lattice vector, or a PySCF Cell. ``options`` are
    xc and basis, and the charge and multiplicity of an ase.Atoms; see :class:`tracegrad_client.ask.Options`. All methods
    raise InvalidInputError for a structure without a periodic direction, and else a leaf of TraceGradError.
    """

    model: str | None
    _transport: Transport

    def crystal(self, atoms: Any, **options: Unpack[Options]) -> Crystal:
        """The predicted H(R) and S(R) of a crystal, with its Fermi level: ``client.crystal(atoms).energies(k)``."""
        return self._transport.run(crystal_talks.crystal_of(Ask(self.model, **options), atoms))

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
        return self._transport.run(crystal_talks.crystal_guess(Ask(self.model, **options), atoms, kpts, kmesh))

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
        named = {"path": path, "npoints": npoints, "kpts": kpts, "kmesh": kmesh, "window_ev": window_ev}
        return self._transport.run(crystal_talks.bands(Ask(self.model, **options), atoms, unit, **named))

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
        named = {"kmesh": kmesh, "window_ev": window_ev, "sigma_ev": sigma_ev}
        return self._transport.run(crystal_talks.dos(Ask(self.model, **options), atoms, unit, **named))


class AsyncCrystalCalls:
    """The same of :class:`tracegrad_client.AsyncClient`, to be awaited; arguments, results and errors are those above."""

    model: str | None
    _transport: AsyncTransport

    async def crystal(self, atoms: Any, **options: Unpack[Options]) -> Crystal:
        """The predicted H(R) and S(R) of a crystal, with its Fermi level."""
        return await self._transport.run(crystal_talks.crystal_of(Ask(self.model, **options), atoms))

    async def crystal_guess(
        self, atoms: Any, *, kpts: KPoints | None = None, kmesh: str | None = None, **options: Unpack[Options]
    ) -> CrystalGuess:
        """The start of an SCF in k."""
        return await self._transport.run(crystal_talks.crystal_guess(Ask(self.model, **options), atoms, kpts, kmesh))

    async def bands(
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
        """Bands along a path."""
        named = {"path": path, "npoints": npoints, "kpts": kpts, "kmesh": kmesh, "window_ev": window_ev}
        return await self._transport.run(crystal_talks.bands(Ask(self.model, **options), atoms, unit, **named))

    async def dos(
        self,
        atoms: Any,
        *,
        kmesh: str | None = None,
        window_ev: Window | None = None,
        sigma_ev: float | None = None,
        unit: EnergyUnit = "eV",
        **options: Unpack[Options],
    ) -> DensityOfStates:
        """Density of states."""
        named = {"kmesh": kmesh, "window_ev": window_ev, "sigma_ev": sigma_ev}
        return await self._transport.run(crystal_talks.dos(Ask(self.model, **options), atoms, unit, **named))
