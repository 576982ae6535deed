"""Features -> irrep coefficients of template blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.nn.irreps import CoefficientLayout, Layout
from model.nn.layers import NormGate, RaggedLinear


class ReadOut(nn.Module):
    """NormGate, then per irrep a linear map to the coefficients of all shell pairs, scaled per element pair."""

    irrep: Tensor

    def __init__(
        self,
        layout: Layout,
        channels: int,
        coefficients: CoefficientLayout,
        n_types: int,
        hidden: int,
        norm_floor: float = 0.0,
    ) -> None:
        super().__init__()
        self.layout = layout
        self.gate = NormGate(self.layout, channels, hidden, norm_floor)
        # the element pair decides what a shell pair means, so channels are weighted by it before they are mixed
        self.scale = nn.Parameter(torch.ones(n_types, len(self.layout.irreps), channels))
        self.linear = RaggedLinear(
            self.layout, [channels] * len(self.layout.irreps), coefficients.multiplicity, gain=0.0
        )
        self.register_buffer("irrep", torch.from_numpy(self.layout.component_irrep), persistent=False)

    def forward(self, features: Tensor, types: Tensor) -> Tensor:
        """(item, component, channel), (item,) -> (item, coefficient)."""
        gated = self.gate(features) * self.scale[types][:, self.irrep]
        parts = self.linear(gated.split(self.layout.sizes, dim=1))
        return torch.cat([part.flatten(1) for part in parts], dim=1)
