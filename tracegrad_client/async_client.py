"""The client for code that awaits: the same questions and answers as :class:`tracegrad_client.Client`.

async with AsyncClient() as client:
    guesses = await asyncio.gather(*(client.guess(mol) for mol in mols))     # the server computes them together
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from tracegrad_client import batch, talks
from tracegrad_client.ask import Ask, Options
from tracegrad_client.async_transport import AsyncTransport
from tracegrad_client.batch import Outcome
from tracegrad_client.connection import Connection
from tracegrad_client.crystal_calls import AsyncCrystalCalls
from tracegrad_client.energies import EnergyUnit, OrbitalEnergies
from tracegrad_client.evaluation import Evaluation
from tracegrad_client.exchange import Answer
from tracegrad_client.frames import frames_of
from tracegrad_client.guess import Guess
from tracegrad_client.job import AsyncGuessJob


class AsyncClient(Connection, AsyncCrystalCalls):
    """Talks to one TraceGrad server from asyncio. Arguments are those of :class:`tracegrad_client.connection.Connection`.

    The methods are those of :class:`tracegrad_client.Client` of the same names, with its arguments, results and errors.
    """

    def _open(self) -> None:
        self._transport = AsyncTransport(self._url, **self._limits)

    def _endpoint(self) -> AsyncTransport:
        return self._transport

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def guess(self, molecule: Any, *, project: bool = False, **options: Unpack[Options]) -> Guess:
        """The starting point of an SCF."""
        ask = Ask(self.model, **options)
        if not project:
            return await self._transport.run(talks.guess(ask, molecule))
        from tracegrad_client.adapters.pyscf.projection import atoms_of, projected_guess

        return await self._transport.run(talks.projected_guess(ask, molecule, atoms_of, projected_guess))

    async def guesses(
        self, molecules: Sequence[Any] | str | os.PathLike[str], **options: Unpack[Options]
    ) -> list[Outcome]:
        """Starting points of many molecules in few requests, each a Guess or the error that says why there is none."""
        return await self._transport.run(batch.guesses(frames_of(molecules), Ask(self.model, **options)))

    async def submit(self, molecule: Any, **options: Unpack[Options]) -> AsyncGuessJob:
        """Ask for the starting point of a molecule that is too large to wait for."""
        job_id, sent = await self._transport.run(talks.submit(Ask(self.model, **options), molecule))
        return AsyncGuessJob(self._transport, job_id, sent, molecule)

    def job(self, job_id: str, molecule: Any, **options: Unpack[Options]) -> AsyncGuessJob:
        """A job that was submitted before, by its id; nothing is sent."""
        return AsyncGuessJob(self._transport, job_id, Ask(self.model, **options).sent(molecule), molecule)

    async def density_matrix(self, molecule: Any, **options: Unpack[Options]) -> NDArray[np.float64]:
        """The guess's density matrix, shape (ao, ao)."""
        return talks.density_of(await self.guess(molecule, **options))

    async def hamiltonian(
        self, molecule: Any, **options: Unpack[Options]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The predicted Kohn-Sham matrix H (hartree) and the overlap S."""
        return await self._transport.run(talks.hamiltonian(Ask(self.model, **options), molecule))

    async def orbital_energies(
        self, molecule: Any, *, unit: EnergyUnit = "hartree", **options: Unpack[Options]
    ) -> OrbitalEnergies:
        """Predicted orbital energies, with HOMO, LUMO and gap."""
        return await self._transport.run(talks.orbital_energies(Ask(self.model, **options), molecule, unit))

    async def qcschema(self, molecule: Any, *, version: int = 2, **options: Unpack[Options]) -> dict[str, Any]:
        """The guess as a QCSchema ``AtomicResult`` of version 2 or 1."""
        return await self._transport.run(talks.qcschema(Ask(self.model, **options), molecule, version))

    async def evaluate(
        self,
        calculation: Any,
        fock: Any = None,
        overlap: Any = None,
        *,
        ao_order: str = "pyscf",
        energy_unit: EnergyUnit = "hartree",
        **options: Unpack[Options],
    ) -> Evaluation:
        """How far the prediction is from your own converged matrix."""
        return await self._transport.run(
            talks.evaluation_of(
                self.model, calculation, fock, overlap, ao_order=ao_order, energy_unit=energy_unit, options=options
            )
        )

    async def models(self) -> list[dict[str, Any]]:
        """The cards of the loaded checkpoints."""
        return await self._transport.run(talks.models())

    async def guess_file(
        self, name: str, content: bytes, *, format_out: str, options: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a structure file and return the guess as the server wrote it (chk, npz, molden, cube ...)."""
        return await self._transport.run(
            talks.send_file("/v1/initial-guess", name, content, options, self.model, format_out=format_out)
        )

    async def levels_of_file(
        self, what: str, name: str, content: bytes, *, format_out: str, options: Mapping[str, str] | None = None
    ) -> Answer:
        """Bands or density of states of the crystal in a structure file, as the server wrote them."""
        return await self._transport.run(
            talks.send_file(f"/v1/{what}", name, content, options, self.model, format_out=format_out)
        )

    async def orbital_energies_of_file(
        self, name: str, content: bytes, *, unit: EnergyUnit = "hartree", options: Mapping[str, str] | None = None
    ) -> OrbitalEnergies:
        """Orbital energies of the molecule in a structure file."""
        return await self._transport.run(talks.energies_of_file(name, content, options, self.model, unit))
