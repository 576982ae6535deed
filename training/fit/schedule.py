"""Learning rates that DeepH-E3 is trained with: a plateau, the steps of a slippery slope, and the way back to the best.

    slippery_slope   the rate times rate_factor at step slope_start and every slope_every steps from there on
    plateau          times rate_factor when the validation loss, smoothed, has not fallen by plateau_threshold of itself for
                     plateau_patience validations; then none for plateau_cooldown
    both             the run ends where the rate would fall below final_learning_rate
    revert           weights of the best validation, and the rate times revert_factor, after revert_after validations in a
                     row whose loss was more than revert_above times the best

The validation loss is the mean square error of H. Source: DeepH-E3 (arXiv:2210.13955) and its code's defaults.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from training.fit.config import OptimiserConfig
from training.fit.optimiser import learning_rate

ENDING: Final = ("slippery_slope", "plateau")
"""Schedules that end a run when the rate is spent."""
PLATEAU_STATE: Final = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")


class RateControl:
    """The learning rate of a run, whatever its schedule, and what validations do to it.

    Args:
        config: of the optimiser.
    """

    def __init__(self, config: OptimiserConfig) -> None:
        self.config = config
        self.factor = 1.0
        """Of the scheduled rate, by reverts."""
        self.smoothed: float | None = None
        self.best = math.inf
        self.above = 0
        """Validations in a row that were far above the best."""
        self._carrier = torch.optim.SGD([torch.zeros(())], lr=config.learning_rate)
        self._plateau = ReduceLROnPlateau(
            self._carrier,
            factor=config.rate_factor,
            patience=config.plateau_patience,
            cooldown=config.plateau_cooldown,
            threshold=config.plateau_threshold,
        )

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        config = self.config
        if config.schedule == "plateau" and step >= config.warmup_steps:
            return self.factor * float(self._carrier.param_groups[0]["lr"])
        return self.factor * learning_rate(step, config)

    def is_spent(self, step: int) -> bool:
        """Whether the run ends before this step."""
        return self.config.schedule in ENDING and step >= self.config.warmup_steps and (
            self.rate(step) < self.config.final_learning_rate
        )  # fmt: skip

    def after_validation(self, loss: float) -> bool:
        """Take a validation loss in.

        Returns:
            whether the run goes back to its best weights.
        """
        config = self.config
        last = self.smoothed
        self.smoothed = (
            loss if last is None else config.plateau_smoothing * loss + (1 - config.plateau_smoothing) * last
        )
        if config.schedule == "plateau":
            self._plateau.step(self.smoothed)
        self.above = self.above + 1 if loss > config.revert_above * self.best else 0
        self.best = min(self.best, loss)
        if not config.revert_after or self.above < config.revert_after:
            return False
        self.factor *= config.revert_factor
        self.above = 0
        return True

    def state(self) -> dict[str, Any]:
        """All that changes, JSON-able."""
        plateau = self._plateau.state_dict()
        return {
            **{name: getattr(self, name) for name in ("factor", "smoothed", "best", "above")},
            "rate": self._carrier.param_groups[0]["lr"],
            "plateau": {name: plateau[name] for name in PLATEAU_STATE},
        }

    def take(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        for name in ("factor", "smoothed", "best", "above"):
            setattr(self, name, state[name])
        self._carrier.param_groups[0]["lr"] = state["rate"]
        self._plateau.load_state_dict({**self._plateau.state_dict(), **state["plateau"]})
