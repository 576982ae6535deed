"""QHNet (Yu et al., ICML 2023, arXiv:2306.04922), compact: node layers, then pair blocks that fill the Hamiltonian.

What is QHNet's: NormGate - Linear - tensor product with the bond's harmonics, weights = FC(radial) * FC(invariants);
pair features from a channel-wise product of the two atoms' features, accumulated over the last layers; diagonal blocks
likewise from an atom's product with itself; all pairs.

What is deliberately not (docs/decisions/0002-network.md has the measurements):
  * parity is the true one of O(3), so mirror images are handled exactly (QHNet: SO(3), everything even);
  * nodes carry l <= 2 only: the product of two such nodes is exactly the space of blocks between s, p and d shells, up
    to l = 4, and a step is an order of magnitude cheaper than with l <= 4 on the nodes;
  * convolutions are evaluated in the bond's frame (same function, fewer operations);
  * blocks of known matrices (overlap, reference Hamiltonian, its density) enter as initial features;
  * of two unlike atoms one ordered pair is computed, not both (``model.pairs.graph``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.architectures.interface import (
    AfterBlock,
    Coefficients,
    FeatureLayouts,
    Features,
    InputCoefficients,
    run_blocks,
)
from model.architectures.qhnet.completion import Completion
from model.architectures.qhnet.config import QHNetConfig
from model.nn.embeddings import InputEmbedding, WeightNet
from model.nn.frames import WignerMatrices, bond_rotations, harmonics_from_wigner
from model.nn.irreps import CoefficientLayout, Layout
from model.nn.layers import (
    ChannelwiseProduct,
    FrameConvolution,
    Linear,
    NormGate,
    root_mean_square_norm,
    sum_per_target,
)
from model.nn.modules import Modules
from model.nn.radial import ExponentialBernstein, smooth_cutoff
from model.nn.read_out import ReadOut
from model.pairs.graph import AtomGraph


@dataclass(frozen=True)
class Context:
    """Geometry of a batch, computed once and shared by all blocks.

    Attributes:
        edge_wigner: Wigner matrices of message edges, l = 0..node_lmax.
        edge_radial, pair_radial: radial functions.
        envelope: what messages are multiplied by, (edge, 1), or None.
        atom_type, pair_type: indices of element and of ordered element pair.
    """

    edge_wigner: Sequence[Tensor]
    edge_radial: Tensor
    pair_radial: Tensor
    envelope: Tensor | None
    atom_type: Tensor
    pair_type: Tensor


def inner_products(left: Tensor, right: Tensor, layout: Layout) -> Tensor:
    """Per irrep and channel <left, right>; (item, irrep * channel)."""
    product = left * right
    return torch.cat([part.mean(dim=1) for part in product.split(layout.sizes, dim=1)], dim=-1)


class NodeLayer(nn.Module):
    """One message passing layer: NormGate, Linear, product with the bond's harmonics, sum, NormGate, Linear, residual."""

    def __init__(self, layout: Layout, n_types: int, config: QHNetConfig) -> None:
        super().__init__()
        channels = config.node_channels
        self.layout = layout
        self.gate_in = NormGate(layout, channels, config.hidden)
        self.linear_in = Linear(layout, channels, channels)
        self.convolution = FrameConvolution(layout)
        self.weights = WeightNet(
            n_types,
            config.radial_size,
            channels * (2 + len(layout.irreps)),
            config.hidden,
            self.convolution.n_weights * channels,
        )
        self.gate_out = NormGate(layout, channels, config.hidden)
        self.linear_out = Linear(layout, channels, channels)

    def forward(self, node: Tensor, graph: AtomGraph, edge_type: Tensor, context: Context) -> Tensor:
        source, target = graph.edge_index
        gated = self.linear_in(self.gate_in(root_mean_square_norm(node)))
        left, right = gated[source], gated[target]
        invariants = torch.cat([left[:, 0], right[:, 0], inner_products(left, right, self.layout)], dim=-1)
        weights = self.weights(edge_type, context.edge_radial, invariants)
        if context.envelope is not None:
            weights = weights * context.envelope
        messages = self.convolution(left, context.edge_wigner, weights.unflatten(1, (self.convolution.n_weights, -1)))
        summed = sum_per_target(messages, target, graph.n_atoms) * 0.25
        return node + self.linear_out(self.gate_out(gated + summed))


