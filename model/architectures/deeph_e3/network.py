"""DeepH-E3 as a backbone: start, blocks, read-out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from model.architectures.deeph_e3 import reference_path
from model.architectures.deeph_e3.blocks import EdgeUpdate, NodeUpdate
from model.architectures.deeph_e3.config import DeepHE3Config
from model.architectures.deeph_e3.convolution import Context
from model.architectures.deeph_e3.edges import EdgeList
from model.architectures.deeph_e3.head import EdgeHead, OutputOrder
from model.architectures.deeph_e3.parts import Parts, SlotLinear, flat, unflat
from model.architectures.deeph_e3.slots import (
    Slot,
    Slots,
    channels_of,
    last_node_slots,
    layout_of,
    parse_slots,
    target_slots,
)
from model.architectures.interface import (
    AfterBlock,
    Coefficients,
    FeatureLayouts,
    Features,
    InputCoefficients,
    run_blocks,
)
from model.nn.frames import WignerMatrices, bond_rotations
from model.nn.irreps import CoefficientLayout, RaggedLayout
from model.nn.modules import Modules
from model.nn.radial import fade_out, longest_messages, smooth_cutoff
from model.pairs.graph import AtomGraph

BONDS_AT_ONCE: Final = 4096
"""Bonds that a convolution works on together, so that memory for what is in between does not grow with the structure."""


class DeepHE3(nn.Module):
    """The backbone.

    Args:
        config: hyper-parameters; ``config.path`` chooses how the function is evaluated, not which.
        coefficients: how the blocks' irrep coefficients are laid out.
        n_elements: number of elements; an atom's type is its index among them.
        pair_cutoffs: longest pair with a block, of each ordered pair of types, (type pair,), Å; None where there is no limit.
    """

    longest_message: Tensor
    longest_block: Tensor | None
    reverse_place: Tensor
    reverse_sign: Tensor

    def __init__(
        self,
        config: DeepHE3Config,
        coefficients: CoefficientLayout,
        n_elements: int,
        pair_cutoffs: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.n_elements = n_elements
        self.n_blocks = config.blocks
        mid, targets = parse_slots(config.irreps_mid), target_slots(coefficients)
        embedded: Slots = (Slot(config.embedding_channels, 0, 1),)
        last = last_node_slots(mid, targets, config.harmonics_lmax)
        self.node_slots = [embedded, *[mid] * (config.blocks - 1), last]
        self.edge_slots = [embedded, *[mid] * (config.blocks - 1), targets]
        self.embedding = SlotLinear((Slot(n_elements, 0, 1),), embedded, bias=False)
        node_updates, edge_updates = [], []
        for node_in, node_out, edge_in, edge_out in zip(
            self.node_slots[:-1], self.node_slots[1:], self.edge_slots[:-1], self.edge_slots[1:], strict=True
        ):
            node_updates.append(NodeUpdate(node_in, node_out, (*node_in, *node_in, *edge_in), n_elements, config))
            sources = (*node_out, *node_out, *edge_in)
            edge_updates.append(EdgeUpdate(edge_in, edge_out, sources, n_elements**2, config))
        self.node_update_blocks = Modules[NodeUpdate](node_updates)
        self.edge_update_blocks = Modules[EdgeUpdate](edge_updates)
        self.order = OutputOrder(coefficients)
        self.lin_node = SlotLinear(last, (Slot(1, 0, 1),), bias=True)
        self.lin_edge = EdgeHead(targets, self.order)
        longest = longest_messages(config.cutoff_angstrom, n_elements**2, pair_cutoffs)
        self.register_buffer("longest_message", longest, persistent=False)
        self.register_buffer("longest_block", pair_cutoffs, persistent=False)
        place, sign = self.order.adjoint
        self.register_buffer("reverse_place", torch.from_numpy(place), persistent=False)
        self.register_buffer("reverse_sign", torch.from_numpy(sign), persistent=False)
        lmax = max(slot.ang for slots in (*self.node_slots, *self.edge_slots) for slot in slots)
        self.wigner = WignerMatrices(lmax)

    def feature_layouts(self, block: int) -> FeatureLayouts:
        """Of edges; on-site blocks are edges of an atom with itself."""
        slots = self.edge_slots[1:][block]
        layout = RaggedLayout(layout_of(slots), channels_of(slots))
        return FeatureLayouts(layout, 0, layout, 0, alike=True)

    def run(self, graph: AtomGraph, inputs: InputCoefficients, atom_type: Tensor, after: AfterBlock) -> Coefficients:
        """One forward pass."""
        return run_blocks(self, graph, inputs, atom_type, after)

    def start(self, graph: AtomGraph, inputs: InputCoefficients, atom_type: Tensor) -> tuple[Features, Context]:
        """Embeddings of elements and distances; known matrices are ignored."""
        context = self._context(graph, atom_type)
        node = self.embedding((context.atom_one_hot.unsqueeze(1),))
        config = self.config
        edge = gaussians(context.edges.distances, config.embedding_channels, config.embedding_cutoff_angstrom)
        return self._features(node, (edge.unsqueeze(1),), context), context

    def block(self, index: int, graph: AtomGraph, features: Features, context: Context) -> Features:
        """Atoms, then edges."""
        node = unflat(features.node, self.node_slots[index])
        edge = all_edges(features)
        node = self.node_update_blocks[index](node, edge, graph.structure_index, context)
        edge = self.edge_update_blocks[index](node, edge, context)
        return self._features(node, edge, context)

    def listed_pairs(self, context: Context) -> slice:
        """They come first among the pairs."""
        return slice(0, context.edges.n_listed)

    def read_out(self, graph: AtomGraph, features: Features, context: Context) -> Coefficients:
        """Coefficients of on-site and listed pair blocks; of unlike atoms the mean with the reversed edge's adjoint."""
        edges = context.edges
        out = self.edge_coefficients(features)
        on_site, listed, reverse = out.split([edges.n_atoms, edges.n_listed, len(edges.unlike)])
        adjoint = reverse.index_select(1, self.reverse_place) * self.reverse_sign.to(out.dtype)
        half = 0.5 * (adjoint - listed.index_select(0, edges.unlike))
        listed = listed.index_add(0, edges.unlike, half)
        return on_site, listed if context.fade is None else listed * context.fade

    def edge_coefficients(self, features: Features) -> Tensor:
        """What the network says of every edge, in the order of ``EdgeList``: (edge, coefficient)."""
        out: Tensor = self.lin_edge(all_edges(features))
        return out

    def node_output(self, features: Features) -> Tensor:
        """The published head of atoms, which nothing uses: (atom, 1)."""
        (out,) = self.lin_node(unflat(features.node, self.node_slots[-1]))
        return out.squeeze(1)

    def _features(self, node: Parts, edge: Parts, context: Context) -> Features:
        n_atoms = context.edges.n_atoms
        split = [part.split([n_atoms, part.shape[0] - n_atoms]) for part in edge]
        return Features(flat(node), tuple(part[0] for part in split), tuple(part[1] for part in split))

    def _context(self, graph: AtomGraph, atom_type: Tensor) -> Context:
        edges, config = EdgeList.of(graph), self.config
        distances = edges.distances
        pair_type = atom_type[edges.row] * self.n_elements + atom_type[edges.column]
        envelope = None
        if config.envelope:
            envelope = smooth_cutoff(distances, self.longest_message[pair_type].to(distances.dtype))[:, None, None]
        fade = None
        if config.fade_angstrom and self.longest_block is not None:
            listed = slice(edges.n_atoms, edges.n_atoms + edges.n_listed)
            ends = self.longest_block[pair_type[listed]].to(distances.dtype)
            fade = fade_out(distances[listed], ends, config.fade_angstrom).unsqueeze(1)
        to_frame: Sequence[Tensor] = ()
        harmonics = None
        if config.path == "reference":
            vectors = torch.cat([edges.vectors.new_zeros((edges.n_atoms, 3)), edges.vectors])
            harmonics = reference_path.spherical_harmonics(vectors, config.harmonics_lmax)
        else:
            to_frame = self.wigner(bond_rotations(edges.vectors))

        def one_hot(types: Tensor, count: int) -> Tensor:
            return torch.nn.functional.one_hot(types, count).to(distances.dtype)

        return Context(
            edges=edges,
            radial=gaussians(distances, config.radial_size, config.cutoff_angstrom),
            envelope=envelope,
            fade=fade,
            to_frame=tuple(to_frame),
            chunks=[
                min(BONDS_AT_ONCE, n - start) for n in (len(edges.vectors),) for start in range(0, n, BONDS_AT_ONCE)
            ],
            harmonics=harmonics,
            atom_one_hot=one_hot(atom_type, self.n_elements),
            pair_one_hot=one_hot(pair_type, self.n_elements**2),
        )


def all_edges(features: Features) -> Parts:
    """Features of on-site edges and of pairs, one after the other."""
    return tuple(torch.cat(parts) for parts in zip(features.diagonal, features.pair, strict=True))


def gaussians(distances: Tensor, count: int, last_angstrom: float) -> Tensor:
    """exp(-(r - c)^2 / (2 w^2)) with centres c from 0 to ``last_angstrom`` and their spacing w: (edge, count)."""
    centres = torch.linspace(0.0, last_angstrom, count, dtype=distances.dtype, device=distances.device)
    width = last_angstrom / (count - 1)
    return torch.exp(-0.5 * ((distances[:, None] - centres) / width).square())
