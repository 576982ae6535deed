"""The published QHNet evaluated plainly: e3nn modules on flat e3nn features, in the order of the paper and of its code.

Nothing is shared, cached or reordered here; this path says what the network is, and the fast path is held against it.
Features are e3nn's (item, irrep * channel * component); e3nn modules take their weights from ``parameters``.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from model.architectures.qhnet_published.config import QHNetPublishedConfig
from model.architectures.qhnet_published.parameters import (
    ConvolutionParameters,
    IrrepLinear,
    PairParameters,
    ReadOutParameters,
    SelfParameters,
    SiluMLP,
    WeightMLP,
)
from model.architectures.qhnet_published.paths import TensorPath, tensor_paths
from model.nn.default_dtype import default_dtype


@cache
def reference_modules(config: QHNetPublishedConfig, dtype: torch.dtype, device: torch.device) -> E3nnModules:
    """e3nn's modules for one configuration and dtype."""
    with torch.inference_mode(False), default_dtype(dtype):
        return E3nnModules(config, device)


class E3nnModules:
    """e3nn modules without weights of their own; deliberately no ``nn.Module``, so nothing enters a state dict."""

    def __init__(self, config: QHNetPublishedConfig, device: torch.device) -> None:
        from e3nn import o3  # takes seconds to import; the fast path does without
        from e3nn.math import normalize2mom

        self.o3 = o3
        self.activation = normalize2mom(lambda x: torch.nn.functional.softplus(x) - math.log(2.0))
        channels, lmax = config.channels, config.lmax
        self.lmax, self.channels = lmax, channels
        self.harmonics = o3.Irreps.spherical_harmonics(lmax)
        natural = o3.Irreps([(channels, (ang, (-1) ** ang)) for ang in range(lmax + 1)])
        even = o3.Irreps([(channels, (ang, 1)) for ang in range(lmax + 1)])
        bottleneck = o3.Irreps([(config.bottleneck, (ang, 1)) for ang in range(lmax + 1)])
        self.even, self.bottleneck = even, bottleneck
        external = {"internal_weights": False, "shared_weights": True}
        self.linear = o3.Linear(even, even, biases=True, **external).to(device)
        self.linear_out = o3.Linear(even, bottleneck, biases=False, **external).to(device)
        self.norm = o3.Norm(even).to(device)
        self.gate = o3.ElementwiseTensorProduct(even[1:], o3.Irreps([(channels * lmax, (0, 1))])).to(device)
        self.inner = o3.TensorProduct(
            even,
            even,
            o3.Irreps([(channels, (0, 1))] * (lmax + 1)),
            [(i, i, i, "uuu", False, 1 / (2 * i + 1)) for i in range(lmax + 1)],
            irrep_normalization="component",
        ).to(device)
        first = tensor_paths(lmax, left_lmax=0, natural=True)
        later = tensor_paths(lmax, left_lmax=lmax, natural=True)
        pair = tensor_paths(lmax, left_lmax=lmax, natural=False)
        self.first_convolution = self._product(natural[:1], self.harmonics, natural, first, "uvu", False).to(device)
        self.convolution = self._product(natural, self.harmonics, natural, later, "uvu", False).to(device)
        self.self_product = self._product(even, even, even, pair, "uuu", True).to(device)
        self.pair_product = self._product(even, even, even, pair, "uuu", False).to(device)

    def _product(
        self, left: Any, right: Any, out: Any, paths: tuple[TensorPath, ...], mode: str, shared: bool
    ) -> nn.Module:
        instructions = [(p.left, p.right, p.out, mode, True, p.weight) for p in paths]
        product: nn.Module = self.o3.TensorProduct(
            left, right, out, instructions, shared_weights=shared, internal_weights=False
        )
        return product

    def flat(self, features: Tensor) -> Tensor:
        """(item, component, channel) -> (item, irrep * channel * component)."""
        parts = features.split([2 * ang + 1 for ang in range(self.lmax + 1)], dim=1)
        return torch.cat([part.transpose(1, 2).flatten(1) for part in parts], dim=1)

    def unflat(self, features: Tensor) -> Tensor:
        """Inverse of :meth:`flat`."""
        parts = features.split([(2 * ang + 1) * self.channels for ang in range(self.lmax + 1)], dim=1)
        return torch.cat([part.unflatten(1, (self.channels, -1)).transpose(1, 2) for part in parts], dim=1)

    def spherical_harmonics(self, vectors: Tensor) -> Tensor:
        """Harmonics of bonds in "component" normalisation; (y, z, x), so that m = -l..l is about z."""
        out: Tensor = self.o3.spherical_harmonics(
            self.harmonics, vectors[:, [1, 2, 0]], normalize=True, normalization="component"
        )
        return out

    def mix(self, features: Tensor, parameters: IrrepLinear) -> Tensor:
        """e3nn's Linear."""
        if parameters.bias is None:
            out: Tensor = self.linear_out(features, parameters.weight.flatten())
        else:
            out = self.linear(features, parameters.weight.flatten(), parameters.bias)
        return out

    def norm_gate(self, features: Tensor, mlp: SiluMLP) -> Tensor:
        """NormGate."""
        scalars, rest = features[:, : self.channels], features[:, self.channels :]
        gates = mlp(torch.cat([scalars, self.norm(features)[:, self.channels :]], dim=-1))
        return torch.cat([gates[:, : self.channels], self.gate(rest, gates[:, self.channels :])], dim=-1)

    def weights(self, inputs: Tensor, mlp: WeightMLP) -> Tensor:
        """e3nn's FullyConnectedNet."""
        hidden: Tensor = self.activation(inputs @ (mlp.first / math.sqrt(len(mlp.first))))
        return hidden @ (mlp.second / math.sqrt(len(mlp.second)))

    def invariants(self, features: Tensor, row: Tensor, column: Tensor, second_scalars: Tensor) -> Tensor:
        """Scalars of the row atom and of ``second_scalars``, and inner products for each l >= 1."""
        scalars = features[:, : self.channels]
        inner = self.inner(features[row], features[column])[:, self.channels :]
        return torch.cat([scalars[row], scalars[second_scalars], inner], dim=-1)


