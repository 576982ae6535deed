"""Hyper-parameters of QHNetV2."""

from __future__ import annotations

from dataclasses import dataclass

from model.errors import CheckpointError


@dataclass(frozen=True)
class QHNetV2Config:
    """Hyper-parameters. Features carry all irreps of a block (up to l = 4, both parities, for s, p and d shells).

    Attributes:
        node_channels, pair_channels: channels per irrep.
        exchange_channels: channels that travel from nodes to a pair and back, each way.
        frame_channels: channels between the two SO(2) linear maps of a layer.
        product_channels: channels of the SO(2) product; 0 leaves it out.
        layers: number of layers; TraceGrad follows each.
        hidden: width of the MLPs that make weights.
        radial_size: number of radial functions.
        cutoff_angstrom: where messages vanish smoothly.
        n_inputs: known matrices that enter (3: overlap, reference, its density); 0 for none.
        norm_floors: the least that the norms of atoms' features divide by: one for each layer, and one for the gate of the
            diagonal read-out; empty for none. What training data reach is a good value
            (docs/decisions/0011-norm-floors.md); no weights depend on it.

    Raises:
        CheckpointError: another number of floors, or a negative one.
    """

    node_channels: int = 64
    pair_channels: int = 48
    exchange_channels: int = 24
    frame_channels: int = 48
    product_channels: int = 32
    layers: int = 3
    hidden: int = 64
    radial_size: int = 16
    cutoff_angstrom: float = 15.0
    n_inputs: int = 3
    norm_floors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm_floors", tuple(self.norm_floors))  # a list, if read from a file
        if len(self.norm_floors) not in (0, self.layers + 1) or any(floor < 0 for floor in self.norm_floors):
            raise CheckpointError(
                f"norm_floors {list(self.norm_floors)} do not fit {self.layers} layers.",
                hint="Give none, or one for each layer and one for the diagonal read-out, none negative.",
            )

    @property
    def floors(self) -> tuple[float, ...]:
        """``norm_floors``, zeros if there are none."""
        return self.norm_floors or (0.0,) * (self.layers + 1)
