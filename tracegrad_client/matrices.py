"""The predicted Hamiltonian and the overlap, read from an answer of ``/v1/predict``."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tracegrad_client.errors import GuessMismatchError
from tracegrad_client.structure import ao_labels, is_mole
from tracegrad_client.wire import Tensors

OUTPUTS: Final = ("hamiltonian", "overlap")


def read_matrices(answer: Tensors, asked: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """H (hartree) and S, both of shape (ao, ao), in PySCF's order.

    Args:
        answer: arrays named as in ``OUTPUTS``.
        asked: the caller's molecule; the labels of a PySCF Mole must be those of the answer.

    Raises:
        InvalidAnswerError: labels or matrices are missing, or do not fit each other.
        GuessMismatchError: the matrices are for another basis set than the Mole's.
    """
    labels = answer.ao_labels()
    hamiltonian, overlap = (answer.float64(name, (len(labels), len(labels))) for name in OUTPUTS)
    if is_mole(asked) and ao_labels(asked) != labels:
        raise GuessMismatchError("The matrices are for another basis set than the Mole's.")
    return hamiltonian, overlap
