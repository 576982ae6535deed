"""What a backbone is to the rest of the network: a start, a list of blocks, and the layout of its pair features.

A backbone knows nothing of TraceGrad. After each of its blocks the network may add something to the pair features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from model.nn.irreps import Layout
from model.nn.so2 import SectorLayout
from model.pairs.graph import AtomGraph


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
        diagonal: features of the diagonal blocks, (atom, diagonal component, channel).
        pair: features of the off-diagonal blocks: (pair, pair component, channel), or sectors in the bonds' frames if
            the backbone's ``pair_layout`` is a ``SectorLayout``.
    """

    node: Tensor
    diagonal: Tensor
    pair: Any


class Backbone(Protocol):
    """A backbone's surface; one that needs more than the common read-out (``nn.read_out``) is an ``OwnReadOut`` too."""

    diagonal_layout: Layout
    diagonal_channels: int
    pair_layout: Layout | SectorLayout
    pair_channels: int
    n_blocks: int

    def start(self, graph: AtomGraph, inputs: InputCoefficients, atom_type: Tensor) -> tuple[Features, Any]:
        """Initial features and whatever the blocks want to reuse (geometry, radial functions)."""
        ...

    def block(self, index: int, graph: AtomGraph, features: Features, context: Any) -> Features:
        """Features after block ``index``."""
        ...


@runtime_checkable
class OwnReadOut(Protocol):
    """What a backbone adds if it reads out coefficients itself; its ``Features.pair`` may list other pairs, too."""

    def listed_pairs(self, context: Any) -> Tensor | slice:
        """Item of ``Features.pair`` of each pair in ``AtomGraph.pair_index``, (pair,), or a slice of them."""
        ...

    def read_out(self, graph: AtomGraph, features: Features, context: Any) -> tuple[Tensor, Tensor]:
        """Coefficients of the diagonal blocks, (atom, coefficient), and of the listed pairs, (pair, coefficient)."""
        ...
