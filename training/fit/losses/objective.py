"""The loss of a run: its terms and their sum, and what validation measures.

    L = L_Q + (trace term, balanced),    L_Q = mean over the structures of sum over terms of weight * value

A term whose weight is 0 for the whole run is left out, with all that it would need of the labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from model.hamiltonian_model import HamiltonianModel, ModelOutput
from training.fit.config import LossConfig
from training.fit.losses.bands import BandsTerm
from training.fit.losses.blocks import BlocksTerm
from training.fit.losses.density import DensityTerm
from training.fit.losses.errors import Assembler, BatchErrors
from training.fit.losses.guess import GuessTerm
from training.fit.losses.spectral import SpectralTerm
from training.fit.losses.term import Term
from training.fit.losses.trace import TraceTerm
from training.fit.ranks import Part
from training.fit.samples import Batch


def terms_of(config: LossConfig) -> tuple[Term, ...]:
    """The terms that a run's loss has at some time; the blocks term is always one."""
    candidates: tuple[tuple[float, Term], ...] = (
        (config.guess, GuessTerm(config.guess, config.guess_from)),
        (config.spectral, SpectralTerm(config.spectral, config.spectral_from)),
        (config.bands, BandsTerm(config.bands, config.bands_from, config.bands_damping)),
        (config.density, DensityTerm(config.density, config.density_from, config.bands_damping)),
    )
    return (
        BlocksTerm(config.mae, config.rmse, config.mse),
        *(term for strength, term in candidates if strength),
    )


def measured_terms(*, molecular: bool, loss: LossConfig | None = None) -> tuple[Term, ...]:
    """The terms whose measures validation reports, whatever the loss is.

    Args:
        molecular: all labels are closed-shell molecules: their orbitals are looked at.
        loss: of the run; if it looks at bands or densities of crystals, so does validation.
    """
    crystals = LossConfig(guess=0.0) if loss is None else replace(loss, guess=0.0, spectral=0.0)
    return terms_of(LossConfig(guess=1.0, spectral=1.0) if molecular else crystals)


@dataclass(frozen=True, eq=False)
class Objective:
    """The loss of a run.

    Attributes:
        model: whose blocks are judged; on the device.
        terms: of the loss.
        trace: TraceGrad's term; None if the network says no trace, or its weight is 0.
    """

    model: HamiltonianModel
    terms: Sequence[Term]
    trace: TraceTerm | None

    @classmethod
    def of(cls, model: HamiltonianModel, config: LossConfig) -> Objective:
        """The loss that a run file asks for."""
        with_trace = model.network.has_trace_head and config.trace > 0
        trace = TraceTerm(config.trace, config.trace_ramp_steps) if with_trace else None
        return cls(model, terms_of(config), trace)

    @cached_property
    def _assembler(self) -> Assembler:
        device = self.model.network.element_index.device
        return Assembler(self.model.space, self.model.block_space).to(device)

    def predict(self, batch: Batch, model: HamiltonianModel | None = None) -> ModelOutput:
        """The model's (or a compiled model's) output, with the trace if it is in the loss."""
        return (model or self.model)(batch.graph, batch.inputs, with_trace=self.trace is not None)

    def errors(self, batch: Batch, blocks: Tensor) -> BatchErrors:
        """The error of predicted blocks (item, component, row, column), hartree."""
        expansion = self.model.standardisation.expansion.to(batch.target.dtype)
        label = (batch.target @ expansion.T).view_as(blocks)
        return BatchErrors(self._assembler, blocks - label, batch.graph, batch.partner, batch.extras)

    def __call__(
        self,
        batch: Batch,
        step: int,
        progress: float = 1.0,
        model: HamiltonianModel | None = None,
        part: Part | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """Total loss of a batch and its parts, which are read from the device; arguments as in :meth:`total`.

        Of a process's part of a batch the total is a part too, for its gradient; what stands in the numbers is the whole.
        """
        total, measures = self.total(batch, step, progress, model, part)
        means = {name: value.detach().mean() for name, value in measures.items()}
        if part is not None:
            means = {name: part.structures(mean) if measures[name].ndim else mean for name, mean in means.items()}
        summed = torch.stack([*means.values(), total.detach()])
        values = (summed if part is None else part.ranks.sum(summed)).tolist()  # one wait for the device
        return total, dict(zip([*means, "loss"], values, strict=True))

    def total(
        self,
        batch: Batch,
        step: int,
        progress: float = 1.0,
        model: HamiltonianModel | None = None,
        part: Part | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss of a batch, and what its terms report of each structure; nothing is read from the device.

        Args:
            batch: samples that hold what the terms need.
            step: of the run.
            progress: share of the run that is done, for terms that enter late.
            model: a compiled form of the model; None for the model itself.
            part: which part of a step's batch this is, where several processes share it; the total, and what is reported
                of the trace, are then this part's contributions.
        """
        output = self.predict(batch, model)
        errors = self.errors(batch, output.blocks)
        values = [weight * term(errors) for term in self.terms if (weight := term.weight(progress)) > 0.0]
        total = torch.stack(values).sum(dim=0).mean()
        if part is not None:
            total = part.structures(total)
        with torch.no_grad():
            measures = self.measures(errors)
        if self.trace is not None and output.network.trace is not None:
            error = self.trace.error(self.model, batch, output.network.trace)
            if part is None:
                total = self.trace.add_to(total, error, step)
            else:
                error = part.blocks(error)
                total = self.trace.add_to(total, error, step, part.ranks.sum)
            measures["trace"] = error.detach()
        return total, measures

    def measures(self, errors: BatchErrors, terms: Sequence[Term] | None = None) -> dict[str, Tensor]:
        """What the terms, or other ones, report of each structure."""
        found: dict[str, Any] = {}
        for term in self.terms if terms is None else terms:
            found |= term.measures(errors)
        return found


def summarise(measures: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """Means over all structures of several batches, and the worst density."""
    batches = list(measures)
    joined = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    values = {name: float(value.mean()) for name, value in joined.items()}
    if "density" in joined:
        values["density_max"] = float(joined["density"].max())
    return values
