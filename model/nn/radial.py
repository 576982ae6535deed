"""Radial functions: exponential Bernstein polynomials with a smooth cutoff (PhiSNet, arXiv:2106.02347; used by QHNet)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def longest_messages(cutoff_angstrom: float, n_types: int, pair_cutoffs: Tensor | None) -> Tensor:
    """Where messages along pairs with a block end: where these pairs end, or at the cutoff, (type pair,), Å, float64.

    Args:
        cutoff_angstrom: of messages.
        n_types: ordered pairs of types.
        pair_cutoffs: longest pair with a block, (type pair,), Å; None where there is no limit.
    """
    longest = torch.full((n_types,), cutoff_angstrom, dtype=torch.float64)
    return longest if pair_cutoffs is None else longest.minimum(pair_cutoffs)


def fade_out(distances: Tensor, ends_angstrom: Tensor, width_angstrom: float) -> Tensor:
    """1 up to ``width_angstrom`` before the end, 0 from the end on, twice differentiable: 6 x^5 - 15 x^4 + 10 x^3 between.

    Args:
        distances: (edge,), Å.
        ends_angstrom: where each of them ends, (edge,).
        width_angstrom: over how much, above 0.
    """
    x = ((ends_angstrom - distances) / width_angstrom).clamp(0.0, 1.0)
    return x**3 * (10.0 + x * (6.0 * x - 15.0))


class ExponentialBernstein(nn.Module):
    """b_k(r) = binomial(K - 1, k) x^k (1 - x)^(K - 1 - k) * cutoff(r) with x = exp(-alpha r), alpha learned.

    Args:
        size: number of functions K.
        cutoff_angstrom: where the functions and all their derivatives vanish.
        alpha: initial exponent in 1/Å (PhiSNet's 0.5 per bohr).
    """

    power: Tensor
    log_binomial: Tensor

    def __init__(self, size: int, cutoff_angstrom: float, alpha: float = 0.9448630) -> None:
        super().__init__()
        self.cutoff_angstrom = cutoff_angstrom
        power = torch.arange(size, dtype=torch.float64)
        log_binomial = torch.tensor(
            [math.lgamma(size) - math.lgamma(k + 1) - math.lgamma(size - k) for k in range(size)], dtype=torch.float64
        )
        self.register_buffer("power", power, persistent=False)
        self.register_buffer("log_binomial", log_binomial, persistent=False)
        self.raw_alpha = nn.Parameter(torch.tensor(math.log(math.expm1(alpha))))

    def forward(self, distances: Tensor) -> Tensor:
        """Args: distances (edge,), Å. Returns: (edge, size)."""
        power = self.power.to(distances.dtype)
        exponent = -torch.nn.functional.softplus(self.raw_alpha) * distances[:, None]
        log_rest = torch.log(-torch.expm1(exponent))
        polynomials = torch.exp(
            self.log_binomial.to(distances.dtype) + power * exponent + (len(power) - 1 - power) * log_rest
        )
        return polynomials * smooth_cutoff(distances, self.cutoff_angstrom)[:, None]


def smooth_cutoff(distances: Tensor, cutoff_angstrom: float | Tensor) -> Tensor:
    """exp(-r^2 / ((c - r)(c + r))) inside, 0 outside: smooth (PhiSNet, Eq. 11); one c, or one for each distance."""
    inside = distances < cutoff_angstrom
    safe = torch.where(inside, distances, torch.zeros_like(distances))
    value = torch.exp(-(safe**2) / ((cutoff_angstrom - safe) * (cutoff_angstrom + safe)))
    return torch.where(inside, value, torch.zeros_like(value))
