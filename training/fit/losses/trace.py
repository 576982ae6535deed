"""TraceGrad's trace labels (Eq. 7 and 8): the only term that is not of H itself, and the only one that is balanced.

    L = L_Q + lambda * mu * L_T,    mu = stopgrad(L_Q / L_T),    L_T = mean |T_hat - T| over all blocks and shell pairs

with L_Q the sum of all other terms. lambda grows linearly from 0 over the first steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.hamiltonian_model import HamiltonianModel
from model.tracegrad.trace import trace_labels
from training.fit.samples import Batch


@dataclass(frozen=True)
class TraceTerm:
    """The term.

    Attributes:
        strength: lambda.
        ramp_steps: steps over which lambda grows from 0.
    """

    strength: float
    ramp_steps: int

    def error(self, model: HamiltonianModel, batch: Batch, predicted: Tensor) -> Tensor:
        """L_T of predicted labels (block, label)."""
        network = model.network
        kind = network.config.tracegrad.labels
        target = batch.target
        if kind == "log":
            n_atoms = batch.graph.n_atoms
            parts = model.standardisation.target(target[:n_atoms], target[n_atoms:], *network.types(batch.graph))
            target = torch.cat(parts)
        labels = trace_labels(target, network.shell_pair, predicted.shape[1], kind)
        return (predicted - labels).abs().mean()

    def add_to(
        self, others: Tensor, error: Tensor, step: int, whole: Callable[[Tensor], Tensor] = lambda part: part
    ) -> Tensor:
        """The loss with this term.

        Args:
            others: L_Q.
            error: L_T.
            step: of the run.
            whole: makes the batch's of either, for mu, where these are a process's parts of it.
        """
        ramp = min(1.0, step / max(1, self.ramp_steps))
        return others + ramp * self.strength * (whole(others) / whole(error)).detach() * error
