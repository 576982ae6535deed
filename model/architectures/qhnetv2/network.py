"""QHNetV2: pair features live in their bond's frame, and all that mixes degrees happens there (after arXiv:2506.09398).

A pair's features are sectors of equal |m| (``model.nn.so2``). One layer:

    node features --Wigner--> frame --+
    pair features --------------------+--> SO(2) linear -> gate -> SO(2) product -> SO(2) linear --> pair features
                                                                                                 +--Wigner--> nodes

No Clebsch-Gordan product anywhere; the only Clebsch-Gordan coefficients are in the fixed expansion of blocks, after the
read-out (and, for Wigner matrices, in their recursion). Intended deviations from the paper, of which only text was read:

  * exact O(3): sectors carry parity, so mirror images hold to rounding (the paper: SO(3));
  * no frame at the nodes. The paper fuses node features in a frame made of nearest neighbours, which jumps when the nearest
    neighbour changes. Here messages come back to the global frame and are gated there; products happen in bond frames only,
    whose one arbitrary angle drops out. So the prediction is continuous in the atoms' positions;
  * blocks of known matrices (overlap, reference Hamiltonian, its density) enter, turned into the frame;
  * of two unlike atoms one ordered pair is computed (``model.pairs.graph``) and sends a message to both; of two like
    atoms both are, and each sends one to its row atom;
  * an atom's features are also those of its diagonal block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from model.architectures.interface import (
    AfterBlock,
    Coefficients,
    FeatureLayouts,
    Features,
    InputCoefficients,
    run_blocks,
)
from model.architectures.qhnetv2.config import QHNetV2Config
from model.nn import layers, so2
from model.nn.embeddings import InputEmbedding, WeightNet
from model.nn.frames import WignerMatrices, bond_rotations
from model.nn.irreps import CoefficientLayout, Layout
from model.nn.layers import Linear, NormGate
from model.nn.modules import Modules
from model.nn.radial import ExponentialBernstein, longest_messages, smooth_cutoff
from model.nn.read_out import ReadOut
from model.nn.so2 import FrameMatrices, SectorLayout, SectorLinear, SectorProduct, Sectors
from model.pairs.graph import AtomGraph

MESSAGE_SCALE = 0.25
"""Keeps the sum of an atom's messages at the size of its own features."""


@dataclass(frozen=True)
class Context:
    """Geometry of a batch, computed once and shared by all layers.

    Attributes:
        to_frame, from_frame: Wigner matrices of the pairs for each l, and their transposes.
        sort: ``FrameMatrices`` of the pairs, (pair, row, component).
        unsort: their transposes, times the cutoff of messages and the factor that keeps sums of messages small.
        radial: radial functions, (pair, radial).
        column_target: the pair's column atom if that gets a message too, else one past the last atom.
        atom_type, pair_type: indices of element and of ordered element pair.
    """

    to_frame: Sequence[Tensor]
    from_frame: Sequence[Tensor]
    sort: Tensor
    unsort: Tensor
    radial: Tensor
    column_target: Tensor
    atom_type: Tensor
    pair_type: Tensor


