"""Hyper-parameters of the compact QHNet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class QHNetConfig:
    """Hyper-parameters.

    Attributes:
        node_lmax: highest l on nodes; 2 fills every block up to d-d.
        node_channels, pair_channels: channels per irrep.
        node_layers: message passing layers, all before the first pair block.
        pair_layers: pair blocks; each is preceded by one more node layer.
        hidden: width of the MLPs that make weights.
        radial_size: number of radial functions.
        cutoff_angstrom: longest message.
        n_inputs: known matrices that enter (3: overlap, reference, its density); 0 for none.
        smooth_messages: messages vanish smoothly at the cutoff. Without it a message ends with a jump: of no matter where the
            cutoff is longer than all molecules, but crystals have pairs at every distance.
    """

    node_lmax: int = 2
    node_channels: int = 64
    pair_channels: int = 48
    node_layers: int = 2
    pair_layers: int = 2
    hidden: int = 64
    radial_size: int = 16
    cutoff_angstrom: float = 15.0
    n_inputs: int = 3
    smooth_messages: bool = False
