"""The client: a molecule in, what the server predicts for it out, as numpy arrays in PySCF's orbital order.

client = Client("http://127.0.0.1:8000")
mf.kernel(dm0=client.density_matrix(mol))      # or, with checks and a fallback:  client.attach(mf).kernel()
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from tracegrad_client import batch, talks
from tracegrad_client.ask import Ask, Options
from tracegrad_client.batch import Outcome
from tracegrad_client.connection import DEFAULT_TIMEOUT_S, DEFAULT_URL, Connection
from tracegrad_client.crystal_calls import CrystalCalls
from tracegrad_client.energies import EnergyUnit, OrbitalEnergies
from tracegrad_client.evaluation import Evaluation
from tracegrad_client.exchange import Answer
from tracegrad_client.frames import frames_of
from tracegrad_client.guess import Guess
from tracegrad_client.job import FileJob, GuessJob
from tracegrad_client.transport import Transport

__all__ = ["DEFAULT_TIMEOUT_S", "DEFAULT_URL", "Client"]

MeanField = TypeVar("MeanField")


class Client(Connection, CrystalCalls):
    """Talks to one TraceGrad server. Thread-safe; may be copied, deep-copied and pickled with a mean-field object.

    Its arguments are those of :class:`tracegrad_client.connection.Connection`.
    """

    def _open(self) -> None:
        self._transport = Transport(self._url, **self._limits)

    def _endpoint(self) -> Transport:
        return self._transport

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    # -- what a calculation needs -----------------------------------------------------------------------------------

    def guess(self, molecule: Any, *, project: bool = False, **options: Unpack[Options]) -> Guess:
        """The starting point of an SCF.

        Args:
            molecule: a PySCF Mole, an ase.Atoms, a QCElemental Molecule, a structure file (its name, or a
                :class:`tracegrad_client.StructureFile`), or (numbers, positions in Å).
            project: of a Mole in another basis than the model's, project the orbitals to it instead of refusing.
            options: charge, multiplicity, xc, basis; see :class:`tracegrad_client.ask.Options`. The server warns about
                another functional and another basis. A Mole's basis is checked here in any case.

        Raises:
            TraceGradError: one of its leaves; GuessMismatchError where the Mole is not in the guess's basis.
        """
        ask = Ask(self.model, **options)
        if not project:
            return self._transport.run(talks.guess(ask, molecule))
        from tracegrad_client.adapters.pyscf.projection import atoms_of, projected_guess

        return self._transport.run(talks.projected_guess(ask, molecule, atoms_of, projected_guess))

    def guesses(self, molecules: Sequence[Any] | str | os.PathLike[str], **options: Unpack[Options]) -> list[Outcome]:
        """Starting points of many molecules in few requests, which the server computes together.

        Args:
            molecules: each as in :meth:`guess`; or one structure file of many frames, by its name.
            options: as in :meth:`guess`; charge and multiplicity of all that do not say so themselves.

        Returns:
            in the order of the molecules, the Guess of each or the TraceGradError that says why there is none; one
            molecule's error takes nothing from the others.

        Raises:
            TraceGradError: a request as a whole failed.
        """
        return self._transport.run(batch.guesses(frames_of(molecules), Ask(self.model, **options)))

    def submit(self, molecule: Any, **options: Unpack[Options]) -> GuessJob:
        """Ask for the starting point of a molecule that is too large to wait for: ``client.submit(mol).wait()``.

        Arguments and errors are those of :meth:`guess`. The server keeps the job over a restart of its own.
        """
        job_id, sent = self._transport.run(talks.submit(Ask(self.model, **options), molecule))
        return GuessJob(self._transport, job_id, sent, molecule)

    def job(self, job_id: str, molecule: Any, **options: Unpack[Options]) -> GuessJob:
        """A job that was submitted before, by its id; ``molecule`` and ``options`` are what was sent."""
        return GuessJob(self._transport, job_id, Ask(self.model, **options).sent(molecule), molecule)

    def density_matrix(self, molecule: Any, **options: Unpack[Options]) -> NDArray[np.float64]:
        """The guess's density matrix, shape (ao, ao), for ``mf.kernel(dm0=client.density_matrix(mol))``.

        Where PySCF is loaded the array carries ``mo_coeff`` and ``mo_occ``, with which PySCF evaluates the first
        exchange-correlation potential faster. Options and errors are those of :meth:`guess`.
        """
        return talks.density_of(self.guess(molecule, **options))

    def attach(
        self, mf: MeanField, *, guard: bool = True, threshold: float | None = None, parents: bool = False
    ) -> MeanField:
        """``mf`` itself, made to start from this server's guess; see :func:`tracegrad_client.adapters.pyscf.attach`."""
        from tracegrad_client.adapters.pyscf import attach

        return attach(mf, self, guard=guard, threshold=threshold, parents=parents)

    # -- predictions ------------------------------------------------------------------------------------------------

    def hamiltonian(self, molecule: Any, **options: Unpack[Options]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The predicted Kohn-Sham matrix H (hartree) and the overlap S, both of shape (ao, ao), in PySCF's order.

        Options and errors are those of :meth:`guess`.
        """
        return self._transport.run(talks.hamiltonian(Ask(self.model, **options), molecule))

    def orbital_energies(
        self, molecule: Any, *, unit: EnergyUnit = "hartree", **options: Unpack[Options]
    ) -> OrbitalEnergies:
        """Predicted orbital energies, with HOMO, LUMO and gap as attributes; ``unit`` is "hartree" or "eV".

        Options and errors are those of :meth:`guess`.
        """
        return self._transport.run(talks.orbital_energies(Ask(self.model, **options), molecule, unit))

    def qcschema(self, molecule: Any, *, version: int = 2, **options: Unpack[Options]) -> dict[str, Any]:
        """The guess as a QCSchema ``AtomicResult`` of version 2 or 1, for QCElemental, QCEngine and QCArchive.

        Options and errors are those of :meth:`guess`.
        """
        return self._transport.run(talks.qcschema(Ask(self.model, **options), molecule, version))

    def evaluate(
        self,
        calculation: Any,
        fock: Any = None,
        overlap: Any = None,
        *,
        ao_order: str = "pyscf",
        energy_unit: EnergyUnit = "hartree",
        **options: Unpack[Options],
    ) -> Evaluation:
        """How far the prediction is from your own converged matrix: ``client.evaluate(mf)``.

        Args:
            calculation: a PySCF calculation that has run, which says everything; or a molecule as in :meth:`guess`, with
            fock: its converged Fock (Kohn-Sham) matrix, (ao, ao), and
            overlap: the overlap in the same order, by which basis and order are checked. Left out, less can be told.
            ao_order: of the matrices: pyscf, e3nn, openmx, siesta, abacus, gpaw, orca.
            energy_unit: of the matrix and of the answer, "hartree" or "eV".
            options: as in :meth:`guess`.

        Raises:
            InvalidInputError: the calculation has not run, or is no closed shell.
            UnsupportedError: the matrix does not fit; the text says which order, unit or basis would.
        """
        return self._transport.run(
            talks.evaluation_of(
                self.model, calculation, fock, overlap, ao_order=ao_order, energy_unit=energy_unit, options=options
            )
        )

    def models(self) -> list[dict[str, Any]]:
        """The cards of the loaded checkpoints, as the server describes them."""
        return self._transport.run(talks.models())

    # -- structure files --------------------------------------------------------------------------------------------

    def guess_file(
        self, name: str, content: bytes, *, format_out: str, options: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a structure file and return the guess as the server wrote it (chk, npz, molden, cube ...).

        Args:
            name: file name; its suffix tells the format unless ``options`` has a ``format``.
            content: the bytes of the file.
            format_out: the format of the answer.
            options: form fields such as charge, multiplicity, xc, basis, format.
        """
        return self._transport.run(
            talks.send_file("/v1/initial-guess", name, content, options, self.model, format_out=format_out)
        )

    def levels_of_file(
        self, what: str, name: str, content: bytes, *, format_out: str, options: Mapping[str, str] | None = None
    ) -> Answer:
        """Bands or density of states of the crystal in a structure file, as the server wrote them.

        Args:
            what: "bands" or "dos".
            name, content: as of :meth:`guess_file`.
            format_out: png, svg, json, npz or safetensors.
            options: form fields such as path, npoints, kmesh, window_ev ("-5,5"), sigma_ev, format.
        """
        return self._transport.run(
            talks.send_file(f"/v1/{what}", name, content, options, self.model, format_out=format_out)
        )

    def orbital_energies_of_file(
        self, name: str, content: bytes, *, unit: EnergyUnit = "hartree", options: Mapping[str, str] | None = None
    ) -> OrbitalEnergies:
        """Orbital energies of the molecule in a structure file; arguments as in :meth:`guess_file`."""
        return self._transport.run(talks.energies_of_file(name, content, options, self.model, unit))

    def submit_file(
        self, name: str, content: bytes, *, format_out: str, options: Mapping[str, str] | None = None
    ) -> FileJob:
        """A job for the guess of a structure file that is too large to wait for; arguments as in :meth:`guess_file`."""
        job_id = self._transport.run(talks.submit_file(name, content, options, self.model, format_out))
        return FileJob(self._transport, job_id)

    def file_job(self, job_id: str) -> FileJob:
        """A job that was submitted before, by its id; nothing is sent."""
        return FileJob(self._transport, job_id)