class FrameLayer(nn.Module):
    """Updates pairs from their atoms, and atoms from their pairs."""

    def __init__(self, layout: Layout, n_types: int, config: QHNetV2Config, norm_floor: float) -> None:
        super().__init__()
        self.layout = layout
        self.norm_floor = norm_floor
        pair = SectorLayout(layout, config.pair_channels)
        self.exchange = SectorLayout(layout, 2 * config.exchange_channels)
        inner = SectorLayout(layout, config.frame_channels)
        self.left = Linear(layout, config.node_channels, config.exchange_channels)
        self.right = Linear(layout, config.node_channels, config.exchange_channels)
        self.mix_pair = SectorLinear(pair.widths, inner.widths, bias=True)
        self.mix_nodes = SectorLinear(self.exchange.widths, inner.widths)
        n_invariants = pair.widths[0] + self.exchange.widths[0]
        self.weights = WeightNet(n_types, config.radial_size, n_invariants, config.hidden, sum(inner.widths))
        after: Sequence[int] = inner.widths
        self.product: SectorProduct | None = None
        if config.product_channels:
            self.product = SectorProduct(pair.lmax, config.product_channels)
            self.factors = SectorLinear(inner.widths, [2 * width for width in self.product.widths])
            after = [a + b for a, b in zip(inner.widths, self.product.widths, strict=True)]
        self.pair_out = SectorLinear(after, pair.widths, bias=True)
        self.message = SectorLinear(after, self.exchange.widths)
        self.node_in = Linear(layout, config.node_channels, config.exchange_channels)
        self.node_gate = NormGate(layout, config.exchange_channels, config.hidden)
        self.node_out = Linear(layout, config.exchange_channels, config.node_channels)

    def forward(self, node: Tensor, pair: Sectors, graph: AtomGraph, context: Context) -> tuple[Tensor, Sectors]:
        row, column = graph.pair_index
        left, right, node_in = self._node_side(layers.root_mean_square_norm(node, self.norm_floor))
        ends = torch.cat([left.index_select(0, row), right.index_select(0, column)], dim=-1)
        atoms = self.exchange.of_rows(torch.bmm(context.sort, ends))
        own = so2.root_mean_square_norm(pair)
        invariants = torch.cat([own[0].squeeze(1), atoms[0].squeeze(1)], dim=-1)
        inner = so2.modulate(
            self.mix_pair(own, onto=self.mix_nodes(atoms)),
            self.weights(context.pair_type, context.radial, invariants),
        )
        inner = (silu(inner[0]), *inner[1:])
        if self.product is not None:
            # the norm of the factors' inputs is a factor of the smaller outputs
            product = self.product(self.factors(inner), so2.inverse_root_mean_square(inner))
            inner = tuple(torch.cat(parts, dim=-1) for parts in zip(inner, product, strict=True))
        pair = self.pair_out(inner, onto=pair)
        messages = torch.bmm(context.unsort, self.exchange.to_rows(self.message(inner)))
        return node + self.node_out(self.node_gate(node_in + self._sum(messages, row, graph.n_atoms, context))), pair

    def _node_side(self, normed: Tensor) -> tuple[Tensor, ...]:
        """What an atom gives to pairs of which it is row, of which it is column, and to itself: one map."""
        maps = (self.left, self.right, self.node_in)
        weight = torch.cat([one.weight for one in maps], dim=2)
        bias = torch.cat([one.bias for one in maps])
        return layers.linear(normed, self.layout, weight, bias).chunk(3, dim=2)

    @staticmethod
    def _sum(messages: Tensor, row: Tensor, n_atoms: int, context: Context) -> Tensor:
        """Sum of messages: the first half of the channels is for the row atom, the second for the column atom."""
        # whole rows, of which one half is used in the end: adding strided halves is ten times slower
        to_row, to_column = (
            layers.sum_per_target(messages, target, n_atoms + 1)[:n_atoms] for target in (row, context.column_target)
        )
        half = messages.shape[2] // 2
        return to_row[..., :half] + to_column[..., half:]


class FrameReadOut(nn.Module):
    """Pair features -> coefficients of all shell pairs: gate, scale per element pair, SO(2) linear, out of the frame."""

    def __init__(
        self, layout: Layout, channels: int, coefficients: CoefficientLayout, n_types: int, hidden: int
    ) -> None:
        super().__init__()
        self.layout = layout
        features = SectorLayout(layout, channels)
        self.out = SectorLayout(layout, coefficients.multiplicity)
        width = features.widths[0]
        self.gate = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, sum(features.widths))
        )
        self.scale = nn.Parameter(torch.ones(n_types, sum(features.widths)))
        self.linear = SectorLinear(features.widths, self.out.widths, gain=0.0)

    def forward(self, pair: Sectors, context: Context) -> Tensor:
        """Sectors -> (pair, coefficient)."""
        gates = (1.0 + self.gate(pair[0].squeeze(1))) * self.scale.index_select(0, context.pair_type)
        parts = so2.rotate(self.out.join(self.linear(so2.modulate(pair, gates))), context.from_frame, self.layout)
        return torch.cat([part.flatten(1) for part in parts], dim=1)


class FrameInput(nn.Module):
    """Blocks of known matrices -> initial pair features in the frame, mixed per sector and scaled per element pair."""

    def __init__(self, coefficients: CoefficientLayout, n_types: int, n_inputs: int, channels: int) -> None:
        super().__init__()
        self.coefficients = coefficients
        self.layout = coefficients.layout
        self.known = SectorLayout(self.layout, [n_inputs * count for count in coefficients.multiplicity])
        features = SectorLayout(self.layout, channels)
        self.linear = SectorLinear(self.known.widths, features.widths)
        self.scale = nn.Parameter(torch.ones(n_types, sum(features.widths)))

    def forward(self, coefficients: Tensor, types: Tensor, to_frame: Sequence[Tensor]) -> Sectors:
        """(pair, matrix, coefficient), (pair,), Wigner matrices -> sectors."""
        sizes = [part.stop - part.start for part in self.coefficients.slices]
        parts = [
            part.unflatten(2, (-1, count)).transpose(1, 2).flatten(2)
            for part, count in zip(coefficients.split(sizes, dim=2), self.coefficients.multiplicity, strict=True)
        ]
        return so2.modulate(
            self.linear(self.known.split(so2.rotate(parts, to_frame, self.layout))), self.scale.index_select(0, types)
        )


