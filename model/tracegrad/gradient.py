"""The gradient feature v = d(sum z)/df of a non-linear invariant z(u(f)) (TraceGrad, Eq. 5), in closed form.

z is an MLP of u: Linear - LayerNorm - SiLU - Linear - LayerNorm - SiLU. Because z is invariant, its gradient transforms
as f does (Theorem 2): non-linear, and equivariant. The chain rule is written out, so v is an ordinary expression: it
runs under ``inference_mode``, exports, and trains with one backward pass. ``by_autograd`` is the same by differentiation
and exists to prove it.
"""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from model.nn.modules import Modules
from model.nn.so2 import Sectors
from model.tracegrad.invariants import Invariants
from model.tracegrad.ragged_gradient import ScalarNetwork

EPSILON = 1e-5

Affine = tuple[Tensor | None, Tensor | None]
"""Weight and bias of a LayerNorm; None where it has none."""


class GradientFeature(nn.Module):
    """z and v of one set of features.

    Args:
        invariants: u of the features, and its gradient.
        rank: number of invariants u.
        hidden: width of z's hidden layer.
        n_scalars: number of non-linear scalars z.
        affine: whether the LayerNorms have weights and biases.
    """

    invariants: Invariants

    def __init__(self, invariants: Invariants, rank: int, hidden: int, n_scalars: int, *, affine: bool = False) -> None:
        super().__init__()
        self.invariants = invariants
        self.first = nn.Linear(rank, hidden)
        self.second = nn.Linear(hidden, n_scalars)
        self.norms = Modules[nn.LayerNorm](
            [nn.LayerNorm(width, EPSILON) for width in (hidden, n_scalars)] if affine else []
        )

    def network(self) -> ScalarNetwork:
        """The weights of z's network."""
        return ScalarNetwork(
            (self.first.weight, self.first.bias),
            (self.second.weight, self.second.bias),
            tuple(chain.from_iterable(self._affine())),
        )

    def scalars(self, u: Tensor) -> Tensor:
        """z of u: (item, rank) -> (item, n_scalars)."""
        (weight, bias), (last_weight, last_bias) = self._affine()
        hidden = self.first(u)
        hidden = silu(layer_norm(hidden, hidden.shape[-1:], weight, bias, EPSILON))
        out = self.second(hidden)
        return silu(layer_norm(out, out.shape[-1:], last_weight, last_bias, EPSILON))

    def _affine(self) -> tuple[Affine, Affine]:
        """Weight and bias of both LayerNorms."""
        if not len(self.norms):
            return (None, None), (None, None)
        first, second = self.norms
        return (first.weight, first.bias), (second.weight, second.bias)

    def forward(self, features: Sectors) -> tuple[Tensor, Sectors]:
        """Features, one tensor or sectors -> z (item, n_scalars) and v, shaped like features."""
        u, mixed = self.invariants(features)
        first = self.first(u)
        affine, last_affine = self._affine()
        first_normed, first_moments = _layer_norm(first, affine)
        activated, first_slope = _silu(first_normed)
        second = self.second(activated)
        second_normed, second_moments = _layer_norm(second, last_affine)
        z, second_slope = _silu(second_normed)
        grad = _layer_norm_backward(second_slope, second, second_moments, last_affine) @ self.second.weight
        grad = _layer_norm_backward(first_slope * grad, first, first_moments, affine) @ self.first.weight
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


def _layer_norm(values: Tensor, affine: Affine) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """LayerNorm, and the mean it took off with the inverse standard deviation it multiplied by."""
    normed, mean, scale = torch.native_layer_norm(values, values.shape[-1:], *affine, EPSILON)
    return normed, (mean, scale)


def _layer_norm_backward(grad: Tensor, values: Tensor, moments: tuple[Tensor, Tensor], affine: Affine) -> Tensor:
    """Gradient before a LayerNorm, given the one after it; the kernel's own derivative covers the moments."""
    before: Tensor = torch.ops.aten.native_layer_norm_backward(
        grad, values, values.shape[-1:], *(moment.detach() for moment in moments), *affine, [True, False, False]
    )[0]
    return before
