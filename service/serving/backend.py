"""What runs a model: the seam between the service and whatever computes, here or elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from model.structure import Structure

if TYPE_CHECKING:
    from model.predictor import CrystalPrediction, Prediction

T = TypeVar("T")


class Report(Protocol):
    """Told how far a structure is, from any thread. It raises ``CancelledError`` once nobody wants the answer any more."""

    def __call__(self, stage: str, done: int = 0, of: int = 0, /) -> None:
        """A stage begins, or has done so many of its steps (k-points)."""


@dataclass(frozen=True)
class Predicted:
    """A prediction with what the queue knows about it.

    Attributes:
        prediction: the model's answer.
        queue_ms: milliseconds in the queue of the device.
        batch_size: structures in the same forward pass.
        cached: whether it was made for an earlier request.
    """

    prediction: Prediction | CrystalPrediction
    queue_ms: float = 0.0
    batch_size: int = 1
    cached: bool = False


class Backend(Protocol):
    """One model's predictions."""

    @property
    def unfinished(self) -> int:
        """Predictions that run or wait."""

    @property
    def healthy(self) -> bool:
        """False once the device has failed for good."""

    async def predict(
        self,
        structure: Structure,
        *,
        orbitals: bool,
        patient: bool = False,
        on_stage: Report | None = None,
        n_orbitals: int = 0,
        time_left_s: float | None = None,
    ) -> Predicted:
        """Predict one structure.

        Cancelling the caller takes a structure out of whatever it waits for; a step that runs already runs to its end.

        Args:
            structure: has passed the model's check.
            orbitals: also diagonalise, and make and check the guess; nothing of the kind is done for crystals.
            patient: wait for a place instead of being refused. Patient callers (batches, jobs) leave half of the queue to
                the others.
            on_stage: told "integrals", "forward" and "eigensolve" when they begin (or begin to wait for their turn).
            n_orbitals: of the structure, by which its time is foreseen; 0 where nobody knows.
            time_left_s: seconds until nobody waits for it any more; None where somebody always does.

        Raises:
            ServiceError: ``queue_full``, also for one that would come too late; ``draining``.
            ModelError: what the model raises.
        """

    async def study(self, function: Callable[..., T], *arguments: Any, patient: bool = False, dear: bool = False) -> T:
        """Work on a finished prediction, in the threads of the eigensolves; it takes a place as a prediction does.

        Args:
            function: what to do, in a thread.
            arguments: of it.
            patient: as of :meth:`predict`.
            dear: it may take seconds, so it waits for a turn among large structures.

        Raises:
            ServiceError: ``queue_full``, ``draining``; and what the function raises.
        """

    def close(self) -> None:
        """Refuse new predictions, finish the accepted ones, end; from any thread but the event loop's."""