class QHNetV2(nn.Module):
    """The backbone.

    Args:
        config: hyper-parameters.
        coefficients: how the blocks' irrep coefficients are laid out.
        n_elements: number of elements; an atom's type is its index among them.
        pair_cutoffs: longest pair with a block, of each ordered pair of types, (type pair,), Å; None where there is no limit.
    """

    longest_message: Tensor

    def __init__(
        self,
        config: QHNetV2Config,
        coefficients: CoefficientLayout,
        n_elements: int,
        pair_cutoffs: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.n_elements = n_elements
        layout = coefficients.layout
        self.diagonal_layout = layout
        self.diagonal_channels = config.node_channels
        self.pair_layout = SectorLayout(layout, config.pair_channels)
        self.pair_channels = config.pair_channels
        self.n_blocks = config.layers
        n_types = n_elements**2
        longest = longest_messages(config.cutoff_angstrom, n_types, pair_cutoffs)
        self.register_buffer("longest_message", longest, persistent=False)
        self.wigner = WignerMatrices(self.pair_layout.lmax)
        self.frame_matrices = FrameMatrices(self.pair_layout)
        self.atom_embedding = nn.Embedding(n_elements, config.node_channels)
        self.node_input = InputEmbedding(coefficients, layout, n_elements, config.n_inputs, config.node_channels)
        self.pair_input = FrameInput(coefficients, n_types, config.n_inputs, config.pair_channels)
        self.radial = ExponentialBernstein(config.radial_size, config.cutoff_angstrom)
        *floors, last_floor = config.floors
        self.layers = Modules[FrameLayer]([FrameLayer(layout, n_types, config, floor) for floor in floors])
        self.diagonal_read_out = ReadOut(
            layout, config.node_channels, coefficients, n_elements, config.hidden, last_floor
        )
        self.pair_read_out = FrameReadOut(layout, config.pair_channels, coefficients, n_types, config.hidden)

    def feature_layouts(self, block: int) -> FeatureLayouts:
        """The same after every block."""
        return FeatureLayouts(self.diagonal_layout, self.diagonal_channels, self.pair_layout, self.pair_channels)

    def run(self, graph: AtomGraph, inputs: InputCoefficients, atom_type: Tensor, after: AfterBlock) -> Coefficients:
        """One forward pass."""
        return run_blocks(self, graph, inputs, atom_type, after)

    def start(self, graph: AtomGraph, inputs: InputCoefficients, atom_type: Tensor) -> tuple[Features, Context]:
        """Initial features: embeddings and input blocks."""
        row, column = graph.pair_index
        pair_type = atom_type[row] * self.n_elements + atom_type[column]
        to_frame = self.wigner(bond_rotations(graph.pair_vectors))
        distances = graph.pair_vectors.norm(dim=-1)
        sort = self.frame_matrices(to_frame)
        envelope = smooth_cutoff(distances, self.longest_message[pair_type].to(distances.dtype))[:, None, None]
        context = Context(
            to_frame=to_frame,
            from_frame=[matrix.transpose(1, 2) for matrix in to_frame],
            sort=sort,
            unsort=(sort * (MESSAGE_SCALE * envelope)).transpose(1, 2),
            radial=self.radial(distances),
            column_target=torch.where(atom_type[row] != atom_type[column], column, graph.n_atoms),
            atom_type=atom_type,
            pair_type=pair_type,
        )
        node = self.node_input(inputs.diagonal, atom_type)
        node = node + pad(self.atom_embedding(atom_type).unsqueeze(1), (0, 0, 0, self.diagonal_layout.dim - 1))
        return Features(node, (node,), self.pair_input(inputs.pair, context.pair_type, to_frame)), context

    def block(self, index: int, graph: AtomGraph, features: Features, context: Context) -> Features:
        """One layer."""
        (node,) = features.diagonal
        node, pair = self.layers[index](node, features.pair, graph, context)
        return Features(node, (node,), pair)

    def listed_pairs(self, context: Context) -> slice:
        """All of them: features are of the listed pairs only."""
        return slice(None)

    def read_out(self, graph: AtomGraph, features: Features, context: Context) -> Coefficients:
        """Standardised coefficients of the on-site blocks and of the pairs."""
        (diagonal,) = features.diagonal
        return (
            self.diagonal_read_out(diagonal, context.atom_type),
            self.pair_read_out(features.pair, context),
        )
