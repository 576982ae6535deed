"""TraceGrad client: a predicted density matrix as the starting point of a DFT calculation.

    from tracegrad_client import Client
    Client().attach(mf).kernel()

Needs numpy and httpx; PySCF is used only where the caller has it already (``tracegrad_client.adapters.pyscf``).
"""

from tracegrad_client.async_client import AsyncClient
from tracegrad_client.client import Client
from tracegrad_client.crystal import Crystal
from tracegrad_client.crystal_guess import CrystalGuess
from tracegrad_client.energies import OrbitalEnergies
from tracegrad_client.errors import (
    AuthenticationError,
    DeadlineExceededError,
    GuessMismatchError,
    InvalidAnswerError,
    InvalidInputError,
    NotFoundError,
    QuotaExceededError,
    RequestRefusedError,
    RequestTimeoutError,
    ServerBusyError,
    ServerFailureError,
    ServerUnreachableError,
    TooLargeError,
    TraceGradError,
    TraceGradWarning,
    UnsupportedError,
)
from tracegrad_client.evaluation import Evaluation
from tracegrad_client.guess import Guess
from tracegrad_client.job import AsyncGuessJob, FileJob, GuessJob, JobState
from tracegrad_client.levels import BandStructure, DensityOfStates
from tracegrad_client.structure_file import StructureFile

__all__ = [
    "AsyncClient",
    "AsyncGuessJob",
    "AuthenticationError",
    "BandStructure",
    "Client",
    "Crystal",
    "CrystalGuess",
    "DeadlineExceededError",
    "DensityOfStates",
    "Evaluation",
    "FileJob",
    "Guess",
    "GuessJob",
    "GuessMismatchError",
    "InvalidAnswerError",
    "InvalidInputError",
    "JobState",
    "NotFoundError",
    "OrbitalEnergies",
    "QuotaExceededError",
    "RequestRefusedError",
    "RequestTimeoutError",
    "ServerBusyError",
    "ServerFailureError",
    "ServerUnreachableError",
    "StructureFile",
    "TooLargeError",
    "TraceGradError",
    "TraceGradWarning",
    "UnsupportedError",
]
