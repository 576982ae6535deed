"""The published QHNet as a backbone: start, blocks, read-out, on either evaluation path."""

from __future__ import annotations

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
from model.architectures.qhnet_published import fast_path, reference_path
from model.architectures.qhnet_published.coefficients import CoefficientTables
from model.architectures.qhnet_published.config import QHNetPublishedConfig
from model.architectures.qhnet_published.fast_parts import from_parts, to_parts
from model.architectures.qhnet_published.lists import BlockPairs, UnorderedPairs
from model.architectures.qhnet_published.parameters import (
    ConvolutionParameters,
    PairParameters,
    ReadOutParameters,
    SelfParameters,
)
from model.architectures.qhnet_published.read_out import expand
from model.nn.frames import WignerMatrices
from model.nn.irreps import CoefficientLayout, Layout
from model.nn.modules import Modules
from model.nn.radial import ExponentialBernstein
from model.pairs.graph import AtomGraph


@dataclass(frozen=True)
class Context:
    """Geometry of a batch.

    Attributes:
        pairs: the pairs whose blocks are computed.
        pair_radial: radial functions of its unordered pairs.
        bonds: frames and radial functions of the message edges (fast path).
        harmonics, edge_radial: of every message edge (reference path).
    """

    pairs: BlockPairs
    pair_radial: Tensor
    bonds: fast_path.Bonds | None
    harmonics: Tensor | None
    edge_radial: Tensor | None


