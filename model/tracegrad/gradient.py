"""The gradient feature v = d(sum z)/df of a non-linear invariant z(u(f)) (TraceGrad, Eq. 5), in closed form.

z is an MLP of u: Linear - LayerNorm - SiLU - Linear - LayerNorm - SiLU. Because z is invariant, its gradient transforms
as f does (Theorem 2): non-linear, and equivariant. The chain rule is written out, so v is an ordinary expression: it
runs under ``inference_mode``, exports, and trains with one backward pass. ``by_autograd`` is the same by differentiation
and exists to prove it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from model.nn.so2 import Sectors
from model.tracegrad.invariants import Invariants

EPSILON = 1e-5


class GradientFeature(nn.Module):
    """z and v of one set of features.

    Args:
        invariants: u of the features, and its gradient.
        rank: number of invariants u.
        hidden: width of z's hidden layer.
        n_scalars: number of non-linear scalars z.
    """

    invariants: Invariants

    def __init__(self, invariants: Invariants, rank: int, hidden: int, n_scalars: int) -> None:
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

    def forward(self, features: Sectors) -> tuple[Tensor, Sectors]:
        """Features, one tensor or sectors -> z (item, n_scalars) and v, shaped like features."""
        u, mixed = self.invariants(features)
        first = self.first(u)
        first_normed, *first_moments = _layer_norm(first)
        activated, first_slope = _silu(first_normed)
        second = self.second(activated)
        second_normed, *second_moments = _layer_norm(second)
        z, second_slope = _silu(second_normed)
        grad = _layer_norm_backward(second_slope, second, *second_moments) @ self.second.weight
        grad = _layer_norm_backward(first_slope * grad, first, *first_moments) @ self.first.weight
        return z, self.invariants.gradient(mixed, grad)

    def by_autograd(self, features: Sectors) -> tuple[Tensor, Sectors]:
        """The same z and v by differentiating z; needs grad mode, and a double backward to train."""
        with torch.enable_grad():
            leaves = tuple(part if part.requires_grad else part.detach().requires_grad_() for part in features)
            z = self.scalars(self.invariants(leaves)[0])
            v = torch.autograd.grad(z.sum(), leaves, create_graph=torch.is_grad_enabled())
        return z, v


def _silu(values: Tensor) -> tuple[Tensor, Tensor]:
    """SiLU and its slope."""
    sigmoid = torch.sigmoid(values)
    out = values * sigmoid
    return out, torch.lerp(out, torch.ones_like(out), sigmoid)  # s + x s (1 - s)


def _layer_norm(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """LayerNorm without affine part, the mean it took off and the inverse standard deviation it multiplied by."""
    normed, mean, scale = torch.native_layer_norm(values, values.shape[-1:], None, None, EPSILON)
    return normed, mean, scale


def _layer_norm_backward(grad: Tensor, values: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Gradient before a LayerNorm, given the one after it; the kernel's own derivative covers the moments."""
    before: Tensor = torch.ops.aten.native_layer_norm_backward(
        grad, values, values.shape[-1:], mean.detach(), scale.detach(), None, None, [True, False, False]
    )[0]
    return before
