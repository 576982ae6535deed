"""The table [optimiser] of a run file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from training.tables import Fraction

Inside = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class OptimiserConfig:
    """Optimiser with warm-up, decay, clipping and an exponential moving average of the weights.

    Attributes:
        kind: "adamw", or "muon" for the weight matrices and AdamW for the rest.
        muon_rate: learning rate of the matrices, relative to ``learning_rate``.
        steps: length of the run.
        batch_blocks: a batch holds molecules up to this many blocks (diagonal + pair); cost, not count.
        batch_molecules: and at most so many molecules (0: no such limit).
        schedule: of the decay, "cosine" or "linear" (polynomial of power 1, as published for molecules); "slippery_slope" or
            "plateau", as published for crystals (``schedule``).
        betas: of Adam's two moments.
        learning_rate, final_learning_rate: after warm-up and at the end.
        warmup_steps: linear warm-up.
        weight_decay: decoupled.
        clip_norm: largest gradient norm.
        ema_decay: of the average; the first steps use a shorter memory.
        rate_factor, slope_start, slope_every: of the slippery slope, in steps; the factor is the plateau's too.
        plateau_patience, plateau_cooldown, plateau_threshold, plateau_smoothing: of the plateau, in validations.
        revert_after, revert_above, revert_factor: when weights go back to the best ones; after 0 validations: never.
    """

    steps: NonNegativeInt
    batch_blocks: PositiveInt = 700
    learning_rate: PositiveFloat = 2e-3
    final_learning_rate: NonNegativeFloat = 1e-5
    warmup_steps: NonNegativeInt = 300
    weight_decay: NonNegativeFloat = 1e-3
    clip_norm: PositiveFloat = 5.0
    ema_decay: Fraction = 0.999
    batch_molecules: NonNegativeInt = 0
    schedule: Literal["cosine", "linear", "slippery_slope", "plateau"] = "cosine"
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    kind: Literal["adamw", "muon"] = "adamw"
    muon_rate: PositiveFloat = 2.0
    rate_factor: Inside = 0.5
    slope_start: NonNegativeInt = 0
    slope_every: PositiveInt = 1
    plateau_patience: NonNegativeInt = 120
    plateau_cooldown: NonNegativeInt = 40
    plateau_threshold: Inside = 0.05
    plateau_smoothing: Inside = 0.1
    revert_after: NonNegativeInt = 0
    revert_above: PositiveFloat = 2.0
    revert_factor: Inside = 0.8