class PairBlock(nn.Module):
    """QHNet's PairNet (or SelfNet): channel-wise product of two atoms' features, accumulated on the block features."""

    def __init__(
        self, node_layout: Layout, pair_layout: Layout, n_types: int, n_radial: int, config: QHNetConfig
    ) -> None:
        super().__init__()
        channels = config.pair_channels
        self.node_layout = node_layout
        self.left = Linear(node_layout, config.node_channels, channels)
        self.right = Linear(node_layout, config.node_channels, channels)
        self.product = ChannelwiseProduct(node_layout, node_layout, pair_layout)
        self.completion = Completion(node_layout, pair_layout)
        self.n_weights = [self.product.n_paths, self.completion.n_paths]
        self.weights = WeightNet(
            n_types, n_radial, channels * (3 + len(node_layout.irreps)), config.hidden, sum(self.n_weights) * channels
        )
        self.gate = NormGate(pair_layout, channels, config.hidden)
        self.linear = Linear(pair_layout, channels, channels)

    def forward(
        self, node: Tensor, rows: Tensor, columns: Tensor, block: Tensor, types: Tensor, radial: Tensor | None
    ) -> Tensor:
        normed = root_mean_square_norm(node)
        left, right = self.left(normed)[rows], self.right(normed)[columns]
        invariants = torch.cat(
            [left[:, 0], right[:, 0], block[:, 0], inner_products(left, right, self.node_layout)], dim=-1
        )
        weights = self.weights(types, radial, invariants).unflatten(1, (sum(self.n_weights), -1))
        of_nodes, of_block = weights.split(self.n_weights, dim=1)
        product = self.product(left, right, of_nodes)
        if self.completion.missing:
            product = self.completion(product, block, right, of_block)
        return block + self.linear(self.gate(product))


