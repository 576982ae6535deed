"""How a network of two stages is trained: the table [stages] of a run file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.tables import Share


@dataclass(frozen=True)
class StagesConfig:
    """How a network with a second stage is trained.

    Attributes:
        train: "second", the first stage stays as ``start_from`` has it; or "both".
        augmentation: rotated copies of the training batches, for a faithful second stage: "none"; "published", small and then
            stronger rotations that change slowly; "full", any rotation.
        augment_from: share of the run's steps after which batches are rotated.
        strong_from: share after which published rotations are stronger.
    """

    train: Literal["second", "both"] = "second"
    augmentation: Literal["none", "published", "full"] = "none"
    augment_from: Share = 0.6
    strong_from: Share = 0.7

    def rules(self, mode: str, *, has_start: bool, looks_at_orbitals: bool) -> list[tuple[bool, str]]:
        """What must hold, and what to say if it does not.

        Args:
            mode: of the network's second stage.
            has_start: whether the run starts from weights.
            looks_at_orbitals: whether its loss has terms besides those of blocks.
        """
        turns = self.augmentation != "none"
        return [
            (mode != "none" or self == StagesConfig(), "[stages] is for a network with [network.second_stage]"),
            (
                mode == "none" or self.train != "second" or has_start,
                '[stages] train = "second" keeps a first stage as it was trained: name its checkpoint or run in '
                '[run] start_from, or set train = "both"',
            ),
            (
                mode in ("none", "faithful") or not turns,
                "[stages] augmentation is for a faithful second stage; an exact one knows how to turn",
            ),
            (
                not turns or not looks_at_orbitals,
                "[stages] augmentation turns blocks, and not what [loss] guess, spectral and bands look at: set them to 0",
            ),
        ]
