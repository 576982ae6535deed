"""The convolution: product with harmonics, gate, radial weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from model.architectures.deeph_e3 import reference_path
from model.architectures.deeph_e3.config import DeepHE3Config
from model.architectures.deeph_e3.edges import EdgeList
from model.architectures.deeph_e3.parts import Parts, take
from model.architectures.deeph_e3.product import SeparateProduct
from model.architectures.deeph_e3.slots import Slots, channels_of, gate_slots, layout_of
from model.nn.so2 import rotate

SILU_SCALE: Final = 1.6791767923989418
TANH_SCALE: Final = 1.5937334472592695
SIGMOID_SCALE: Final = 1.8467055342154763
"""e3nn's factors that give an activation of a normal variable the second moment 1."""


@dataclass(frozen=True)
class Context:
    """Geometry of a batch, computed once and shared by all blocks.

    Attributes:
        edges: the edges.
        radial: Gaussians of every edge's length, (edge, function).
        envelope: factor of messages, (edge, 1, 1), or None.
        fade: factor of listed pairs' blocks, (listed pair, 1), or None.
        to_frame: Wigner matrices of all but the on-site edges for each l; empty on the reference path.
        chunks: how many of these edges a convolution takes at once.
        harmonics: spherical harmonics of every edge on the reference path.
        atom_one_hot, pair_one_hot: element of each atom, and ordered pair of elements of each edge, (item, type).
    """

    edges: EdgeList
    radial: Tensor
    envelope: Tensor | None
    fade: Tensor | None
    to_frame: tuple[Tensor, ...]
    chunks: list[int]
    harmonics: Tensor | None
    atom_one_hot: Tensor
    pair_one_hot: Tensor


class Convolution(nn.Module):
    """Atoms at both ends of an edge and the edge itself -> a message, or new features of the edge.

    Args:
        sources: slots of row atom, column atom and edge, one after the other.
        out: slots of the result.
    """

    def __init__(self, sources: Slots, out: Slots, config: DeepHE3Config) -> None:
        super().__init__()
        self.out = out
        self.tp = SeparateProduct(sources, gate_slots(out), config.harmonics_lmax)
        self.fc = nn.Sequential(
            nn.Linear(config.radial_size, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, sum(channels_of(out))),
        )

    def forward(self, node: Parts, edge: Parts, context: Context) -> Parts:
        """Features of atoms and edges -> slots ``out`` of each edge."""
        edges = context.edges
        radial = self.fc(context.radial)
        if context.harmonics is not None:
            sources = (*take(node, edges.row), *take(node, edges.column), *edge)
            return self._gate(reference_path.product(self.tp, sources, context.harmonics), radial)
        sizes = [edges.n_atoms, *context.chunks]
        weights = self.tp.weights()
        matrices = self.tp.matrices(weights)
        chunks = zip(
            edges.row.split(sizes),
            edges.column.split(sizes),
            zip(*(part.split(sizes) for part in edge), strict=True),
            radial.split(sizes),
            [(), *zip(*(matrix.split(context.chunks) for matrix in context.to_frame), strict=True)],
            strict=True,
        )
        made = []
        for row, column, own, scale, to_frame in chunks:
            sources = (*take(node, row), *take(node, column), *own)
            if not to_frame:
                made.append(self._gate(self.tp.on_site(sources, weights), scale))
                continue
            gated = self._gate(self.tp.in_frame(sources, matrices, to_frame), scale)
            made.append(tuple(rotate(gated, [matrix.mT for matrix in to_frame], layout_of(self.out))))
        return tuple(torch.cat(parts) for parts in zip(*made, strict=True))

    def _gate(self, parts: Parts, weights: Tensor) -> Parts:
        """Activations and gates, then the radial weights."""
        counts = [slot.channels for slot in self.out if slot.ang == 0]
        scalars = [part for part, slot in zip(parts, self.tp.targets, strict=True) if slot.ang == 0]
        rest = iter(parts[len(scalars) :])
        split = iter(weights.unsqueeze(1).split(channels_of(self.out), dim=2))
        *activated, gates = torch.cat(scalars, dim=2).split(
            [*counts, sum(p.shape[2] for p in scalars) - sum(counts)], dim=2
        )
        gated = iter((SIGMOID_SCALE * torch.sigmoid(gates)).split([s.channels for s in self.out if s.ang], dim=2))
        values, out = iter(activated), []
        for slot in self.out:
            if slot.ang:
                out.append(next(rest) * (next(gated) * next(split)))
            elif slot.parity == 1:
                out.append(SILU_SCALE * torch.nn.functional.silu(next(values)) * next(split))
            else:
                out.append(TANH_SCALE * torch.tanh(next(values)) * next(split))
        return tuple(out)


def sum_per_atom(messages: Parts, context: Context) -> Parts:
    """Messages of each edge, times the envelope, summed over the edges of their row atom."""
    edges = context.edges
    out = []
    for part in messages:
        weighed = part if context.envelope is None else part * context.envelope
        out.append(part.new_zeros((edges.n_atoms, *part.shape[1:])).index_add_(0, edges.row, weighed))
    return tuple(out)
