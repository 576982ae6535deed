"""What turns elements, distances, invariants and known matrices into weights and initial features of a backbone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.nn.irreps import CoefficientLayout, Layout
from model.nn.layers import RaggedLinear


class WeightNet(nn.Module):
    """Weights of tensor-product paths: FC(radial, element pair) * FC(invariants of the two atoms).

    Args:
        n_types: number of element pairs.
        n_radial: radial functions (0: none, for an atom with itself).
        n_invariants: width of the invariants that are gathered per item.
        n_out: path weights.
    """

    def __init__(self, n_types: int, n_radial: int, n_invariants: int, hidden: int, n_out: int) -> None:
        super().__init__()
        self.n_radial = n_radial
        self.type_embedding = nn.Embedding(n_types, hidden)
        self.radial = nn.Linear(n_radial, hidden, bias=False) if n_radial else None
        self.radial_out = nn.Linear(hidden, n_out)
        self.norm = nn.LayerNorm(n_invariants)
        self.invariant = nn.Linear(n_invariants, hidden)
        self.invariant_out = nn.Linear(hidden, n_out)
        nn.init.ones_(self.invariant_out.bias)

    def forward(self, types: Tensor, radial: Tensor | None, invariants: Tensor) -> Tensor:
        """(item,), (item, radial), (item, invariant) -> (item, n_out)."""
        hidden = self.type_embedding(types)
        if self.radial is not None and radial is not None:
            hidden = hidden + self.radial(radial)
        left = self.radial_out(torch.nn.functional.silu(hidden))
        right = self.invariant_out(torch.nn.functional.silu(self.invariant(self.norm(invariants))))
        return left * right


class InputEmbedding(nn.Module):
    """Blocks of known matrices -> initial features, mixed per irrep and scaled per element pair."""

    irrep: Tensor

    def __init__(
        self, coefficients: CoefficientLayout, layout: Layout, n_types: int, n_inputs: int, channels: int
    ) -> None:
        super().__init__()
        wanted = [coefficients.layout.irreps.index(irrep) for irrep in layout.irreps]
        self.parts = [(coefficients.slices[i], coefficients.multiplicity[i]) for i in wanted]
        self.linear = RaggedLinear(layout, [n_inputs * count for _, count in self.parts], [channels] * len(self.parts))
        self.scale = nn.Parameter(torch.ones(n_types, len(layout.irreps), channels))
        self.register_buffer("irrep", torch.from_numpy(layout.component_irrep), persistent=False)

    def forward(self, coefficients: Tensor, types: Tensor) -> Tensor:
        """(item, matrix, coefficient), (item,) -> (item, component, channel)."""
        parts = [
            coefficients[:, :, part].unflatten(2, (-1, count)).transpose(1, 2).flatten(2) for part, count in self.parts
        ]
        mixed = torch.cat(self.linear(parts), dim=1)
        return mixed * self.scale[types][:, self.irrep]
