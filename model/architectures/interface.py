"""What an architecture is to the rest of the model: a start, a list of blocks, and a read-out.

An architecture knows nothing of TraceGrad: after each of its blocks somebody else may change the features. What it
computes once for a batch and reuses in every block, its context (geometry, radial functions), is its own: the Protocol
:class:`Architecture` is generic in its type, so that mypy holds every network to its own context, and :class:`Backbone` is
the same without it, as ``model.network`` sees it. :func:`run_blocks` is the bridge between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

from model.nn.irreps import Layout, RaggedLayout
from model.nn.so2 import SectorLayout, Sectors
from model.pairs.graph import AtomGraph

Context = TypeVar("Context")
Coefficients = tuple[Tensor, Tensor]
"""Standardised irrep coefficients of on-site blocks, (atom, coefficient), and of the listed pairs, (pair, coefficient)."""


@dataclass(frozen=True)
class InputCoefficients:
    """Known matrices (overlap, reference Hamiltonian, ...) of a batch as irrep coefficients of their blocks.

    Attributes:
        diagonal: (atom, matrix, coefficient); there may be no matrices.
        pair: (pair, matrix, coefficient), in the order of ``AtomGraph.pair_index``.
    """

    diagonal: Tensor
    pair: Tensor


@dataclass(frozen=True)
class Features:
    """State of the network between blocks.

    Attributes:
        node: of atoms, (atom, ...), in a shape that is the network's own.
        diagonal, pair: of the on-site blocks and of the pair blocks: one tensor (item, component, channel) if their layout
            is a ``Layout``, one an irrep if it is a ``RaggedLayout``, sectors in the bonds' frames if a ``SectorLayout``.
    """

    node: Tensor
    diagonal: Sectors
    pair: Sectors


AfterBlock = Callable[[int, Features, Tensor | slice], Features]
"""Index of a block, the features after it, item of ``Features.pair`` of each listed pair -> features to go on with."""


@dataclass(frozen=True)
class FeatureLayouts:
    """How the features after one block are laid out.

    Attributes:
        diagonal, pair: layouts of ``Features.diagonal`` and ``Features.pair``.
        diagonal_channels, pair_channels: channels of each irrep of a ``Layout``; other layouts know their own.
        alike: whether on-site blocks are items of the same kind as pairs, an atom's edges with itself: what is learned about
            features is then learned of both together.
    """

    diagonal: Layout | RaggedLayout
    diagonal_channels: int
    pair: Layout | RaggedLayout | SectorLayout
    pair_channels: int
    alike: bool = False


class _FeatureSpaces(Protocol):
    """Where features live, and after how many blocks they are read out."""

    def feature_layouts(self, block: int) -> FeatureLayouts:
        """Layouts after a block, the last one's if it is -1."""
        ...

    @property
    def n_blocks(self) -> int: ...


class Architecture(_FeatureSpaces, Protocol[Context]):
    """What every network implements."""

    def start(self, graph: AtomGraph, inputs: InputCoefficients, atom_type: Tensor) -> tuple[Features, Context]:
        """Initial features and whatever the blocks want to reuse.

        Args:
            graph: the batch.
            inputs: standardised coefficients of the known matrices.
            atom_type: index of each atom's element, (atom,).
        """
        ...

    def block(self, index: int, graph: AtomGraph, features: Features, context: Context) -> Features:
        """Features after block ``index``."""
        ...

    def listed_pairs(self, context: Context) -> Tensor | slice:
        """Item of ``Features.pair`` of each pair in ``AtomGraph.pair_index``, (pair,), or a slice of them.

        ``Features.pair`` may hold other pairs too: both directions of every one, for instance.
        """
        ...

    def read_out(self, graph: AtomGraph, features: Features, context: Context) -> Coefficients:
        """Coefficients of the on-site blocks and of the listed pairs."""
        ...


class Backbone(_FeatureSpaces, Protocol):
    """An architecture with its context hidden."""

    def run(self, graph: AtomGraph, inputs: InputCoefficients, atom_type: Tensor, after: AfterBlock) -> Coefficients:
        """One forward pass; every network implements it by :func:`run_blocks`."""
        ...


def run_blocks(
    architecture: Architecture[Context],
    graph: AtomGraph,
    inputs: InputCoefficients,
    atom_type: Tensor,
    after: AfterBlock,
) -> Coefficients:
    """Start, all blocks with ``after`` behind each, read-out."""
    features, context = architecture.start(graph, inputs, atom_type)
    for index in range(architecture.n_blocks):
        features = architecture.block(index, graph, features, context)
        features = after(index, features, architecture.listed_pairs(context))
    return architecture.read_out(graph, features, context)