class QHNetPublished(nn.Module):
    """The backbone.

    Args:
        config: hyper-parameters; ``config.path`` chooses how the function is evaluated, not which.
        coefficients: how the blocks' irrep coefficients are laid out.
        n_elements: not used: the published table of embeddings is indexed by atomic number.
        pair_cutoffs: not used: messages travel along edges, whatever pairs have blocks.
    """

    def __init__(
        self,
        config: QHNetPublishedConfig,
        coefficients: CoefficientLayout,
        n_elements: int,
        pair_cutoffs: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.coefficients = coefficients
        self._table_cache: dict[tuple[torch.dtype, torch.device], CoefficientTables] = {}
        self.diagonal_layout = self.pair_layout = Layout(tuple((ang, 1) for ang in range(config.lmax + 1)))
        self.diagonal_channels = self.pair_channels = config.channels
        self.n_blocks = config.pair_layers
        self.embedding = nn.Embedding(config.embedding_rows, config.channels)
        self.wigner = WignerMatrices(config.lmax)
        self.radial = ExponentialBernstein(config.radial_size, config.cutoff_angstrom, alpha=0.5)
        self.convolutions = Modules[ConvolutionParameters](
            [ConvolutionParameters(config, first=index == 0) for index in range(config.node_layers)]
        )
        self.self_blocks = Modules[SelfParameters]([SelfParameters(config) for _ in range(config.pair_layers)])
        self.pair_blocks = Modules[PairParameters]([PairParameters(config) for _ in range(config.pair_layers)])
        self.diagonal_read_out = ReadOutParameters(config, coefficients.template, 1)
        self.pair_read_out = ReadOutParameters(config, coefficients.template, 2)

    def feature_layouts(self, block: int) -> FeatureLayouts:
        """The same after every block."""
        return FeatureLayouts(self.diagonal_layout, self.diagonal_channels, self.pair_layout, self.pair_channels)

    def run(self, graph: AtomGraph, inputs: InputCoefficients, atom_type: Tensor, after: AfterBlock) -> Coefficients:
        """One forward pass."""
        return run_blocks(self, graph, inputs, atom_type, after)

    def start(self, graph: AtomGraph, inputs: InputCoefficients, atom_type: Tensor) -> tuple[Features, Context]:
        """Embeddings and the message passing layers before the first block; known matrices are ignored."""
        context = self._context(graph)
        scalars = self.embedding(graph.numbers)
        first, count = self.convolutions[0], self.config.node_layers - self.config.pair_layers
        if context.bonds is not None:
            parts = fast_path.first_convolution(scalars, first, context.bonds)
            node = from_parts(parts)
        else:
            modules = self._reference(scalars)
            node = modules.unflat(self._reference_convolution(first, scalars, graph, context, first=True))
        for index in range(1, count):
            node = self._convolve(self.convolutions[index], node, graph, context)
        return Features(node, (node.new_zeros((0,)),), (node.new_zeros((0,)),)), context

    def block(self, index: int, graph: AtomGraph, features: Features, context: Context) -> Features:
        """One more message passing layer, then SelfNet and PairNet."""
        layer = self.convolutions[self.config.node_layers - self.config.pair_layers + index]
        node = self._convolve(layer, features.node, graph, context)
        self_net, pair_net, lmax = self.self_blocks[index], self.pair_blocks[index], self.config.lmax
        pairs = context.pairs.unordered
        (own,), (old_features,) = features.diagonal, features.pair
        if context.bonds is not None:
            parts = to_parts(node, lmax)
            old = to_parts(own, lmax) if index else None
            diagonal = from_parts(fast_path.self_block(parts, old, self_net))
            old_pair = old_features.transpose(0, 1).unflatten(1, (2, pairs.low.shape[0])) if index else None
            kernels = self.config.path == "fast"
            pair = fast_path.pair_block(parts, old_pair, pair_net, context.pairs, context.pair_radial, kernels=kernels)
            return Features(node, (diagonal,), (pair.flatten(1, 2).transpose(0, 1),))
        modules = self._reference(node)
        flat = modules.flat(node)
        old_diagonal = modules.flat(own) if index else None
        diagonal = modules.unflat(reference_path.self_block(modules, flat, old_diagonal, self_net))
        old_flat = modules.flat(old_features) if index else None
        radial = torch.cat([context.pair_radial, context.pair_radial])
        pair = reference_path.pair_block(modules, flat, old_flat, pair_net, pairs.rows, pairs.columns, radial)
        return Features(node, (diagonal,), (modules.unflat(pair),))

    def listed_pairs(self, context: Context) -> Tensor:
        """Item of ``Features.pair`` (which holds both directions of every pair) of each pair the graph lists."""
        return context.pairs.listed

    def read_out(self, graph: AtomGraph, features: Features, context: Context) -> Coefficients:
        """Coefficients of on-site and listed pair blocks: Expansion, plus the transpose of the partner block."""
        pairs = context.pairs
        (own,), (pair_features,) = features.diagonal, features.pair
        atoms = graph.numbers.unsqueeze(1)
        both = torch.stack([graph.numbers[pairs.unordered.rows], graph.numbers[pairs.unordered.columns]], dim=1)
        if context.bonds is None:
            diagonal = self._reference_blocks(own, atoms, self.diagonal_read_out)
            pair = self._reference_blocks(pair_features, both, self.pair_read_out)
            return self._project(diagonal + diagonal.mT), self._project(pair[pairs.listed] + pair[pairs.reverse].mT)
        lmax = self.config.lmax
        diagonal = expand(to_parts(own, lmax), self.embedding, atoms, self.diagonal_read_out)
        pair = expand(to_parts(pair_features, lmax), self.embedding, both, self.pair_read_out)
        return self._symmetrise(diagonal, diagonal), self._symmetrise(pair[pairs.listed], pair[pairs.reverse])

    def _context(self, graph: AtomGraph) -> Context:
        pairs = BlockPairs.of(graph)
        pair_radial = self._radial_functions(pairs.unordered.vectors)
        if self.config.path != "reference":
            edges = UnorderedPairs.of(graph.edge_index, graph.edge_vectors, graph.n_atoms)
            bonds = fast_path.Bonds.of(edges, self._radial_functions(edges.vectors), self.wigner)
            return Context(pairs, pair_radial, bonds, None, None)
        harmonics = self._reference(graph.edge_vectors).spherical_harmonics(graph.edge_vectors)
        return Context(pairs, pair_radial, None, harmonics, self._radial_functions(graph.edge_vectors))

    def _radial_functions(self, vectors: Tensor) -> Tensor:
        """(pair, 3) -> (pair, function), in the published order: falling powers of exp(-alpha r)."""
        return self.radial(vectors.norm(dim=-1)).flip(-1)

    def _convolve(self, layer: ConvolutionParameters, node: Tensor, graph: AtomGraph, context: Context) -> Tensor:
        if context.bonds is not None:
            return from_parts(fast_path.convolution(to_parts(node, self.config.lmax), layer, context.bonds))
        modules = self._reference(node)
        return modules.unflat(self._reference_convolution(layer, modules.flat(node), graph, context, first=False))

    def _reference(self, like: Tensor) -> reference_path.E3nnModules:
        return reference_path.reference_modules(self.config, like.dtype, like.device)

    def _reference_convolution(
        self, layer: ConvolutionParameters, node: Tensor, graph: AtomGraph, context: Context, *, first: bool
    ) -> Tensor:
        assert context.harmonics is not None
        assert context.edge_radial is not None
        return reference_path.convolution(
            self._reference(node), node, layer, graph.edge_index, context.harmonics, context.edge_radial, first=first
        )

    def _reference_blocks(self, features: Tensor, numbers: Tensor, read_out: ReadOutParameters) -> Tensor:
        modules = self._reference(features)
        embedded = self.embedding(numbers).flatten(1)
        return reference_path.expand(modules, modules.flat(features), embedded, read_out, self.coefficients.template)

    def _symmetrise(self, blocks: Tensor, partners: Tensor) -> Tensor:
        """Flat expansion coefficients of blocks and of their swapped partners -> our coefficients of the sum."""
        tables = self._tables(blocks)
        one = blocks.index_select(1, tables.place) * tables.scale
        return torch.addcmul(one, partners.index_select(1, tables.partner), tables.partner_scale)

    def _project(self, blocks: Tensor) -> Tensor:
        """Template blocks (item, row, column) -> our coefficients."""
        return blocks.flatten(1) @ self._tables(blocks).projection

    def _tables(self, like: Tensor) -> CoefficientTables:
        key = (like.dtype, like.device)
        if key not in self._table_cache:
            self._table_cache[key] = CoefficientTables.of(
                self.coefficients, self.config.lmax, self.config.bottleneck, like
            )
        return self._table_cache[key]
