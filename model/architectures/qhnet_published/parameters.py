"""All parameters of the published QHNet, without a forward pass: both evaluation paths read them from here.

Shapes are those of the published layers up to a reshape, so that one set of weights serves both. Published layers also
own parameters that never enter a forward pass; ``idle`` keeps them, for the parameter count and for checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.architectures.qhnet_published.config import QHNetPublishedConfig
from model.architectures.qhnet_published.paths import expansion_paths, grouped, tensor_paths


class IrrepLinear(nn.Module):
    """Channel mixing per l, scaled by 1 / sqrt(n_in): e3nn's Linear. ``weight`` is (l, n_in, n_out)."""

    bias: Tensor | None

    def __init__(self, n_irreps: int, n_in: int, n_out: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_irreps, n_in, n_out))
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None


class WeightMLP(nn.Module):
    """e3nn's FullyConnectedNet with one hidden layer: no biases, weights over sqrt(fan in), normalised activation."""

    def __init__(self, n_in: int, hidden: int, n_out: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(n_in, hidden))
        self.second = nn.Parameter(torch.randn(hidden, n_out))


class SiluMLP(nn.Module):
    """Linear, SiLU, Linear."""

    def __init__(self, n_in: int, hidden: int, n_out: int) -> None:
        super().__init__()
        self.first = nn.Linear(n_in, hidden)
        self.last = nn.Linear(hidden, n_out)

    def forward(self, inputs: Tensor) -> Tensor:
        """(item, n_in) -> (item, n_out)."""
        out: Tensor = self.last(torch.nn.functional.silu(self.first(inputs)))
        return out


def gate_mlp(n_irreps: int, channels: int) -> SiluMLP:
    """MLP of a NormGate: scalars and norms -> new scalars and gates."""
    width = n_irreps * channels
    return SiluMLP(width, width, width)


class ConvolutionParameters(nn.Module):
    """One message passing layer; the first of a network sees scalars only."""

    def __init__(self, config: QHNetPublishedConfig, *, first: bool) -> None:
        super().__init__()
        channels, n_in = config.channels, 1 if first else config.lmax + 1
        self.paths = tensor_paths(config.lmax, left_lmax=0 if first else config.lmax, natural=True)
        self.paths_per_source = [sum(path.left == left for path in self.paths) for left in range(n_in)]
        n_weights = len(self.paths) * channels
        self.radial = WeightMLP(config.radial_size, config.convolution_hidden, n_weights)
        self.invariant = WeightMLP((n_in + 1) * channels, config.convolution_hidden, n_weights)
        gate = gate_mlp(n_in, channels)
        linear, linear_invariant = (IrrepLinear(n_in, channels, channels) for _ in range(2))
        if first:  # the published first layer owns them and skips them
            self.idle = nn.ModuleDict({"gate": gate, "linear": linear, "linear_invariant": linear_invariant})
        else:
            self.gate, self.linear, self.linear_invariant = gate, linear, linear_invariant
        self.linear_out = IrrepLinear(config.lmax + 1, channels, channels)


class SelfParameters(nn.Module):
    """SelfNet: features of the diagonal blocks."""

    def __init__(self, config: QHNetPublishedConfig) -> None:
        super().__init__()
        n_irreps, channels = config.lmax + 1, config.channels
        self.paths = tensor_paths(config.lmax, left_lmax=config.lmax, natural=False)
        self.groups = grouped(self.paths)
        self.gate_left = gate_mlp(n_irreps, channels)
        self.gate_right = gate_mlp(n_irreps, channels)
        self.linear_left = IrrepLinear(n_irreps, channels, channels)
        self.linear_right = IrrepLinear(n_irreps, channels, channels)
        self.product = nn.Parameter(torch.randn(len(self.paths), channels))
        self.gate = gate_mlp(n_irreps, channels)
        self.linear = IrrepLinear(n_irreps, channels, channels)


class PairParameters(nn.Module):
    """PairNet: features of the off-diagonal blocks."""

    def __init__(self, config: QHNetPublishedConfig) -> None:
        super().__init__()
        n_irreps, channels = config.lmax + 1, config.channels
        self.paths = tensor_paths(config.lmax, left_lmax=config.lmax, natural=False)
        self.groups = grouped(self.paths)
        n_weights = len(self.paths) * channels
        self.linear_invariant = IrrepLinear(n_irreps, channels, channels)
        self.gate_node = gate_mlp(n_irreps, channels)
        self.linear_node = IrrepLinear(n_irreps, channels, channels)
        self.radial = WeightMLP(config.radial_size, config.hidden, n_weights)
        self.invariant = SiluMLP((n_irreps + 1) * channels, channels, n_weights)
        self.gate = gate_mlp(n_irreps, channels)
        self.linear = IrrepLinear(n_irreps, channels, channels)
        self.idle = nn.ModuleDict({"linear": IrrepLinear(n_irreps, channels, channels)})
        self.idle.register_parameter("product", nn.Parameter(torch.randn(len(self.paths), channels)))


class ReadOutParameters(nn.Module):
    """Linear to the bottleneck, then the Expansion, whose weights are MLPs of embeddings of the atoms.

    Args:
        n_atoms: atoms of a block: 1 (diagonal) or 2.
    """

    def __init__(self, config: QHNetPublishedConfig, template: tuple[int, ...], n_atoms: int) -> None:
        super().__init__()
        self.paths = expansion_paths(template, config.lmax)
        n_weights = config.bottleneck * sum(path.n_rows * path.n_columns for path in self.paths)
        n_biases = sum(path.n_rows * path.n_columns for path in self.paths if path.ang == 0)
        self.linear = IrrepLinear(config.lmax + 1, config.channels, config.bottleneck, bias=False)
        self.weight = SiluMLP(n_atoms * config.channels, config.channels, n_weights)
        self.bias = SiluMLP(n_atoms * config.channels, config.channels, n_biases)
        self.idle = nn.Parameter(torch.rand(n_weights + n_biases))
