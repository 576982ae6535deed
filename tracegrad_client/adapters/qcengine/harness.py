"""The harness by which QCEngine asks for a guess: orbitals, density and Fock matrix as a QCSchema wavefunction, no energy."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from qcelemental.models.v2 import AtomicInput, AtomicResult
from qcengine.config import TaskConfig
from qcengine.exceptions import InputError, RandomError
from qcengine.programs import register_program
from qcengine.programs.base import programs
from qcengine.programs.model import ProgramHarness

from tracegrad_client.client import Client
from tracegrad_client.errors import InvalidInputError, RequestRefusedError, TraceGradError
from tracegrad_client.version import installed_version

NAME: Final = "TraceGrad"
_KEYWORDS: Final = frozenset({"url", "timeout", "max_wait"})


class TraceGradHarness(ProgramHarness):  # type: ignore[misc]
    """Asks a TraceGrad server for the starting point of an SCF; the driver is ``properties``.

    ``model.method`` is the name of a loaded model, or a functional, by which the server chooses one; ``model.basis`` may be
    left out, and is refused where the answer is in another one. ``keywords`` may hold ``url`` (default: the environment's
    TRACEGRAD_URL), ``timeout`` and ``max_wait``, seconds. The wavefunction comes with ``protocols={"wavefunction": "all"}``.
    """

    _defaults: ClassVar[dict[str, Any]] = {
        "name": NAME,
        "scratch": False,
        "thread_safe": True,
        "thread_parallel": False,
        "node_parallel": False,
        "managed_memory": False,
    }

    @staticmethod
    def found(raise_error: bool = False) -> bool:
        """The client is here; whether the server is, is for the computation to find out."""
        return True

    def get_version(self) -> str:
        """Version of the client."""
        return installed_version()

    def compute(self, input_data: AtomicInput, config: TaskConfig) -> AtomicResult:
        """The guess as an AtomicResult.

        Raises:
            InputError: another driver, unknown keywords, another basis, or what the server refuses.
            RandomError: the server is not there, or failed; the same may succeed later.
        """
        specification = input_data.specification
        if specification.driver != "properties":
            raise InputError(f"The driver is {specification.driver}; a guess has no energy: ask for 'properties'.")
        keywords = dict(specification.keywords)
        if unknown := set(keywords) - _KEYWORDS:
            raise InputError(
                f"Unknown keywords: {', '.join(sorted(unknown))}; known are {', '.join(sorted(_KEYWORDS))}."
            )
        basis = specification.model.basis
        if basis is not None and not isinstance(basis, str):
            raise InputError("The basis is a set of functions; name it, or leave it out.")
        try:
            with Client(keywords.pop("url", None), **keywords) as client:
                method = specification.model.method
                named = method in [card.get("name") for card in client.models()]
                client.model = method if named else None
                document = client.qcschema(input_data.molecule, xc=None if named else method, basis=basis)
        except (InvalidInputError, RequestRefusedError, ValueError) as error:
            raise InputError(str(error)) from error
        except TraceGradError as error:
            raise RandomError(str(error)) from error
        answered = document["input_data"]["specification"]["model"]["basis"]
        if basis is not None and _plain(basis) != _plain(answered):
            raise InputError(f"No loaded model has the basis {basis}; the nearest one has {answered}.")
        # what was asked is the caller's own; the matrices belong to its molecule as it is
        asked = input_data.model_dump()
        return AtomicResult(**{**document, "input_data": asked, "molecule": asked["molecule"]})


def _plain(name: str) -> str:
    """A basis's name as PySCF compares them."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def register() -> None:
    """Make ``tracegrad`` a program of QCEngine's; once is enough, and more does no harm."""
    if NAME.lower() not in programs:
        register_program(TraceGradHarness())