def sum_per_row(messages: Tensor, row: Tensor, count: int) -> Tensor:
    """Sum of messages per destination."""
    return messages.new_zeros((count, messages.shape[1])).index_add_(0, row, messages)


def convolution(
    modules: E3nnModules,
    node: Tensor,
    parameters: ConvolutionParameters,
    edge_index: Tensor,
    harmonics: Tensor,
    radial: Tensor,
    *,
    first: bool,
) -> Tensor:
    """One message passing layer; edge_index is (source, destination)."""
    source, target = edge_index
    if first:
        invariants = torch.cat([node[target], node[target]], dim=-1)
        weights = modules.weights(radial, parameters.radial) * modules.weights(invariants, parameters.invariant)
        messages = modules.first_convolution(node[source], harmonics, weights)
        return modules.mix(sum_per_row(messages, target, len(node)), parameters.linear_out)
    # the published code takes the destination's scalars twice and leaves the source's out
    invariants = modules.invariants(modules.mix(node, parameters.linear_invariant), target, source, target)
    gated = modules.mix(modules.norm_gate(node, parameters.gate), parameters.linear)
    weights = modules.weights(radial, parameters.radial) * modules.weights(invariants, parameters.invariant)
    messages = modules.convolution(gated[source], harmonics, weights)
    return node + modules.mix(sum_per_row(messages, target, len(node)) + gated, parameters.linear_out)


def self_block(modules: E3nnModules, node: Tensor, old: Tensor | None, parameters: SelfParameters) -> Tensor:
    """SelfNet."""
    left = modules.mix(modules.norm_gate(node, parameters.gate_left), parameters.linear_left)
    right = modules.mix(modules.norm_gate(node, parameters.gate_right), parameters.linear_right)
    product = modules.self_product(left, right, parameters.product.flatten()) + node
    new = modules.mix(modules.norm_gate(product, parameters.gate), parameters.linear)
    return new if old is None else old + new


def pair_block(
    modules: E3nnModules,
    node: Tensor,
    old: Tensor | None,
    parameters: PairParameters,
    row: Tensor,
    column: Tensor,
    radial: Tensor,
) -> Tensor:
    """PairNet on both directions of every pair."""
    invariants = modules.invariants(modules.mix(node, parameters.linear_invariant), row, column, column)
    features = modules.mix(modules.norm_gate(node, parameters.gate_node), parameters.linear_node)
    weights = modules.weights(radial, parameters.radial) * parameters.invariant(invariants)
    product = modules.pair_product(features[column], features[row], weights)
    new = modules.mix(modules.norm_gate(product, parameters.gate), parameters.linear)
    return new if old is None else old + new


def expand(
    modules: E3nnModules, features: Tensor, embedded: Tensor, parameters: ReadOutParameters, template: tuple[int, ...]
) -> Tensor:
    """Expansion: block features (item, flat) -> template blocks (item, row, column), before symmetrisation."""
    bottleneck = modules.mix(features, parameters.linear)
    weights, biases = parameters.weight(embedded), parameters.bias(embedded)
    n_in = modules.bottleneck[0].mul
    degrees = sorted(set(template))
    used, used_biases = 0, 0
    blocks: dict[tuple[int, int], Tensor] = {}
    for path in parameters.paths:
        part = bottleneck[:, modules.bottleneck.slices()[path.ang]].unflatten(1, (n_in, -1))
        count = path.n_rows * path.n_columns
        weight = weights[:, used : used + n_in * count].unflatten(1, (n_in, path.n_rows, path.n_columns))
        used += n_in * count
        mixed = torch.einsum("bwuv,bwk->buvk", weight, part)
        if path.ang == 0:
            bias = biases[:, used_biases : used_biases + count].unflatten(1, (path.n_rows, path.n_columns))
            used_biases += count
            mixed = mixed + bias.unsqueeze(-1)
        symbol = modules.o3.wigner_3j(path.left, path.right, path.ang, dtype=part.dtype, device=part.device)
        block = (torch.einsum("ijk,buvk->buivj", symbol, mixed) / n_in).flatten(3).flatten(1, 2)
        key = (path.left, path.right)
        blocks[key] = blocks[key] + block if key in blocks else block
    return torch.cat([torch.cat([blocks[a, b] for b in degrees], dim=-1) for a in degrees], dim=-2)
