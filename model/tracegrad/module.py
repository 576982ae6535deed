"""TraceGrad after one backbone block: non-linear invariants z of the features f, and their gradient v added to f.

f + alpha * (|f| / |v|) * v        ("norm_scaled": NextHAM's form; the norm ratio is detached)
f + alpha * v                      ("plain": the paper's, with alpha = 1 at the start)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.errors import CheckpointError
from model.nn.irreps import Layout, RaggedLayout
from model.nn.so2 import SectorLayout, Sectors, sum_of_squares
from model.tracegrad import ragged_gradient
from model.tracegrad.config import TraceGradConfig
from model.tracegrad.full_contraction import FullScalars, RaggedFullScalars
from model.tracegrad.gradient import GradientFeature
from model.tracegrad.invariants import Invariants, RaggedScalars, SectorScalars, SelfProductScalars


class TraceGradModule(nn.Module):
    """z, and v added to the features.

    Args:
        layout: of the features: a ``Layout`` for one tensor (item, component, channel), a ``RaggedLayout`` for one an
            irrep, a ``SectorLayout`` for features in bond frames.
        channels: of a ``Layout``.
        config: what of TraceGrad is used.
    """

    def __init__(self, layout: Layout | RaggedLayout | SectorLayout, channels: int, config: TraceGradConfig) -> None:
        super().__init__()
        self.config = config
        invariants = _invariants(layout, channels, config)
        self.gradient = GradientFeature(
            invariants, invariants.n_invariants, config.hidden, config.n_scalars, affine=config.affine
        )
        self.strength = nn.Parameter(torch.tensor(0.2 if config.residual == "norm_scaled" else 1.0))

    def forward(self, features: Sectors) -> tuple[Tensor, Sectors]:
        """Features, a tuple as their layout says -> z and the new features."""
        made = self._by_kernel(features)
        if made is not None:
            return made
        z, v = self.gradient(features)
        if self.config.mode == "trace":
            return z, features
        strength = self._strength(features, v)
        return z, tuple(torch.addcmul(part, change, strength) for part, change in zip(features, v, strict=True))

    def _by_kernel(self, features: Sectors) -> tuple[Tensor, Sectors] | None:
        """The same in one pass, of features and on machines that allow it."""
        invariants = self.gradient.invariants
        if self.config.mode == "trace" or not isinstance(invariants, RaggedScalars):
            return None
        library = ragged_gradient.library_for(features)
        if library is None:
            return None
        return ragged_gradient.gradient_added(
            library,
            features,
            invariants.scaled_weights(),
            self.gradient.network(),
            self.strength,
            norm_scaled=self.config.residual == "norm_scaled",
        )

    def _strength(self, features: Sectors, v: Sectors) -> Tensor:
        """Factor of v, (item, 1, 1) or a scalar."""
        if self.config.residual == "plain":
            return self.strength
        own, change = (sum_of_squares(tuple(part.detach() for part in parts)) for parts in (features, v))
        count = sum(part.shape[1] * part.shape[2] for part in features)
        return self.strength * (own / (change + 1e-12 * count)).sqrt()[:, None, None]


def _invariants(layout: Layout | RaggedLayout | SectorLayout, channels: int, config: TraceGradConfig) -> Invariants:
    if isinstance(layout, RaggedLayout):
        return (
            RaggedFullScalars(layout, config.rank)
            if config.contraction == "full"
            else RaggedScalars(layout, config.rank)
        )
    if not isinstance(layout, SectorLayout):
        kind = FullScalars if config.contraction == "full" else SelfProductScalars
        return kind(layout, channels, config.rank)
    if config.contraction == "full":
        raise CheckpointError(
            "TraceGrad contraction 'full' is not made for features in bond frames: a sector has hundreds of channels, and "
            "their pairs more weights than memory.",
            hint="Use contraction 'low_rank' with this backbone.",
        )
    return SectorScalars(layout, config.rank)
