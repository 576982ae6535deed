"""A loaded model: a checkpoint that passed its checks, and what runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from service.schemas.models import CheckpointIdentity, CheckReport
from service.serving.backend import Backend

if TYPE_CHECKING:
    from model.predictor import Predictor


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A verified and warmed-up checkpoint with what runs it.

    Attributes:
        name: of the checkpoint.
        predictor: the model.
        backend: runs its predictions; to be used under a lease (``Registry.leased``).
        checks: what it passed.
        fingerprint: of the checkpoint's files, to see whether they have changed.
        loaded_at: when.
    """

    name: str
    predictor: Predictor
    backend: Backend
    checks: tuple[CheckReport, ...] = ()
    fingerprint: str | None = None
    loaded_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def identity(self) -> CheckpointIdentity:
        """Which checkpoint it is."""
        card = self.predictor.card
        return CheckpointIdentity(name=self.name, version=card.version, sha256=card.weights_sha256)
