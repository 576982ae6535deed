"""What products of two nodes do not reach: the other irreps of a block, from the block's own features and a node's.

Nodes have natural parity and l <= 2, so their products are exactly the irreps of blocks between s, p and d shells. With spin,
blocks have more (for spinors 0o, 4o and 5e), because spin is an axial vector. These come from the product of what the block
has already with one of its atoms.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.nn.irreps import Irrep, Layout
from model.nn.layers import ChannelwiseProduct


def couples(left: Irrep, right: Irrep, out: Irrep) -> bool:
    """Whether the product of two irreps has a third."""
    return left[1] * right[1] == out[1] and abs(left[0] - right[0]) <= out[0] <= left[0] + right[0]


class Completion(nn.Module):
    """Channel-wise product of block and node features, for irreps that no product of two nodes has.

    Args:
        node_layout, pair_layout: irreps of nodes and of blocks.

    Attributes:
        missing: the irreps; there may be none.
        n_paths: weights per item and channel.
    """

    place: Tensor
    source: Tensor

    def __init__(self, node_layout: Layout, pair_layout: Layout) -> None:
        super().__init__()
        nodes = node_layout.irreps
        reached = [irrep for irrep in pair_layout.irreps if any(couples(a, b, irrep) for a in nodes for b in nodes)]
        self.missing = tuple(irrep for irrep in pair_layout.irreps if irrep not in reached)
        left = [irrep for irrep in reached if any(couples(irrep, b, out) for b in nodes for out in self.missing)]
        components = torch.arange(pair_layout.dim)
        slices = dict(zip(pair_layout.irreps, pair_layout.slices, strict=True))

        def places(irreps: list[Irrep]) -> Tensor:
            return torch.cat([components[slices[irrep]] for irrep in irreps] or [components[:0]])

        self.register_buffer("place", places(list(self.missing)), persistent=False)
        self.register_buffer("source", places(left), persistent=False)
        self.n_paths = 0
        if self.missing:
            self.product = ChannelwiseProduct(Layout(tuple(left)), node_layout, Layout(self.missing))
            self.n_paths = self.product.n_paths

    def forward(self, product: Tensor, block: Tensor, node: Tensor, weights: Tensor) -> Tensor:
        """Fill in the missing irreps.

        Args:
            product: features (item, pair component, channel) without them.
            block: the block's features so far, (item, pair component, channel).
            node: features of one of its atoms, (item, node component, channel).
            weights: (item, path, channel).
        """
        found: Tensor = self.product(block.index_select(1, self.source), node, weights)
        return product.index_add(1, self.place, found)