class QHNet(nn.Module):
    """The backbone.

    Args:
        config: hyper-parameters.
        coefficients: how the blocks' irrep coefficients are laid out.
        n_elements: number of elements; an atom's type is its index among them.
        pair_cutoffs: not used: messages travel along edges, whatever pairs have blocks.
    """

    def __init__(
        self, config: QHNetConfig, coefficients: CoefficientLayout, n_elements: int, pair_cutoffs: Tensor | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.n_elements = n_elements
        self.node_layout = Layout.natural(config.node_lmax)
        self.diagonal_layout = self.pair_layout = coefficients.layout
        self.diagonal_channels = self.pair_channels = config.pair_channels
        self.n_blocks = config.pair_layers
        n_pairs = n_elements**2
        self.harmonics_lmax = max(ang for ang, parity in self.pair_layout.irreps if parity == (-1) ** ang)
        self.pair_wigner = WignerMatrices(self.harmonics_lmax)
        self.edge_wigner = WignerMatrices(config.node_lmax)
        self.atom_embedding = nn.Embedding(n_elements, config.node_channels)
        self.node_input = InputEmbedding(
            coefficients, self.node_layout, n_elements, config.n_inputs, config.node_channels
        )
        self.diagonal_input = InputEmbedding(
            coefficients, self.pair_layout, n_elements, config.n_inputs, config.pair_channels
        )
        self.pair_input = InputEmbedding(coefficients, self.pair_layout, n_pairs, config.n_inputs, config.pair_channels)
        self.radial = ExponentialBernstein(config.radial_size, config.cutoff_angstrom)
        self.pair_harmonics = WeightNet(
            n_pairs,
            config.radial_size,
            config.pair_channels,
            config.hidden,
            (self.harmonics_lmax + 1) * config.pair_channels,
        )
        self.node_layers = Modules[NodeLayer](
            [NodeLayer(self.node_layout, n_pairs, config) for _ in range(config.node_layers + config.pair_layers)]
        )
        self.diagonal_blocks = Modules[PairBlock](
            [PairBlock(self.node_layout, self.pair_layout, n_elements, 0, config) for _ in range(config.pair_layers)]
        )
        self.pair_blocks = Modules[PairBlock](
            [
                PairBlock(self.node_layout, self.pair_layout, n_pairs, config.radial_size, config)
                for _ in range(config.pair_layers)
            ]
        )
        self.diagonal_read_out = ReadOut(
            self.diagonal_layout, config.pair_channels, coefficients, n_elements, config.hidden
        )
        self.pair_read_out = ReadOut(self.pair_layout, config.pair_channels, coefficients, n_pairs, config.hidden)

    def feature_layouts(self, block: int) -> FeatureLayouts:
        """The same after every block."""
        return FeatureLayouts(self.diagonal_layout, self.diagonal_channels, self.pair_layout, self.pair_channels)

    def run(self, graph: AtomGraph, inputs: InputCoefficients, atom_type: Tensor, after: AfterBlock) -> Coefficients:
        """One forward pass."""
        return run_blocks(self, graph, inputs, atom_type, after)

    def start(self, graph: AtomGraph, inputs: InputCoefficients, atom_type: Tensor) -> tuple[Features, Context]:
        """Initial features: embeddings, input blocks, and the bond's harmonics with learned radial weights."""
        row, column = graph.pair_index
        pair_type = atom_type[row] * self.n_elements + atom_type[column]
        pair_wigner = self.pair_wigner(bond_rotations(graph.pair_vectors))
        edge_wigner = self.edge_wigner(bond_rotations(graph.edge_vectors))
        lengths = graph.edge_vectors.norm(dim=-1)
        smooth = self.config.smooth_messages
        context = Context(
            edge_wigner=edge_wigner,
            edge_radial=self.radial(lengths),
            envelope=smooth_cutoff(lengths, self.config.cutoff_angstrom)[:, None] if smooth else None,
            pair_radial=self.radial(graph.pair_vectors.norm(dim=-1)),
            atom_type=atom_type,
            pair_type=pair_type,
        )
        node = self.node_input(inputs.diagonal, atom_type)
        node = node + torch.nn.functional.pad(
            self.atom_embedding(atom_type).unsqueeze(1), (0, 0, 0, self.node_layout.dim - 1)
        )
        pair = self.pair_input(inputs.pair, pair_type)
        weights = self.pair_harmonics(pair_type, context.pair_radial, pair[:, 0])
        pair = pair + self._bond_features(pair_wigner, weights.unflatten(1, (self.harmonics_lmax + 1, -1)))
        node_features = Features(node, (self.diagonal_input(inputs.diagonal, atom_type),), (pair,))
        for index in range(self.config.node_layers):
            node_features = self._pass_messages(self.node_layers[index], graph, node_features, context)
        return node_features, context

    def block(self, index: int, graph: AtomGraph, features: Features, context: Context) -> Features:
        """One more node layer, then the diagonal and the pair block."""
        features = self._pass_messages(self.node_layers[self.config.node_layers + index], graph, features, context)
        atoms = torch.arange(graph.n_atoms, device=features.node.device)
        (own,) = features.diagonal
        diagonal = self.diagonal_blocks[index](features.node, atoms, atoms, own, context.atom_type, None)
        row, column = graph.pair_index
        (old,) = features.pair
        pair = self.pair_blocks[index](features.node, row, column, old, context.pair_type, context.pair_radial)
        return Features(features.node, (diagonal,), (pair,))

    def listed_pairs(self, context: Context) -> slice:
        """All of them: features are of the listed pairs only."""
        return slice(None)

    def read_out(self, graph: AtomGraph, features: Features, context: Context) -> Coefficients:
        """Standardised coefficients of the on-site blocks and of the pairs."""
        (diagonal,), (pair,) = features.diagonal, features.pair
        return (
            self.diagonal_read_out(diagonal, context.atom_type),
            self.pair_read_out(pair, context.pair_type),
        )

    def _bond_features(self, wigner: list[Tensor], weights: Tensor) -> Tensor:
        """The bond's harmonics times learned weights (pair, l, channel): natural irreps of the pair layout."""
        per_l = weights.unbind(1)
        harmonics = harmonics_from_wigner(wigner).split([2 * ang + 1 for ang in range(len(per_l))], dim=1)
        parts = [
            harmonics[ang].unsqueeze(2) * per_l[ang].unsqueeze(1)
            if parity == (-1) ** ang
            else weights.new_zeros((weights.shape[0], 2 * ang + 1, weights.shape[2]))
            for ang, parity in self.pair_layout.irreps
        ]
        return torch.cat(parts, dim=1)

    def _pass_messages(self, layer: NodeLayer, graph: AtomGraph, features: Features, context: Context) -> Features:
        source, target = graph.edge_index
        edge_type = context.atom_type[source] * self.n_elements + context.atom_type[target]
        return Features(layer(features.node, graph, edge_type, context), features.diagonal, features.pair)
