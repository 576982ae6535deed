"""Hyper-parameters of the published QHNet."""

from __future__ import annotations

from dataclasses import dataclass

from model.errors import CheckpointError

PATHS = ("fast", "torch", "reference")


@dataclass(frozen=True)
class QHNetPublishedConfig:
    """Hyper-parameters; the defaults are those of the QH9 benchmark (arXiv:2306.09549).

    Attributes:
        channels: channels per irrep on nodes and pairs.
        bottleneck: channels per irrep that enter the expansion.
        lmax: highest l of features and of the bond's harmonics.
        node_layers: message passing layers.
        pair_layers: how many of the last of them are followed by a SelfNet and a PairNet.
        hidden: width of the MLPs of the PairNets and of the read-out.
        convolution_hidden: width of the MLPs that make the weights of a convolution.
        radial_size: number of radial functions.
        cutoff_angstrom: longest message.
        embedding_rows: rows of the table of atomic numbers (its first row, 0, stays idle).
        path: how the same function is evaluated: "fast"; "torch", which is fast without own kernels; or "reference".

    Raises:
        CheckpointError: a path or a number of layers that cannot be.
    """

    channels: int = 128
    bottleneck: int = 32
    lmax: int = 4
    node_layers: int = 5
    pair_layers: int = 2
    hidden: int = 128
    convolution_hidden: int = 32
    radial_size: int = 16
    cutoff_angstrom: float = 15.0
    embedding_rows: int = 10
    path: str = "fast"

    @property
    def n_inputs(self) -> int:
        """It reads no known matrices."""
        return 0

    def __post_init__(self) -> None:
        if self.path not in PATHS:
            raise CheckpointError(f"Evaluation path {self.path!r} is not known.", allowed=PATHS)
        if not 1 <= self.pair_layers < self.node_layers:
            raise CheckpointError(
                f"{self.pair_layers} pair layers do not fit on {self.node_layers} node layers.",
                hint="Each pair layer follows one node layer, and the first node layer is never one of them.",
            )
