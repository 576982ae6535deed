"""The client: a molecule in, what the server predicts for it out, as numpy arrays in PySCF's orbital order.

client = Client("http://127.0.0.1:8000")
mf.kernel(dm0=client.density_matrix(mol))      # or, with checks and a fallback:  client.attach(mf).kernel()
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from tracegrad_client import matrices
from tracegrad_client.ask import Ask, Options
from tracegrad_client.batch import Outcome, request_guesses
from tracegrad_client.crystal_calls import CrystalCalls
from tracegrad_client.energies import EnergyUnit, OrbitalEnergies, check_unit, read_energies
from tracegrad_client.errors import InvalidAnswerError
from tracegrad_client.guess import Guess, guess_for
from tracegrad_client.job import GuessJob
from tracegrad_client.structure import Molecule
from tracegrad_client.transport import Answer, Transport
from tracegrad_client.wire import MEDIA_TYPE, Tensors, read_safetensors

DEFAULT_URL: Final = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_S: Final = 60.0
SAFETENSORS: Final = {"format_out": "safetensors"}

MeanField = TypeVar("MeanField")


class Client(CrystalCalls):
    """Talks to one TraceGrad server. Thread-safe; may be copied, deep-copied and pickled with a mean-field object.

    Args:
        base_url: where the server is; None takes the environment's ``TRACEGRAD_URL``, else ``DEFAULT_URL``.
        timeout: seconds for one whole request.
        api_key: needed only where the server has keys configured; None takes the environment's ``TRACEGRAD_API_KEY``, but
            only where the URL comes from there too or is the default: a key is for one server.
        model: the name of a checkpoint; None takes the server's default for molecules.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        api_key: str | None = None,
        model: str | None = None,
    ) -> None:
        if base_url is None:
            base_url = os.environ.get("TRACEGRAD_URL") or DEFAULT_URL
            api_key = api_key or os.environ.get("TRACEGRAD_API_KEY") or None
        self.model = model
        self._arguments = {"base_url": base_url, "timeout": timeout, "api_key": api_key, "model": model}
        self._transport = Transport(base_url, timeout=timeout, api_key=api_key)

    @property
    def base_url(self) -> str:
        """Where the server is."""
        return self._transport.base_url

    def __repr__(self) -> str:
        return f"Client({self.base_url!r}, timeout={self._transport.timeout:g}, model={self.model!r})"

    def __getstate__(self) -> dict[str, Any]:
        return self._arguments  # open connections cannot be copied; each copy opens its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        Client.__init__(self, **state)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    # -- what a calculation needs -----------------------------------------------------------------------------------

    def guess(self, molecule: Any, **options: Unpack[Options]) -> Guess:
        """The starting point of an SCF.

        Args:
            molecule: a PySCF Mole, an ase.Atoms, or (numbers, positions in Å).
            options: charge, multiplicity, xc, basis; see :class:`tracegrad_client.ask.Options`. The server warns about
                another functional and another basis. A Mole's basis is checked here in any case.

        Raises:
            TraceGradError: one of its leaves; GuessMismatchError where the Mole is not in the guess's basis.
        """
        started = time.perf_counter()
        ask = Ask(self.model, **options)
        sent = ask.molecule(molecule)
        tensors = self._tensors("/v1/initial-guess", ask.body(sent))
        return guess_for(molecule, tensors, sent, time.perf_counter() - started)

    def guesses(self, molecules: Sequence[Any], **options: Unpack[Options]) -> list[Outcome]:
        """Starting points of many molecules in few requests, which the server computes together.

        Args:
            molecules: each as in :meth:`guess`.
            options: as in :meth:`guess`; charge and multiplicity of all that do not say so themselves.

        Returns:
            in the order of the molecules, the Guess of each or the TraceGradError that says why there is none; one
            molecule's error takes nothing from the others.

        Raises:
            TraceGradError: a request as a whole failed.
        """
        return request_guesses(self._transport, molecules, Ask(self.model, **options))

    def submit(self, molecule: Any, **options: Unpack[Options]) -> GuessJob:
        """Ask for the starting point of a molecule that is too large to wait for: ``client.submit(mol).wait()``.

        Arguments and errors are those of :meth:`guess`. The server keeps the job over a restart of its own.
        """
        ask = Ask(self.model, **options)
        sent = ask.molecule(molecule)
        document = self._transport.request(
            "POST", "/v1/jobs", payload=ask.body(sent, kind="initial-guess"), params=SAFETENSORS
        ).json()
        return GuessJob(self._transport, str(document.get("id")), sent, molecule)

    def job(self, job_id: str, molecule: Any, **options: Unpack[Options]) -> GuessJob:
        """A job that was submitted before, by its id; ``molecule`` and ``options`` are what was sent."""
        return GuessJob(self._transport, job_id, Ask(self.model, **options).molecule(molecule), molecule)

    def density_matrix(self, molecule: Any, **options: Unpack[Options]) -> NDArray[np.float64]:
        """The guess's density matrix, shape (ao, ao), for ``mf.kernel(dm0=client.density_matrix(mol))``.

        Where PySCF is loaded the array carries ``mo_coeff`` and ``mo_occ``, with which PySCF evaluates the first
        exchange-correlation potential faster. Options and errors are those of :meth:`guess`.
        """
        guess = self.guess(molecule, **options)
        if "pyscf" not in sys.modules:
            return guess.density_matrix
        from tracegrad_client.adapters.pyscf import tagged_density

        return tagged_density(guess)

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
        ask = Ask(self.model, **options)
        tensors = self._tensors("/v1/predict", ask.body(ask.molecule(molecule), outputs=matrices.OUTPUTS))
        return matrices.read_matrices(tensors, molecule)

    def orbital_energies(
        self, molecule: Any, *, unit: EnergyUnit = "hartree", **options: Unpack[Options]
    ) -> OrbitalEnergies:
        """Predicted orbital energies, with HOMO, LUMO and gap as attributes; ``unit`` is "hartree" or "eV".

        Options and errors are those of :meth:`guess`.
        """
        check_unit(unit)
        ask = Ask(self.model, **options)
        body = ask.body(ask.molecule(molecule), outputs=["orbital_energies"])
        return read_energies(self._transport.request("POST", "/v1/predict", payload=body), unit)

    def models(self) -> list[dict[str, Any]]:
        """The cards of the loaded checkpoints, as the server describes them."""
        document = self._transport.request("GET", "/v1/models").json()
        cards = document.get("models")
        if not isinstance(cards, list) or not all(isinstance(card, dict) for card in cards):
            raise InvalidAnswerError("The list of models is not a list of cards.")
        return cards

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
        return self._send_file("/v1/initial-guess", name, content, options, {"format_out": format_out}, accept="*/*")

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
        return self._send_file(f"/v1/{what}", name, content, options, {"format_out": format_out}, accept="*/*")

    def orbital_energies_of_file(
        self, name: str, content: bytes, *, unit: EnergyUnit = "hartree", options: Mapping[str, str] | None = None
    ) -> OrbitalEnergies:
        """Orbital energies of the molecule in a structure file; arguments as in :meth:`guess_file`."""
        check_unit(unit)
        return read_energies(self._send_file("/v1/predict", name, content, options, {}), unit)

    def _send_file(
        self,
        path: str,
        name: str,
        content: bytes,
        options: Mapping[str, str] | None,
        params: Mapping[str, str],
        accept: str = "application/json",
    ) -> Answer:
        form = dict(options or {})
        if self.model is not None:
            form.setdefault("model", self.model)
        return self._transport.request(
            "POST", path, accept=accept, params=params, files={"file": (name, content)}, form=form
        )

    def _tensors(self, path: str, body: Mapping[str, Any]) -> Tensors:
        answer = self._transport.request("POST", path, accept=MEDIA_TYPE, payload=body, params=SAFETENSORS)
        return read_safetensors(answer.body)

    def _structure_of_cell(self, cell: Any) -> Molecule:
        from tracegrad_client.adapters.pyscf import structure_of_cell

        return structure_of_cell(cell)
