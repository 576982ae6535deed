"""What a backbone is to the rest of the network: a start, a list of blocks, and the layout of its pair features.

A backbone knows nothing of TraceGrad. After each of its blocks the network may add something to the pair features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from model.graph import AtomGraph
from model.nn.irreps import Layout


@dataclass(frozen=True)
class InputCoefficients:
    """Known matrices (overlap, reference Hamiltonian, ...) of a batch as irrep coefficients of their blocks.

    Attributes:
        diagonal: (atom, matrix, coefficient).
        pair: (pair, matrix, coefficient), in the order of ``AtomGraph.pair_index``.
    """

    diagonal: Tensor
    pair: Tensor


@dataclass(frozen=True)
class Features:
    """State of the network between blocks.

    Attributes:
        node: (atom, node component, channel).
        diagonal: features of the diagonal blocks, (atom, pair component, channel).
        pair: features of the off-diagonal blocks, (pair, pair component, channel).
    """

    node: Tensor
    diagonal: Tensor
    pair: Tensor


class Backbone(Protocol):
    """A backbone's surface."""

    pair_layout: Layout
    pair_channels: int
    n_blocks: int

    def start(self, graph: AtomGraph, inputs: InputCoefficients, atom_type: Tensor) -> tuple[Features, Any]:
        """Initial features and whatever the blocks want to reuse (geometry, radial functions)."""
        ...

    def block(self, index: int, graph: AtomGraph, features: Features, context: Any) -> Features:
        """Features after block ``index``."""
        ...
