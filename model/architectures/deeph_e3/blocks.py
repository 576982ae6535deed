"""Node and edge updates: maps before and after the convolution, self-connection, norm and skip connection."""

from __future__ import annotations

from torch import Tensor, nn

from model.architectures.deeph_e3.config import DeepHE3Config
from model.architectures.deeph_e3.convolution import Context, Convolution, sum_per_atom
from model.architectures.deeph_e3.norms import GraphNorm, RunningNorm, SlotNorm
from model.architectures.deeph_e3.parts import Parts, SelfConnection, Skip, SlotLinear, add
from model.architectures.deeph_e3.slots import Slots


class Update(nn.Module):
    """The layers of one update, under their published names.

    Args:
        own_in, own_out: slots of what is updated, before and after.
        sources: slots that the convolution reads: row atom, column atom, edge.
        n_types: kinds of items for the self-connection.
    """

    norm: SlotNorm

    def __init__(self, own_in: Slots, own_out: Slots, sources: Slots, n_types: int, config: DeepHE3Config) -> None:
        super().__init__()
        self.lin_pre = SlotLinear(own_in, own_in, bias=True)
        self.conv = Convolution(sources, own_out, config)
        self.lin_post = SlotLinear(own_out, own_out, bias=True)
        self.sc = SelfConnection(own_in, own_out, n_types)
        self.norm = GraphNorm(own_out) if config.norm == "graph" else RunningNorm(own_out)
        self.skip_connect = Skip(own_in, own_out)

    def finish(self, before: Parts, convolved: Parts, one_hot: Tensor, index: Tensor, count: Tensor) -> Parts:
        """Everything after the convolution.

        Args:
            before: features that are updated.
            convolved: what the convolution made for each of them.
            one_hot: kind of each item.
            index, count: structure of each item, items of each structure.
        """
        made = add(self.lin_post(convolved), self.sc(before, one_hot))
        return add(self.norm(made, index, count), self.skip_connect(before))


class NodeUpdate(Update):
    """Atoms from the messages of all their edges, the one with themselves among them."""

    def forward(self, node: Parts, edge: Parts, structure_index: Tensor, context: Context) -> Parts:
        """Features of atoms and edges -> new features of atoms."""
        messages = self.conv(self.lin_pre(node), edge, context)
        summed, count = sum_per_atom(messages, context), context.edges.n_atoms_of_structure
        return self.finish(node, summed, context.atom_one_hot, structure_index, count)


class EdgeUpdate(Update):
    """Edges from their atoms and themselves."""

    def forward(self, node: Parts, edge: Parts, context: Context) -> Parts:
        """Features of atoms and edges -> new features of edges."""
        convolved = self.conv(node, self.lin_pre(edge), context)
        edges = context.edges
        return self.finish(edge, convolved, context.pair_one_hot, edges.structure_index, edges.n_edges_of_structure)
