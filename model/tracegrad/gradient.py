"""The gradient feature v = d(sum z)/df of a non-linear invariant z(u(f)) (TraceGrad, Eq. 5), in closed form.

z is an MLP of u: Linear - LayerNorm - SiLU - Linear - LayerNorm - SiLU. Because z is invariant, its gradient transforms
as f does (Theorem 2): non-linear, and equivariant. The chain rule is written out, so v is an ordinary expression: it
runs under ``inference_mode``, exports, and trains with one backward pass. ``by_autograd`` is the same by differentiation
and exists to prove it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from model.tracegrad.full_contraction import FullScalars
from model.tracegrad.invariants import SectorScalars, SelfProductScalars

EPSILON = 1e-5


class GradientFeature(nn.Module):
    """z and v of one set of features.

    Args:
        invariants: u of the features, and its gradient.
        rank: number of invariants u.
        hidden: width of z's hidden layer.
        n_scalars: number of non-linear scalars z.
    """

    def __init__(
        self, invariants: SelfProductScalars | SectorScalars | FullScalars, rank: int, hidden: int, n_scalars: int
    ) -> None:
        super().__init__()
        self.invariants = invariants
        self.first = nn.Linear(rank, hidden)
        self.second = nn.Linear(hidden, n_scalars)

    def scalars(self, u: Tensor) -> Tensor:
        """z of u: (item, rank) -> (item, n_scalars)."""
        hidden = self.first(u)
        hidden = silu(layer_norm(hidden, hidden.shape[-1:], eps=EPSILON))
        out = self.second(hidden)
        return silu(layer_norm(out, out.shape[-1:], eps=EPSILON))

    def forward(self, features: Any) -> tuple[Tensor, Any]:
        """Features, (item, component, channel) or sectors -> z (item, n_scalars) and v, shaped like features."""
        u, left, right = self.invariants(features)
        first = self.first(u)
        first_normed, first_scale = _normalise(first)
        second = self.second(silu(first_normed))
        second_normed, second_scale = _normalise(second)
        z = silu(second_normed)
        grad = _layer_norm_backward(_silu_slope(second_normed), second_normed, second_scale)
        grad = _silu_slope(first_normed) * (grad @ self.second.weight)
        grad = _layer_norm_backward(grad, first_normed, first_scale)
        return z, self.invariants.gradient(left, right, grad @ self.first.weight)

    def by_autograd(self, features: Any) -> tuple[Tensor, Any]:
        """The same z and v by differentiating z; needs grad mode, and a double backward to train."""
        parts = (features,) if isinstance(features, Tensor) else features
        with torch.enable_grad():
            leaves = tuple(part if part.requires_grad else part.detach().requires_grad_() for part in parts)
            z = self.scalars(self.invariants(leaves[0] if isinstance(features, Tensor) else leaves)[0])
            v = torch.autograd.grad(z.sum(), leaves, create_graph=torch.is_grad_enabled())
        return z, v[0] if isinstance(features, Tensor) else v


def _normalise(values: Tensor) -> tuple[Tensor, Tensor]:
    """LayerNorm without affine part, and the inverse standard deviation it divided by."""
    centred = values - values.mean(dim=-1, keepdim=True)
    inverse = (centred.square().mean(dim=-1, keepdim=True) + EPSILON).rsqrt()
    return centred * inverse, inverse


def _silu_slope(values: Tensor) -> Tensor:
    sigmoid = torch.sigmoid(values)
    return sigmoid * (1.0 + values * (1.0 - sigmoid))


def _layer_norm_backward(grad: Tensor, normed: Tensor, inverse: Tensor) -> Tensor:
    """Gradient before a LayerNorm, given the one after it."""
    projected = (grad * normed).mean(dim=-1, keepdim=True)
    return inverse * (grad - grad.mean(dim=-1, keepdim=True) - normed * projected)
